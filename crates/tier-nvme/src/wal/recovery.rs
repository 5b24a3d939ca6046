//! Opening a log, and what that found.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex};

use super::candidate::{Beginning, Candidate};
use super::files::{Begun, LogFile, Roster, create_file, write_page};
use super::pipeline::Pipeline;
use super::scan::{Scan, check_group};
use super::stats::Counters;
use super::{Shared, WalConfig};
use crate::format::{ChainLink, GroupHeader, PAGE_BYTES, StoreId, WalFileHeader};
use crate::{NvmeError, Volume, VolumeLock};

/// What was found when a log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalRecovery {
    /// Whether the log was made by this call.
    pub created: bool,
    /// Whether it was closed cleanly before, with nothing appended since.
    pub clean: bool,
    /// Groups at the end that may not have been acknowledged and were whole.
    pub tail_groups_taken: u64,
    /// Groups at the end that were not whole, or followed such a one: never acknowledged.
    pub tail_groups_discarded: u64,
    /// Files of operations that never finished, removed.
    pub files_removed: u64,
    /// Headers of files that were damaged and not needed.
    pub headers_damaged: u64,
}

/// What opening works on.
struct Opening<'a> {
    volume: &'a dyn Volume,
    config: &'a WalConfig,
    log_id: StoreId,
    report: WalRecovery,
    candidates: BTreeMap<u64, Candidate>,
}

/// The chain of groups that was found.
struct Chain {
    /// The files that the chain runs through, and where it was when each began.
    scans: Vec<(Scan, ChainLink)>,
    /// Headers in order, each with the index of its file.
    found: Vec<(usize, GroupHeader)>,
    /// Up to here everything was acknowledged, or at least durable.
    synced: u64,
}

/// Where the log goes on.
struct End {
    link: ChainLink,
    number: u64,
    offset_bytes: u64,
    is_marked: bool,
}

pub(super) fn open(
    volume: Arc<dyn Volume>,
    config: WalConfig,
    lock: Option<Box<dyn VolumeLock>>,
) -> Result<Shared, NvmeError> {
    let is_writable = volume.is_writable() && !config.read_only();
    let candidates = find_candidates(&*volume, &config, lock.is_some())?;
    let is_new = !candidates.values().any(Candidate::is_begun);
    let mut opening = Opening {
        volume: &*volume,
        config: &config,
        log_id: StoreId([0; 16]),
        report: WalRecovery::default(),
        candidates,
    };
    if is_new {
        opening.create(is_writable)?;
    }
    let read_only = opening.read_only_reason()?;
    let (pipeline, report) = opening.recover(read_only.is_none())?;
    Ok(Shared {
        config,
        pipeline: Mutex::new(pipeline),
        changed: Condvar::new(),
        roster: Mutex::new(Roster::default()),
        counters: Counters::default(),
        recovery: report,
        read_only,
        drive: volume.drive(),
        lock: Mutex::new(lock),
        volume,
    })
}

fn find_candidates(
    volume: &dyn Volume,
    config: &WalConfig,
    is_locked: bool,
) -> Result<BTreeMap<u64, Candidate>, NvmeError> {
    let mut candidates = BTreeMap::new();
    for name in volume.list()? {
        if let Some(number) = config.file_number(&name) {
            // Without a lock there may be a writer.
            if is_locked {
                volume.settle(&name)?;
            }
            candidates.insert(number, Candidate::read(volume, &name, number)?);
        }
    }
    Ok(candidates)
}

impl Opening<'_> {
    /// Makes an empty log in the place of files that were never begun.
    fn create(&mut self, is_writable: bool) -> Result<(), NvmeError> {
        for candidate in self.candidates.values() {
            candidate.check_blank()?;
        }
        if !is_writable || !self.config.create() {
            return Err(NvmeError::NotAStore {
                path: self.volume.report().location,
                reason: format!("there is no log {} in it", self.config.prefix()),
            });
        }
        for candidate in std::mem::take(&mut self.candidates).into_values() {
            self.remove(&candidate)?;
        }
        self.volume.sync_directory()?;
        let file = create_file(self.volume, self.config, 1)?;
        let header = WalFileHeader {
            log_id: StoreId(self.volume.unique_id()),
            number: 1,
            file_bytes: self.config.file_bytes(),
            start: ChainLink::START,
            incompatible: 0,
            compatible: 0,
        };
        let handle = file.handle()?;
        write_page(&*handle, 0, &header.encode())?;
        handle.sync().wait()?;
        let candidate = Candidate {
            file: Arc::new(file),
            beginning: Beginning::Header(header),
        };
        self.candidates.insert(1, candidate);
        self.report.created = true;
        Ok(())
    }

    fn remove(&mut self, candidate: &Candidate) -> Result<(), NvmeError> {
        self.volume.remove(&candidate.file.name)?;
        self.report.files_removed += 1;
        Ok(())
    }

    fn read_only_reason(&self) -> Result<Option<String>, NvmeError> {
        let headers = self.candidates.values().filter_map(Candidate::header);
        let (incompatible, compatible) = headers.fold((0, 0), |(refuse, keep), header| {
            (
                refuse | header.unknown_incompatible(),
                keep | header.unknown_compatible(),
            )
        });
        if incompatible != 0 {
            return Err(NvmeError::UnknownFeatures {
                path: self.volume.report().location,
                bits: incompatible,
            });
        }
        if self.config.read_only() {
            return Ok(Some("it was opened for reading only".to_owned()));
        }
        if !self.volume.is_writable() {
            return Ok(Some("its directory can't be written".to_owned()));
        }
        Ok((compatible != 0)
            .then(|| format!("it has features {compatible:#x} that this program does not know")))
    }

    fn recover(mut self, is_writable: bool) -> Result<(Pipeline, WalRecovery), NvmeError> {
        let (base, start) = self.base()?;
        self.check_older(base)?;
        let mut chain = self.walk(base, start)?;
        self.check_beyond(&mut chain)?;
        let taken = self.verified(&chain)?;
        let end = self.end_of(&chain, taken);
        if is_writable {
            self.make_sound(&chain, taken, &end)?;
        }
        let begun = self.begun(&chain, &end);
        let Some(active) = begun.back().map(|begun| Arc::clone(&begun.file)) else {
            return Err(self.corrupt("it has no files"));
        };
        let id = self.volume.unique_id();
        let life = id.iter().fold(0_u64, |life, &byte| {
            life.rotate_left(8) ^ u64::from(byte).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        let mut pipeline =
            Pipeline::new(self.log_id, life, end.link, begun, end.offset_bytes, active);
        pipeline.is_marked = end.is_marked;
        if is_writable {
            self.keep_spares(&mut pipeline, end.number)?;
            self.volume.sync_directory()?;
        }
        Ok((pipeline, self.report))
    }

    fn corrupt(&self, reason: &str) -> NvmeError {
        NvmeError::Corrupt {
            structure: "log",
            location: format!(
                "{}, {}",
                self.volume.report().location,
                self.config.prefix()
            ),
            reason: reason.to_owned(),
        }
    }

    /// The file from which on groups are looked at: the newest that says by its header that everything
    /// before it is durable; without such a one, the oldest that begins with a group.
    fn base(&mut self) -> Result<(u64, ChainLink), NvmeError> {
        let with_header = self
            .candidates
            .iter()
            .rev()
            .find_map(|(&number, candidate)| Some((number, candidate.header()?)));
        if let Some((number, header)) = with_header {
            let start = header.start;
            self.log_id = header.log_id;
            return Ok((number, start));
        }
        let with_group = self
            .candidates
            .iter()
            .find_map(|(&number, candidate)| Some((number, candidate.group()?)));
        match with_group {
            Some((number, header)) => {
                let start = start_of(header);
                self.log_id = header.place.log_id;
                Ok((number, start))
            }
            None => Err(self.corrupt("no file begins as one of a log")),
        }
    }

    /// The files before the base: they are full, one after the other, and of this log.
    fn check_older(&mut self, base: u64) -> Result<(), NvmeError> {
        let numbers: Vec<u64> = self.candidates.range(..=base).map(|(&n, _)| n).collect();
        for pair in numbers.windows(2) {
            if pair[0] + 1 != pair[1] {
                let reason = format!("file {} of it is missing", pair[0] + 1);
                return Err(self.corrupt(&reason));
            }
        }
        let mut before = ChainLink::START;
        for candidate in self.candidates.range(..=base).map(|(_, file)| file) {
            let wrong = |reason: &str| NvmeError::Corrupt {
                structure: "log file",
                location: candidate.file.name.to_string(),
                reason: reason.to_owned(),
            };
            let Some(start) = candidate.start_in(self.log_id) else {
                return Err(wrong("it does not begin as a file of this log"));
            };
            // Where a record is looked for depends on it.
            if start.sequence < before.sequence || start.next_lsn < before.next_lsn {
                return Err(wrong("it begins before the file in front of it does"));
            }
            before = start;
            self.report.headers_damaged += u64::from(candidate.header().is_none());
        }
        Ok(())
    }

    /// Collects the headers that follow one another from the base on.
    fn walk(&self, base: u64, start: ChainLink) -> Result<Chain, NvmeError> {
        let mut chain = Chain {
            scans: Vec::new(),
            found: Vec::new(),
            synced: start.sequence,
        };
        let mut link = start;
        for (&number, candidate) in self.candidates.range(base..) {
            let index = chain.scans.len();
            if number != base + index as u64 {
                break;
            }
            let mut scan = Scan::new(&candidate.file, self.log_id)?;
            let (file_start, mut offset) = (link, PAGE_BYTES as u64);
            while let Some(header) = scan
                .header(offset)?
                .filter(|header| link.is_followed_by(header))
            // mutant: wal-no-sequence-order
            {
                link = ChainLink::after(&header);
                offset = header.end_bytes();
                chain.synced = chain.synced.max(header.synced_sequence);
                chain.found.push((index, header));
            }
            if index > 0 && link == file_start {
                break;
            }
            chain.scans.push((scan, file_start));
        }
        Ok(chain)
    }

    /// Looks behind the end for groups that say that what is missing was acknowledged.
    fn check_beyond(&self, chain: &mut Chain) -> Result<(), NvmeError> {
        let newest = chain.found.last().map(|(_, header)| header.sequence);
        let newest = newest.unwrap_or(chain.synced);
        let last_index = chain.scans.len() - 1;
        let here = chain.found.last().filter(|(index, _)| *index == last_index);
        let from = here.map_or(PAGE_BYTES as u64, |(_, header)| header.end_bytes());
        let Some((scan, _)) = chain.scans.last_mut() else {
            return Ok(());
        };
        let (name, number) = (scan.file().name.clone(), scan.file().number);
        let mut lost = synced_beyond(scan, from, newest)?;
        if let (None, Some(next)) = (lost, self.candidates.get(&(number + 1))) {
            let mut next = Scan::new(&next.file, self.log_id)?;
            lost = synced_beyond(&mut next, PAGE_BYTES as u64, newest)?;
        }
        match lost {
            None => Ok(()),
            Some(synced) => Err(NvmeError::Corrupt {
                structure: "log group",
                location: format!("{name} at {from}"),
                reason: format!(
                    "groups {} to {synced} were acknowledged and can't be read",
                    newest + 1
                ),
            }),
        }
    }

    /// How many of the groups count: all that are known to be durable, and beyond as long as every record
    /// is whole.
    fn verified(&mut self, chain: &Chain) -> Result<usize, NvmeError> {
        for (at, (index, header)) in chain.found.iter().enumerate() {
            if header.sequence <= chain.synced {
                continue;
            }
            // What can't be read now may have been acknowledged: that is not a torn one.
            let group = chain.scans[*index].0.group(header)?;
            let is_torn = check_group(header, &group).is_err();
            if is_torn {
                // mutant: wal-no-tail-check
                self.report.tail_groups_discarded = (chain.found.len() - at) as u64;
                return Ok(at);
            }
            self.report.tail_groups_taken += u64::from(header.record_count > 0);
        }
        Ok(chain.found.len())
    }

    fn end_of(&mut self, chain: &Chain, taken: usize) -> End {
        let newest = chain.found[..taken].last();
        let first = &chain.scans[0];
        let Some((index, header)) = newest else {
            return End {
                link: first.1,
                number: first.0.file().number,
                offset_bytes: PAGE_BYTES as u64,
                is_marked: false,
            };
        };
        let is_marked = header.record_count == 0;
        self.report.clean = is_marked && self.report.tail_groups_discarded == 0;
        End {
            link: ChainLink::after(header),
            number: chain.scans[*index].0.file().number,
            offset_bytes: header.end_bytes(),
            is_marked,
        }
    }

    /// Makes durable what was read: an earlier sync may have failed, and what is read need not be on the
    /// device. Where the log ends, a page of zeros takes the place of what was discarded.
    fn make_sound(&self, chain: &Chain, taken: usize, end: &End) -> Result<(), NvmeError> {
        for (index, header) in &chain.found[..taken] {
            if header.sequence > chain.synced {
                chain.scans[*index].0.rewrite(header)?;
            }
        }
        for (scan, start) in &chain.scans {
            let file = scan.file();
            if file.number > end.number {
                break;
            }
            let header = WalFileHeader {
                log_id: self.log_id,
                number: file.number,
                file_bytes: file.file_bytes,
                start: *start,
                incompatible: 0,
                compatible: 0,
            };
            let handle = file.handle()?;
            write_page(&*handle, 0, &header.encode())?;
            if file.number == end.number && end.offset_bytes < scan.end_bytes() {
                write_page(&*handle, end.offset_bytes, &[])?;
            }
            handle.sync().wait()?; // mutant: wal-no-recovery-sync
        }
        Ok(())
    }

    /// The files with groups in them, up to the one where the log goes on.
    fn begun(&self, chain: &Chain, end: &End) -> VecDeque<Begun> {
        let walked = |number: u64| {
            let scans = chain.scans.iter();
            scans
                .filter(|(scan, _)| scan.file().number == number)
                .map(|(_, start)| *start)
                .next()
        };
        self.candidates
            .range(..=end.number)
            .filter_map(|(&number, candidate)| {
                let start = walked(number).or_else(|| candidate.start_in(self.log_id))?;
                Some(Begun {
                    file: Arc::clone(&candidate.file),
                    first_lsn: start.next_lsn,
                    start: Some(start),
                })
            })
            .collect()
    }

    /// Keeps the files behind the end that can be used, and removes the others.
    fn keep_spares(&mut self, pipeline: &mut Pipeline, end_number: u64) -> Result<(), NvmeError> {
        let later = self.candidates.split_off(&(end_number + 1));
        pipeline.number_max = end_number;
        for (number, candidate) in later {
            let is_next = number == pipeline.number_max + 1;
            let is_whole = candidate.file_len_bytes()? == self.config.file_bytes();
            let is_wanted = pipeline.spares.len() < self.config.spare_files().max(1);
            if is_next && is_whole && is_wanted {
                pipeline.number_max = number;
                let handle = candidate.file.handle()?;
                let file = LogFile::new(number, handle, self.config.file_bytes());
                pipeline.spares.push_back(Arc::new(file));
            } else {
                self.remove(&candidate)?;
            }
        }
        Ok(())
    }
}

/// The link that a file starts at whose first group has this header.
pub(super) fn start_of(header: &GroupHeader) -> ChainLink {
    ChainLink {
        sequence: header.sequence - 1,
        checksum: header.previous_checksum,
        next_lsn: header.first_lsn,
    }
}

/// The newest sequence, if it is newer than `newest`, that a group from `offset` on names as durable.
fn synced_beyond(
    scan: &mut Scan,
    mut offset_bytes: u64,
    newest: u64,
) -> Result<Option<u64>, NvmeError> {
    let mut lost = None;
    while offset_bytes < scan.end_bytes() {
        let header = scan.header(offset_bytes)?;
        let synced = header.map_or(0, |header| header.synced_sequence);
        if synced > newest {
            lost = lost.max(Some(synced));
        }
        offset_bytes += PAGE_BYTES as u64;
    }
    Ok(lost)
}
