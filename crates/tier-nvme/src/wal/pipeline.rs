//! What is on its way to the device, and what comes next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use core_view::BufferMut;
use core_view::contract::{ContractError, Failure};

use super::files::{Begun, LogFile};
use super::followers::{Acknowledgement, Followers};
use super::group::{ChunkPool, OpenGroup, SealedGroup};
use super::{Lsn, WalConfig};
use crate::NvmeError;
use crate::format::{COUNT_MAX, ChainLink, GROUP_BYTES_MAX, PAGE_BYTES, StoreId};

/// An open group of this size is written although the one before is still being synced.
const OVERLAP_BYTES: usize = 256 << 10;
/// A full group is closed at this size, so that memory comes back while the rest is filled.
const FULL_BYTES: usize = 4 << 20;
/// Longest time for which a sync is put off because records keep coming.
const PATIENCE_MAX: Duration = Duration::from_millis(1);

/// The state of the log, under one lock.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) log_id: StoreId,
    /// Random, another one each time that the log is opened.
    pub(super) life: u64,
    /// After the newest group that was sealed.
    pub(super) link: ChainLink,
    /// After the newest group that is durable.
    pub(super) durable: ChainLink,
    open: OpenGroup,
    /// Groups that take no more records, oldest first.
    full: VecDeque<OpenGroup>,
    is_writing: bool,
    /// Of the group that was written last.
    written_file: Arc<LogFile>,
    /// Written since the newest sync began.
    written: Vec<Written>,
    /// Being synced.
    syncing: Option<Vec<Written>>,
    /// Durable, to be told.
    told: Vec<Told>,
    /// Files with groups in them, oldest first; the last one is being written.
    pub(super) begun: VecDeque<Begun>,
    /// Files that were made ready, in the order of their numbers.
    pub(super) spares: VecDeque<Arc<LogFile>>,
    /// Highest number that a file has.
    pub(super) number_max: u64,
    pub(super) pool: ChunkPool,
    pub(super) poison: Option<NvmeError>,
    pub(super) is_closed: bool,
    /// Whether the newest group is a mark.
    pub(super) is_marked: bool,
    /// Whether some thread carries out actions.
    pub(super) is_pumping: bool,
    /// Threads that wait for any of this to change.
    pub(super) waiters: usize,
    pace: Pace,
}

/// A group that is written and not durable yet.
#[derive(Debug)]
struct Written {
    link: ChainLink,
    acknowledgements: Vec<Acknowledgement>,
}

/// Acknowledgements with one outcome.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) acknowledgements: Vec<Acknowledgement>,
    pub(super) outcome: Result<(), ContractError>,
}

/// How long records may keep a sync waiting: the longer it takes, the more it pays to fill it.
#[derive(Debug, Default)]
struct Pace {
    round_began: Option<Instant>,
    sync_began: Option<Instant>,
    sync_estimate: Duration,
}

impl Pace {
    fn is_patient(&self, now: Instant) -> bool {
        let patience = (self.sync_estimate / 4).min(PATIENCE_MAX);
        self.round_began
            .is_some_and(|began| now.saturating_duration_since(began) < patience)
    }

    fn sync_ended(&mut self, now: Instant) {
        if let Some(began) = self.sync_began.take() {
            let took = now.saturating_duration_since(began);
            self.sync_estimate = (self.sync_estimate * 7 + took) / 8;
        }
    }
}

/// What is to be done next, outside of the lock.
#[derive(Debug)]
pub(super) enum Action {
    Write(SealedGroup),
    Sync(Arc<LogFile>),
    Tell(Vec<Told>),
}

impl Pipeline {
    /// A log that goes on at `offset_bytes` of the last file of `begun`, after `link`.
    pub(super) fn new(
        log_id: StoreId,
        life: u64,
        link: ChainLink,
        begun: VecDeque<Begun>,
        offset_bytes: u64,
        active: Arc<LogFile>,
    ) -> Self {
        Self {
            log_id,
            life,
            link,
            durable: link,
            written_file: Arc::clone(&active),
            open: OpenGroup::new(active, offset_bytes, link.next_lsn),
            full: VecDeque::new(),
            is_writing: false,
            written: Vec::new(),
            syncing: None,
            told: Vec::new(),
            number_max: begun.back().map_or(0, |begun| begun.file.number),
            begun,
            spares: VecDeque::new(),
            pool: ChunkPool::default(),
            poison: None,
            is_closed: false,
            is_marked: false,
            is_pumping: false,
            waiters: 0,
            pace: Pace::default(),
        }
    }

    /// LSN of the next record.
    pub(super) fn next_lsn(&self) -> u64 {
        self.open.next_lsn()
    }

    /// Refuses what can't go on.
    pub(super) fn check_writable(&self) -> Result<(), NvmeError> {
        if self.is_closed {
            return Err(NvmeError::Closed);
        }
        if self.next_lsn().max(self.link.sequence) > COUNT_MAX - GROUP_BYTES_MAX as u64 {
            return Err(NvmeError::Invalid {
                field: "LSN",
                reason: "the log has no numbers left; go on in a new one".to_owned(),
            });
        }
        self.check_poison()
    }

    /// Refuses what can't go on after a failure.
    pub(super) fn check_poison(&self) -> Result<(), NvmeError> {
        match &self.poison {
            Some(error) => Err(NvmeError::Poisoned {
                reason: error.to_string(),
            }),
            None => Ok(()),
        }
    }

    /// Lets go of all files.
    pub(super) fn close_files(&self) {
        let begun = self.begun.iter().map(|begun| &begun.file);
        for file in begun.chain(&self.spares) {
            file.close();
        }
    }

    /// Whether the memory for `more_bytes` may be taken.
    pub(super) fn has_memory(&self, more_bytes: usize, config: &WalConfig) -> bool {
        let used_bytes = self.pool.used_bytes();
        used_bytes == 0
            || (self.open.is_empty() && self.is_idle())
            || used_bytes + more_bytes <= config.buffer_bytes()
    }

    /// Whether `more_bytes` of records have room in the file; one page stays free for the mark.
    pub(super) fn has_room(&self, more_bytes: usize) -> bool {
        let end = (self.open.len_bytes() + more_bytes).next_multiple_of(PAGE_BYTES) as u64;
        self.open.offset_bytes + end + PAGE_BYTES as u64 <= self.open.file.file_bytes
    }

    /// Whether the file is so full that the next one should be made ready.
    pub(super) fn wants_spare(&self) -> bool {
        self.spares.is_empty() && self.open.offset_bytes > self.open.file.file_bytes / 2
    }

    /// Goes on in the next file.
    pub(super) fn roll_to(&mut self, file: Arc<LogFile>) {
        let first_lsn = self.next_lsn();
        let next = OpenGroup::new(Arc::clone(&file), PAGE_BYTES as u64, first_lsn);
        let before = std::mem::replace(&mut self.open, next);
        if before.is_empty() {
            self.pool.give_back(before.into_parts().0, usize::MAX);
        } else {
            self.full.push_back(before);
        }
        self.begun.push_back(Begun {
            file,
            first_lsn,
            start: None,
        });
    }

    /// Closes the open group if it is so large that its memory should come back soon, or would be too large
    /// with `more_bytes`.
    pub(super) fn close_full_group(&mut self, more_bytes: usize) {
        let len_bytes = self.open.len_bytes();
        let is_too_large = len_bytes + more_bytes > GROUP_BYTES_MAX;
        if !self.open.is_empty() && (len_bytes >= FULL_BYTES || is_too_large) {
            self.close_group();
        }
    }

    /// Adds records, which have room and memory, to the open group.
    pub(super) fn push(&mut self, payloads: &[&[u8]], bytes: usize) -> Result<Lsn, NvmeError> {
        self.open.reserve(&mut self.pool, bytes)?;
        let mut lsn = Lsn::new(self.next_lsn());
        for payload in payloads {
            lsn = self.open.push(self.log_id, payload);
        }
        self.is_marked = false;
        Ok(lsn)
    }

    /// Remembers whom to tell when the newest record is durable.
    pub(super) fn acknowledge(&mut self, acknowledgement: Acknowledgement) {
        self.open.acknowledge(acknowledgement);
    }

    /// Where to wait for the newest record.
    pub(super) fn follow(&mut self) -> Arc<Followers> {
        self.open.follow()
    }

    /// Adds a group without records, which says that what came before is durable.
    pub(super) fn push_mark(&mut self) -> Result<(), NvmeError> {
        let end = self.open.end_bytes() + PAGE_BYTES as u64;
        if self.is_marked || end > self.open.file.file_bytes {
            return Ok(());
        }
        self.open.reserve(&mut self.pool, 0)?;
        self.open.is_mark = true;
        self.is_marked = true;
        Ok(())
    }

    fn close_group(&mut self) {
        let next = OpenGroup::new(
            Arc::clone(&self.open.file),
            self.open.end_bytes(),
            self.next_lsn(),
        );
        self.full.push_back(std::mem::replace(&mut self.open, next));
    }

    /// Whether everything that was appended is durable and told.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty()
            && self.full.is_empty()
            && !self.is_writing
            && self.written.is_empty()
            && self.syncing.is_none()
            && self.told.is_empty()
    }

    /// Whether the memory of a group may still be in the device's hands.
    pub(super) fn is_in_flight(&self) -> bool {
        self.is_writing || self.syncing.is_some()
    }

    /// The next thing to do; `patient` overrides the clock.
    pub(super) fn next_action(&mut self, now: Instant, patient: Option<bool>) -> Option<Action> {
        if self.poison.is_none() {
            let patient = patient.unwrap_or_else(|| self.pace.is_patient(now));
            if !self.is_writing && self.may_write(patient) {
                return Some(self.write(now));
            }
            if !self.is_writing && self.syncing.is_none() && !self.written.is_empty() {
                return Some(self.sync(now));
            }
        }
        if self.told.is_empty() {
            return None;
        }
        Some(Action::Tell(std::mem::take(&mut self.told)))
    }

    /// Whether a group should be written now.
    ///
    /// With nothing on its way, at once. While a sync waits to be submitted, as long as records keep
    /// coming and it pays to fill it. While one is under way, only what is so large that writing it
    /// takes time of its own: the rest gathers for the next.
    fn may_write(&self, patient: bool) -> bool {
        let (next, is_full) = match self.full.front() {
            Some(next) => (next, true),
            None => (&self.open, false),
        };
        if next.is_empty() {
            return false;
        }
        let is_first_of_file = next.offset_bytes == PAGE_BYTES as u64;
        let is_unsynced = self.syncing.is_some() || !self.written.is_empty();
        if is_first_of_file && is_unsynced {
            // mutant: wal-no-file-order
            // A sync is of one file; a file's header says that what came before it is durable.
            return false;
        }
        if self.syncing.is_some() {
            is_full || next.len_bytes() >= OVERLAP_BYTES
        } else {
            self.written.is_empty() || is_full || patient
        }
    }

    fn write(&mut self, now: Instant) -> Action {
        if self.full.is_empty() {
            self.close_group();
        }
        // `may_write` found a group, and an empty one is never closed.
        let group = self.full.pop_front().unwrap_or_else(|| {
            OpenGroup::new(Arc::clone(&self.open.file), 0, self.open.next_lsn())
        });
        let group = group.seal(self.log_id, self.life, self.link, self.durable.sequence);
        if let (Some(link), Some(begun)) = (
            group.file_header,
            self.begun
                .iter_mut()
                .find(|begun| begun.file.number == group.file.number),
        ) {
            begun.start = Some(link);
        }
        self.link = ChainLink::after(&group.header);
        self.is_writing = true;
        self.written_file = Arc::clone(&group.file);
        if self.written.is_empty() && self.syncing.is_none() {
            self.pace.round_began = Some(now);
        }
        Action::Write(group)
    }

    fn sync(&mut self, now: Instant) -> Action {
        let written = std::mem::take(&mut self.written);
        self.syncing = Some(written);
        self.pace.sync_began = Some(now);
        Action::Sync(Arc::clone(&self.written_file))
    }

    /// Takes in that a group was written.
    pub(super) fn write_ended(
        &mut self,
        link: ChainLink,
        acknowledgements: Vec<Acknowledgement>,
        chunks: Vec<BufferMut>,
        outcome: Result<(), Failure>,
        keep_bytes: usize,
    ) {
        self.is_writing = false;
        self.pool.give_back(chunks, keep_bytes);
        self.written.push(Written {
            link,
            acknowledgements,
        });
        match (outcome, &self.poison) {
            (Err(failure), _) => self.fail(ContractError::from(failure)),
            // A sync failed while this was written: nothing will sync it.
            (Ok(()), Some(error)) => self.fail(ContractError::from(error.clone())),
            (Ok(()), None) => {}
        }
    }

    /// Takes in that a sync ended.
    pub(super) fn sync_ended(&mut self, now: Instant, outcome: Result<(), Failure>) {
        let synced = self.syncing.take().unwrap_or_default();
        self.pace.sync_ended(now);
        match outcome {
            Ok(()) => {
                for written in synced {
                    self.durable = written.link;
                    self.told.push(Told {
                        acknowledgements: written.acknowledgements,
                        outcome: Ok(()),
                    });
                }
                self.pace.round_began = (!self.written.is_empty()).then_some(now);
            }
            Err(failure) => {
                self.written.splice(0..0, synced);
                self.fail(ContractError::from(failure));
            }
        }
    }

    /// Ends the log's life: what is on disk is not known.
    pub(super) fn fail(&mut self, error: ContractError) {
        self.poison
            .get_or_insert_with(|| NvmeError::Transfer(error.clone()));
        let first = std::mem::take(&mut self.written);
        let mut acknowledgements: Vec<_> = first
            .into_iter()
            .flat_map(|written| written.acknowledgements)
            .collect();
        let next = OpenGroup::new(
            Arc::clone(&self.open.file),
            self.open.offset_bytes,
            self.next_lsn(),
        );
        self.full.push_back(std::mem::replace(&mut self.open, next));
        for group in std::mem::take(&mut self.full) {
            let (chunks, told) = group.into_parts();
            self.pool.give_back(chunks, 0);
            acknowledgements.extend(told);
        }
        self.told.push(Told {
            acknowledgements,
            outcome: Err(error),
        });
    }
}
