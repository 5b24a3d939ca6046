//! Reading the log from a checkpoint on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use super::bulk::Headed;
use super::fetch::Extent;
use super::filler::Filler;
use super::log::Segment;
use super::read::{checksum_at, parts, read_stored};
use super::recovery::{RecoveryReport, name_of};
use super::scan::ScanMemory;
use super::stream::Stream;
use super::{NvmeError, Shared};
use crate::format::{BatchFields, BatchHeader, BatchPlace, EntryKind, PAGE_BYTES};
use crate::{FileName, VolumeFile};

/// Zeros after which nothing more is looked for, unless something was written in front of them: more than
/// one write that went elsewhere leaves behind.
pub(super) const BLANK_BYTES: u64 = 4 << 20;

/// Where the log goes on, and after which batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) segment_id: u64,
    pub(super) offset_bytes: u64,
    pub(super) sequence: u64,
    pub(super) checksum: u32,
    /// Newest sequence that is known to have been synced.
    pub(super) synced_sequence: u64,
}

/// Where the log ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) segment_id: u64,
    pub(super) offset_bytes: u64,
    pub(super) sequence: u64,
    pub(super) checksum: u32,
    pub(super) log_bytes: u64,
}

/// A segment that is being read.
struct Reading {
    id: u64,
    /// As much of it as can hold batches.
    stream: Stream,
}

/// Reads headers in order, applies what a later header names as synced on the way, and decides how far the rest is
/// to be believed.
pub(super) struct Replay<'a> {
    shared: &'a Shared,
    memory: &'a mut ScanMemory,
    segments: Vec<Reading>,
    start: Start,
    /// Headers found of which none names as synced yet, with the index of their segment.
    found: VecDeque<(usize, Headed)>,
    /// Newest sequence that a header found names as synced.
    synced: u64,
    /// Where the batches end that are taken, and how many those are.
    end: End,
    taken: u64,
}

impl<'a> Replay<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        on_disk: &BTreeMap<u64, FileName>,
        start: Start,
        memory: &'a mut ScanMemory,
    ) -> Result<Self, NvmeError> {
        let windows = memory.windows();
        let mut segments = Vec::new();
        for (&id, name) in on_disk.range(start.segment_id..) {
            let file = match shared
                .segments
                .get(id)
                .and_then(|segment| segment.file.clone())
            {
                Some(file) => file,
                None => shared.volume.open(name)?,
            };
            let file_bytes = file.len_bytes()?.min(shared.segment_bytes);
            segments.push(Reading {
                id,
                stream: Stream::new(file, file_bytes, windows),
            });
        }
        Ok(Self {
            shared,
            memory,
            segments,
            start,
            found: VecDeque::new(),
            synced: start.synced_sequence,
            end: End {
                segment_id: start.segment_id,
                offset_bytes: start.offset_bytes,
                sequence: start.sequence,
                checksum: start.checksum,
                log_bytes: 0,
            },
            taken: 0,
        })
    }

    pub(super) fn run(self, report: &mut RecoveryReport) -> Result<End, NvmeError> {
        thread::scope(|scope| {
            let mut filler = Filler::new(scope, self.shared, self.memory.round_bytes());
            let end = self.run_with(&mut filler, report)?;
            filler.settle();
            Ok(end)
        })
    }

    fn run_with(
        mut self,
        filler: &mut Filler<'_, '_>,
        report: &mut RecoveryReport,
    ) -> Result<End, NvmeError> {
        let (stop, last) = self.read_headers(filler)?;
        filler.settle();
        self.check_beyond(stop, last)?;
        let taken = self.verified_count(report)?;
        report.tail_batches_discarded += (self.found.len() - taken) as u64;
        self.found.truncate(taken);
        if self.shared.read_only.is_none() {
            self.rewrite_tail()?;
        }
        while let Some((index, batch)) = self.found.pop_front() {
            self.take(filler, index, batch)?;
        }
        report.batches_replayed = self.taken;
        Ok(self.end)
    }

    /// Collects the headers that follow one another, and takes those that a later one names as synced; returns where
    /// that ends, as index of the segment and offset, and the last sequence.
    fn read_headers(
        &mut self,
        filler: &mut Filler<'_, '_>,
    ) -> Result<((usize, u64), u64), NvmeError> {
        let (mut sequence, mut checksum) = (self.start.sequence, self.start.checksum);
        let mut stop = (0, PAGE_BYTES as u64);
        for index in 0..self.segments.len() {
            let is_start = self.segments[index].id == self.start.segment_id;
            let mut offset = if is_start {
                self.start.offset_bytes
            } else {
                PAGE_BYTES as u64
            };
            while let Some(batch) = self
                .read_header(index, offset, Some(&mut *filler))?
                .filter(|batch| follows(&batch.fields, sequence, checksum))
            // mutant: no-sequence-order
            {
                (sequence, checksum) = (batch.fields.sequence, batch.fields.checksum);
                offset += batch.fields.batch_bytes();
                stop = (index, offset);
                self.synced = self.synced.max(batch.fields.synced_sequence);
                self.found.push_back((index, batch));
                self.take_synced(filler)?;
            }
            self.segments[index].stream.release();
            if is_start && sequence == self.start.sequence {
                stop = (index, offset);
            }
        }
        Ok((stop, sequence))
    }

    /// Takes the batches that a header names as synced: whatever comes behind them, they count.
    fn take_synced(&mut self, filler: &mut Filler<'_, '_>) -> Result<(), NvmeError> {
        while let Some((index, batch)) = self.found.pop_front() {
            if batch.fields.sequence > self.synced {
                self.found.push_front((index, batch));
                break;
            }
            self.take(filler, index, batch)?;
        }
        Ok(())
    }

    /// Lets a batch count, after those before it.
    fn take(
        &mut self,
        filler: &mut Filler<'_, '_>,
        index: usize,
        batch: Headed,
    ) -> Result<(), NvmeError> {
        let (reading, fields) = (&self.segments[index], &batch.fields);
        self.end.segment_id = reading.id;
        self.end.offset_bytes = fields.place.offset_bytes + fields.batch_bytes();
        self.end.sequence = fields.sequence;
        self.end.checksum = fields.checksum;
        self.end.log_bytes += fields.batch_bytes();
        self.taken += 1;
        let segments = &self.shared.segments;
        let segment = segments.get(reading.id).unwrap_or_else(|| {
            let segment = Segment::new(reading.id, Some(Arc::clone(reading.stream.file())), 0);
            let segment = Arc::new(segment);
            segments.insert(Arc::clone(&segment));
            segment
        });
        let used_bytes = self.end.offset_bytes;
        segment.used_bytes.store(used_bytes, Ordering::Release);
        filler.push(batch)
    }

    /// Holds memory for a header of so many bytes, beside those that are put by. A long one is alone: what is on its way
    /// into the index gets there first.
    fn hold_header(
        &mut self,
        header_bytes: usize,
        filler: Option<&mut Filler<'_, '_>>,
    ) -> Result<(), NvmeError> {
        let found_bytes: usize = self
            .found
            .iter()
            .map(|(_, batch)| batch.memory_bytes())
            .sum();
        let mut more_bytes = found_bytes.saturating_sub(self.memory.found_bytes());
        if header_bytes > self.memory.found_bytes() {
            if let Some(filler) = filler {
                filler.settle();
            }
            // As it was read, in one piece, and where its changes are.
            more_bytes += (3 * header_bytes).saturating_sub(4 * self.memory.round_bytes());
        }
        self.memory.hold(more_bytes)
    }

    /// The header at `offset`, if there is one that belongs there.
    fn read_header(
        &mut self,
        index: usize,
        offset: u64,
        filler: Option<&mut Filler<'_, '_>>,
    ) -> Result<Option<Headed>, NvmeError> {
        let place = BatchPlace {
            store_id: self.shared.store_id,
            segment_id: self.segments[index].id,
            offset_bytes: offset,
        };
        let Some(page) = self.segments[index]
            .stream
            .bytes_at(offset, PAGE_BYTES as u64)?
        else {
            return Ok(None);
        };
        let Ok(header_bytes) = BatchHeader::peek_header_bytes(page, &place) else {
            return Ok(None);
        };
        self.hold_header(header_bytes, filler)?;
        let shared = self.shared;
        let stream = &mut self.segments[index].stream;
        let Some(bytes) = stream.bytes_at(offset, header_bytes as u64)? else {
            return Ok(None);
        };
        let batch = Headed::decode(bytes.into(), &place, &shared.index).ok();
        Ok(batch.filter(|batch| {
            offset
                .checked_add(batch.fields.batch_bytes())
                .is_some_and(|end| end <= shared.segment_bytes)
        }))
    }

    /// Looks for batches beyond the end of the log that say that what is missing was acknowledged.
    fn check_beyond(
        &mut self,
        (stop_index, stop_offset): (usize, u64),
        last: u64,
    ) -> Result<(), NvmeError> {
        let mut lost = (self.synced > last).then_some(self.synced);
        for index in stop_index..self.segments.len() {
            let offset = if index == stop_index {
                stop_offset
            } else {
                PAGE_BYTES as u64
            };
            if lost.is_none() {
                lost = self.synced_beyond(index, offset, last)?;
            }
        }
        let Some(lost) = lost else { return Ok(()) };
        let segment = self
            .segments
            .get(stop_index)
            .map_or(0, |reading| reading.id);
        Err(NvmeError::Corrupt {
            structure: "batch header",
            location: format!("{} at {stop_offset}", name_of(segment)),
            reason: format!(
                "batches {} to {lost} were acknowledged and can't be read",
                last + 1
            ),
        })
    }

    /// The sequence that a header in a segment from `offset` on names as synced, if it is newer than `last`.
    fn synced_beyond(
        &mut self,
        index: usize,
        mut offset: u64,
        last: u64,
    ) -> Result<Option<u64>, NvmeError> {
        self.segments[index].stream.read_all();
        let (mut is_written, mut blank_bytes) = (false, 0);
        // Behind something that was written, zeros can be a payload.
        while is_written || blank_bytes < BLANK_BYTES {
            let Some(page) = self.segments[index]
                .stream
                .bytes_at(offset, PAGE_BYTES as u64)?
            else {
                break;
            };
            if page.iter().all(|&byte| byte == 0) {
                blank_bytes += PAGE_BYTES as u64;
            } else {
                let header = self.read_header(index, offset, None)?;
                let named = header.map_or(0, |header| header.fields.synced_sequence);
                if named > last {
                    return Ok(Some(named));
                }
                is_written = true;
            }
            offset += PAGE_BYTES as u64;
        }
        self.segments[index].stream.release();
        Ok(None)
    }

    /// How many of the headers count that none names as synced: as long as the values are whole.
    fn verified_count(&self, report: &mut RecoveryReport) -> Result<usize, NvmeError> {
        for (at, (index, batch)) in self.found.iter().enumerate() {
            let file = &**self.segments[*index].stream.file();
            match self.check_tail(file, batch) {
                Ok(()) => {}
                Err(NvmeError::Corrupt { .. }) => return Ok(at),
                // What can't be read now may be an acknowledged batch: that is not a torn one.
                Err(error) => return Err(error),
            }
            report.tail_batches_taken += 1;
        }
        Ok(self.found.len())
    }

    /// Writes the batches beyond the newest synced one again. The sync that should have made them durable may have
    /// failed: then the system shows pages as written that it has given up, and another sync would
    /// say nothing of them.
    fn rewrite_tail(&self) -> Result<(), NvmeError> {
        for (index, batch) in &self.found {
            let file = self.segments[*index].stream.file();
            let extent = Extent {
                start_bytes: batch.fields.place.offset_bytes,
                len_bytes: batch.fields.batch_bytes() as usize,
            };
            for part in parts(extent, self.memory.value_bytes()) {
                let lend = |len| self.shared.buffers.lend_reserved(len);
                let (at, len) = (part.start_bytes, part.len_bytes as u64);
                let bytes = read_stored(&**file, at, len, lend)?;
                file.write(at, bytes).wait()?;
            }
        }
        Ok(())
    }

    /// Checks a batch that nobody is known to have been told of.
    fn check_tail(&self, file: &dyn VolumeFile, batch: &Headed) -> Result<(), NvmeError> {
        self.check_values(file, batch)?; // mutant: no-payload-check
        Ok(())
    }

    /// Compares every value of a batch with the checksum that its header gives.
    fn check_values(&self, file: &dyn VolumeFile, batch: &Headed) -> Result<(), NvmeError> {
        let header = &batch.fields;
        let payload_at = header.place.offset_bytes + u64::from(header.header_bytes);
        for entry in batch
            .entries()
            .filter(|entry| entry.kind != EntryKind::Delete)
        {
            let at = payload_at + entry.value_offset_bytes;
            let range = (at, entry.stored_bytes);
            let part_bytes = self.memory.value_bytes();
            if checksum_at(file, &self.shared.buffers, range, part_bytes)? != entry.checksum {
                return Err(NvmeError::Corrupt {
                    structure: "batch",
                    location: format!("{} at {at}", name_of(header.place.segment_id)),
                    reason: "it was not written to its end".to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// Whether a batch comes right after the one of this sequence and checksum.
fn follows(header: &BatchFields, sequence: u64, checksum: u32) -> bool {
    header.sequence == sequence + 1 && header.previous_checksum == checksum
}
