//! Reading the log from a checkpoint on.

use std::collections::BTreeMap;
use std::sync::Arc;

use core_view::BufferMut;

use super::log::{Segment, aligned_buffer};
use super::read::read_stored;
use super::recovery::{RecoveryReport, name_of};
use super::{NvmeError, Shared};
use crate::format::{BatchHeader, BatchPlace, EntryKind, PAGE_BYTES, crc32c};
use crate::{FileName, VolumeFile};

/// Bytes read ahead of a header: several small batches, or one header and the start of its payload.
const WINDOW_BYTES: u64 = 64 << 10;
/// The same where batch follows small batch.
const WINDOW_BYTES_MAX: u64 = 2 << 20;

/// Bytes read at once where every page is looked at.
const SCAN_WINDOW_BYTES: u64 = 1 << 20;

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
    file: Arc<dyn VolumeFile>,
    /// How much of it can hold batches.
    file_bytes: u64,
    window_at: u64,
    window: Option<BufferMut>,
}

/// Reads headers in order, then decides how far the log is to be believed, then applies it.
pub(super) struct Replay<'a> {
    shared: &'a Shared,
    segments: Vec<Reading>,
    start: Start,
    window_bytes: u64,
    /// Headers found, with the index of their segment.
    found: Vec<(usize, BatchHeader)>,
}

impl<'a> Replay<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        on_disk: &BTreeMap<u64, FileName>,
        start: Start,
    ) -> Result<Self, NvmeError> {
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
            segments.push(Reading {
                id,
                file_bytes: file.len_bytes()?.min(shared.segment_bytes),
                file,
                window_at: 0,
                window: None,
            });
        }
        Ok(Self {
            shared,
            segments,
            start,
            window_bytes: WINDOW_BYTES,
            found: Vec::new(),
        })
    }

    pub(super) fn run(mut self, report: &mut RecoveryReport) -> Result<End, NvmeError> {
        let stop = self.read_headers()?;
        let synced = self
            .found
            .iter()
            .map(|(_, header)| header.synced_sequence)
            .fold(self.start.synced_sequence, u64::max);
        self.check_beyond(stop, synced)?;
        let taken = self.verified_count(synced, report)?;
        report.tail_batches_discarded += (self.found.len() - taken) as u64;
        report.batches_replayed = taken as u64;
        if self.shared.read_only.is_none() {
            self.rewrite_tail(taken, synced)?;
        }
        Ok(self.apply(taken))
    }

    /// Collects the headers that follow one another; returns where that ends: index of the segment and
    /// offset.
    fn read_headers(&mut self) -> Result<(usize, u64), NvmeError> {
        let (mut sequence, mut checksum) = (self.start.sequence, self.start.checksum);
        let mut stop = (0, PAGE_BYTES as u64);
        for index in 0..self.segments.len() {
            let is_start = self.segments[index].id == self.start.segment_id;
            let mut offset = if is_start {
                self.start.offset_bytes
            } else {
                PAGE_BYTES as u64
            };
            while let Some(header) = self
                .read_header(index, offset)?
                .filter(|header| follows(header, sequence, checksum))
            // mutant: no-sequence-order
            {
                (sequence, checksum) = (header.sequence, header.checksum);
                offset += header.batch_bytes();
                stop = (index, offset);
                self.found.push((index, header));
            }
            if is_start && self.found.is_empty() {
                stop = (index, offset);
            }
        }
        Ok(stop)
    }

    /// The header at `offset`, if there is one that belongs there.
    fn read_header(&mut self, index: usize, offset: u64) -> Result<Option<BatchHeader>, NvmeError> {
        let place = BatchPlace {
            store_id: self.shared.store_id,
            segment_id: self.segments[index].id,
            offset_bytes: offset,
        };
        let Some(page) = self.bytes_at(index, offset, PAGE_BYTES as u64)? else {
            return Ok(None);
        };
        let Ok(header_bytes) = BatchHeader::peek_header_bytes(page, &place) else {
            return Ok(None);
        };
        let Some(bytes) = self.bytes_at(index, offset, header_bytes as u64)? else {
            return Ok(None);
        };
        let header = BatchHeader::decode(bytes, &place).ok();
        Ok(header.filter(|header| {
            offset
                .checked_add(header.batch_bytes())
                .is_some_and(|end| end <= self.shared.segment_bytes)
        }))
    }

    /// `len` bytes at `offset`, `None` if the segment ends before.
    fn bytes_at(
        &mut self,
        index: usize,
        offset: u64,
        len: u64,
    ) -> Result<Option<&[u8]>, NvmeError> {
        let reading = &mut self.segments[index];
        let file_bytes = reading.file_bytes;
        if offset.checked_add(len).is_none_or(|end| end > file_bytes) {
            return Ok(None);
        }
        let window_len = reading
            .window
            .as_ref()
            .map_or(0, |window| window.len() as u64);
        if offset < reading.window_at || offset + len > reading.window_at + window_len {
            // Who reads everything gets more at a time.
            let goes_on = window_len > 0
                && (reading.window_at..=reading.window_at + window_len).contains(&offset);
            let window_bytes = if goes_on {
                (2 * window_len).clamp(WINDOW_BYTES, WINDOW_BYTES_MAX)
            } else {
                WINDOW_BYTES
            };
            let bytes = len
                .max(window_bytes)
                .max(self.window_bytes)
                .min(file_bytes - offset);
            let bytes = bytes - bytes % PAGE_BYTES as u64;
            let target = aligned_buffer(bytes as usize)?;
            reading.window = Some(reading.file.read_blocking(offset, target)?);
            reading.window_at = offset;
        }
        let from = (offset - reading.window_at) as usize;
        let window = reading.window.as_deref().unwrap_or_default();
        Ok(window.get(from..from + len as usize))
    }

    /// Looks for batches beyond the end of the log that say that what is missing was acknowledged.
    fn check_beyond(
        &mut self,
        (stop_index, stop_offset): (usize, u64),
        synced: u64,
    ) -> Result<(), NvmeError> {
        let last = self
            .found
            .last()
            .map_or(self.start.sequence, |(_, header)| header.sequence);
        self.window_bytes = SCAN_WINDOW_BYTES;
        let mut lost = (synced > last).then_some(synced);
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
        let (mut is_written, mut blank_bytes) = (false, 0);
        // Behind something that was written, zeros can be a payload.
        while is_written || blank_bytes < BLANK_BYTES {
            let Some(page) = self.bytes_at(index, offset, PAGE_BYTES as u64)? else {
                break;
            };
            if page.iter().all(|&byte| byte == 0) {
                blank_bytes += PAGE_BYTES as u64;
            } else {
                let header = self.read_header(index, offset)?;
                if let Some(header) = header.filter(|header| header.synced_sequence > last) {
                    return Ok(Some(header.synced_sequence));
                }
                is_written = true;
            }
            offset += PAGE_BYTES as u64;
        }
        Ok(None)
    }

    /// How many of the headers count: up to `synced` all of them, beyond as long as the values are whole.
    fn verified_count(
        &mut self,
        synced: u64,
        report: &mut RecoveryReport,
    ) -> Result<usize, NvmeError> {
        for at in 0..self.found.len() {
            let (index, header) = &self.found[at];
            if header.sequence <= synced {
                continue;
            }
            let file = Arc::clone(&self.segments[*index].file);
            match check_tail(&*file, header) {
                Ok(()) => {}
                Err(NvmeError::Corrupt { .. }) => return Ok(at),
                // What can't be read now may be an acknowledged batch: that is not a torn one.
                Err(error) => return Err(error),
            }
            report.tail_batches_taken += 1;
        }
        Ok(self.found.len())
    }

    /// Writes the batches beyond `synced` again. The sync that should have made them durable may have
    /// failed: then the system shows pages as written that it has given up, and another sync would
    /// say nothing of them.
    fn rewrite_tail(&self, taken: usize, synced: u64) -> Result<(), NvmeError> {
        for (index, header) in &self.found[..taken] {
            if header.sequence > synced {
                let file = &self.segments[*index].file;
                let at = header.place.offset_bytes;
                let batch = read_stored(&**file, at, header.batch_bytes())?;
                file.write(at, batch).wait()?;
            }
        }
        Ok(())
    }

    fn apply(mut self, taken: usize) -> End {
        let mut end = End {
            segment_id: self.start.segment_id,
            offset_bytes: self.start.offset_bytes,
            sequence: self.start.sequence,
            checksum: self.start.checksum,
            log_bytes: 0,
        };
        for (index, header) in self.found.iter().take(taken) {
            let reading = &self.segments[*index];
            end.segment_id = reading.id;
            end.offset_bytes = header.place.offset_bytes + header.batch_bytes();
            end.sequence = header.sequence;
            end.checksum = header.checksum;
            end.log_bytes += header.batch_bytes();
            if self.shared.segments.get(reading.id).is_none() {
                let segment = Segment::new(reading.id, Some(Arc::clone(&reading.file)), 0);
                self.shared.segments.insert(Arc::new(segment));
            }
            if let Some(segment) = self.shared.segments.get(reading.id) {
                segment
                    .used_bytes
                    .store(end.offset_bytes, std::sync::atomic::Ordering::Release);
            }
        }
        let headers = self.found.drain(..taken).map(|(_, header)| header);
        self.shared.fill_from_batches(headers);
        end
    }
}

/// Whether a batch comes right after the one of this sequence and checksum.
fn follows(header: &BatchHeader, sequence: u64, checksum: u32) -> bool {
    header.sequence == sequence + 1 && header.previous_checksum == checksum
}

/// Checks a batch that nobody is known to have been told of.
fn check_tail(file: &dyn VolumeFile, header: &BatchHeader) -> Result<(), NvmeError> {
    check_values(file, header)?; // mutant: no-payload-check
    Ok(())
}

/// Compares every value of a batch with the checksum that its header gives.
fn check_values(file: &dyn VolumeFile, header: &BatchHeader) -> Result<(), NvmeError> {
    let payload_at = header.place.offset_bytes + u64::from(header.header_bytes);
    for entry in header
        .entries
        .iter()
        .filter(|entry| entry.kind != EntryKind::Delete)
    {
        let at = payload_at + entry.value_offset_bytes;
        let value = read_stored(file, at, entry.stored_bytes)?;
        if crc32c(&value) != entry.checksum {
            return Err(NvmeError::Corrupt {
                structure: "batch",
                location: format!("{} at {at}", name_of(header.place.segment_id)),
                reason: "it was not written to its end".to_owned(),
            });
        }
    }
    Ok(())
}
