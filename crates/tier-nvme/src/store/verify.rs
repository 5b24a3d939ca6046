//! Reading and checking everything.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use core_view::BufferMut;

use super::checkpoint::CHECKPOINT_NAMES;
use super::create::read_superblock;
use super::index::Slot;
use super::load::{check_checkpoint, damage_reason};
use super::log::{Segment, aligned_buffer};
use super::memory::{MemoryKind, Reservation};
use super::read::{check, check_sum, checksum_at, decode_into, read_stored};
use super::recovery::name_of;
use super::scan::ScanMemory;
use super::scrub::{Throttle, VerifyOptions, VerifyPosition};
use super::{NvmeError, Shared};
use crate::VolumeFile;
use crate::format::{
    BatchFields, BatchHeader, BatchPlace, Encoding, FormatError, PAGE_BYTES, SegmentHeader,
    Superblock, ValuePlace,
};

/// Values that are found by one pass over the index, if there is memory for their places.
const GROUP_VALUES_MAX: u64 = 500_000;

/// Why there is no header of a batch.
pub(super) enum NoHeader {
    /// It is not what was written, or can't be read.
    Damaged(String),
    /// There is no memory for it.
    Memory(NvmeError),
}

impl From<FormatError> for NoHeader {
    fn from(error: FormatError) -> Self {
        Self::Damaged(error.reason())
    }
}

/// Something on disk that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The structure: "superblock", "checkpoint", "segment header", "batch header" or "value".
    pub structure: &'static str,
    /// File, copy, offset.
    pub location: String,
    /// The key, if it is a value.
    pub key: Option<Vec<u8>>,
    /// What does not match.
    pub reason: String,
}

impl Damage {
    pub(super) fn structure(structure: &'static str, location: String, reason: String) -> Self {
        Self {
            structure,
            location,
            key: None,
            reason,
        }
    }
}

/// The outcome of reading everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Values read and compared.
    pub values_checked: u64,
    /// Bytes of them.
    pub bytes_checked: u64,
    /// Superblocks, checkpoints, segment and batch headers read and compared.
    pub structures_checked: u64,
    /// What does not match.
    pub damage: Vec<Damage>,
    /// Where to go on, if the options' limit ended it before everything was read.
    pub stopped_at: Option<VerifyPosition>,
}

impl VerifyReport {
    /// Whether everything is as it was written.
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty()
    }

    fn add(&mut self, structure: &'static str, location: String, result: Result<(), String>) {
        self.structures_checked += 1;
        if let Err(reason) = result {
            self.damage
                .push(Damage::structure(structure, location, reason));
        }
    }
}

impl Shared {
    /// # Errors
    /// [`NvmeError::MemoryLimit`].
    pub(super) fn verify(&self, options: &VerifyOptions) -> Result<VerifyReport, NvmeError> {
        let mut memory = ScanMemory::beside_others(self.buffers.budget())?;
        let mut report = VerifyReport::default();
        let mut pace = Throttle::new(options.bytes_per_second_max);
        let mut next_id = options.start.to_u64();
        if next_id == 0 {
            self.verify_superblock(&mut report);
            self.verify_checkpoints(&memory, &mut report);
        }
        loop {
            let (group, is_last) = self.next_group(next_id, options);
            let (first_id, last_id) = (next_id, group.last().map_or(u64::MAX, |last| last.id));
            for segment in group {
                self.verify_segment(&segment, &mut memory, &mut report)?;
            }
            let end = if is_last { u64::MAX } else { last_id };
            if options.values {
                self.verify_values(first_id..=end, &memory, &mut pace, &mut report)?;
            }
            if is_last {
                return Ok(report);
            }
            next_id = last_id + 1;
            if options
                .bytes_max
                .is_some_and(|max| report.bytes_checked >= max)
            {
                report.stopped_at = Some(VerifyPosition::from_u64(next_id));
                return Ok(report);
            }
        }
    }

    /// The segments that are looked at together, and whether there are no more: as many as have values that one pass over
    /// the index finds.
    fn next_group(&self, first_id: u64, options: &VerifyOptions) -> (Vec<Arc<Segment>>, bool) {
        let mut group = Vec::new();
        let (mut values, mut bytes) = (0, 0);
        for segment in self.segments.all() {
            if segment.id < first_id {
                continue;
            }
            let live_values = segment.live_values.load(Ordering::Acquire);
            let is_full = values + live_values > GROUP_VALUES_MAX
                || options.bytes_max.is_some_and(|max| bytes >= max);
            if is_full && !group.is_empty() {
                return (group, false);
            }
            values += live_values;
            bytes += segment.live_bytes.load(Ordering::Acquire);
            group.push(segment);
        }
        (group, true)
    }

    fn verify_superblock(&self, report: &mut VerifyReport) {
        match read_superblock(&*self.volume) {
            Ok((_, damaged)) => {
                report.structures_checked += 2 - damaged.len() as u64;
                for (copy, error) in damaged {
                    report.add("superblock", format!("copy {copy}"), Err(error.reason()));
                }
            }
            Err(error) => {
                report.add(
                    "superblock",
                    "both copies".to_owned(),
                    Err(error.to_string()),
                );
            }
        }
    }

    fn verify_checkpoints(&self, memory: &ScanMemory, report: &mut VerifyReport) {
        // Nobody else replaces a checkpoint.
        let _work = self.maintenance.lock();
        let superblock = Superblock::new(self.store_id, self.segment_bytes);
        for name in CHECKPOINT_NAMES {
            let result = check_checkpoint(&*self.volume, name, &superblock, memory);
            let result = result.map_err(|error| damage_reason(&error));
            report.add("checkpoint", name.to_owned(), result);
        }
    }

    /// Whether a segment's first page is its own.
    pub(super) fn check_segment_header(&self, segment: &Segment) -> Result<(), String> {
        let file = segment.file.as_ref().ok_or("the segment is missing")?;
        let target = aligned_buffer(PAGE_BYTES).map_err(|error| error.to_string())?;
        let page = file
            .read_blocking(0, target)
            .map_err(|failure| failure.to_string())?;
        let expected = SegmentHeader {
            store_id: self.store_id,
            segment_id: segment.id,
            segment_bytes: self.segment_bytes,
        };
        match SegmentHeader::decode(&page) {
            Ok(header) if header == expected => Ok(()),
            Ok(_) => Err("it belongs to another segment or store".to_owned()),
            Err(error) => Err(error.reason()),
        }
    }

    /// Walks the batches of a segment; after a damaged header, looks for the next whole one page by page.
    fn verify_segment(
        &self,
        segment: &Segment,
        memory: &mut ScanMemory,
        report: &mut VerifyReport,
    ) -> Result<(), NvmeError> {
        let location = name_of(segment.id);
        report.add(
            "segment header",
            location.clone(),
            self.check_segment_header(segment),
        );
        let Some(file) = &segment.file else {
            return Ok(());
        };
        let used_bytes = segment.used_bytes.load(Ordering::Acquire);
        let mut offset = PAGE_BYTES as u64;
        let mut in_damage = false;
        while offset < used_bytes {
            let lend = |len_bytes: usize| {
                memory.hold(len_bytes.saturating_sub(memory.value_bytes()))?;
                self.buffers.lend_reserved(len_bytes)
            };
            match self.read_batch_header(&**file, (segment.id, offset), used_bytes, lend) {
                Ok((fields, _)) => {
                    report.structures_checked += 1;
                    in_damage = false;
                    offset += fields.batch_bytes();
                }
                Err(NoHeader::Damaged(reason)) => {
                    if !in_damage {
                        report.add(
                            "batch header",
                            format!("{location} at {offset}"),
                            Err(reason),
                        );
                    }
                    in_damage = true;
                    offset += PAGE_BYTES as u64;
                }
                Err(NoHeader::Memory(error)) => return Err(error),
            }
        }
        memory.let_go();
        Ok(())
    }

    /// The header at a place of a segment of which `used_bytes` are used, every entry of it looked at, in memory that `lend`
    /// gives.
    pub(super) fn read_batch_header(
        &self,
        file: &dyn VolumeFile,
        (segment_id, offset_bytes): (u64, u64),
        used_bytes: u64,
        mut lend: impl FnMut(usize) -> Result<BufferMut, NvmeError>,
    ) -> Result<(BatchFields, BufferMut), NoHeader> {
        let place = BatchPlace {
            store_id: self.store_id,
            segment_id,
            offset_bytes,
        };
        let mut read = |bytes: usize| -> Result<_, NoHeader> {
            let target = lend(bytes).map_err(NoHeader::Memory)?;
            file.read_blocking(offset_bytes, target)
                .map_err(|failure| NoHeader::Damaged(failure.to_string()))
        };
        let too_long = || NoHeader::Damaged("it is longer than the log".to_owned());
        let page = read(PAGE_BYTES)?;
        let header_bytes = BatchHeader::peek_header_bytes(&page, &place)?;
        if header_bytes as u64 > used_bytes - offset_bytes {
            return Err(too_long());
        }
        let header = if header_bytes == PAGE_BYTES {
            page
        } else {
            read(header_bytes)?
        };
        let (fields, entries) = BatchFields::open(&header, &place)?;
        for entry in fields.entries(entries) {
            entry?;
        }
        if fields.batch_bytes() > used_bytes - offset_bytes {
            return Err(too_long());
        }
        Ok((fields, header))
    }

    /// Reads every value that is in these segments, in the order of the log; as many places as there is memory for are
    /// taken from the index at a time.
    fn verify_values(
        &self,
        group: RangeInclusive<u64>,
        memory: &ScanMemory,
        pace: &mut Throttle,
        report: &mut VerifyReport,
    ) -> Result<(), NvmeError> {
        let mut after = None;
        loop {
            let mut places = Places::new(after, memory.list_bytes());
            self.index.for_each(|key, slot| {
                if group.contains(&slot.segment_id) {
                    places.add(key, slot);
                }
            });
            let (located, is_all) = places.end();
            for (slot, key) in &located {
                self.verify_value(key, slot, memory, report)?;
                pace.passed(slot.stored_bytes);
            }
            if is_all {
                return Ok(());
            }
            let last = located.into_iter().next_back();
            after = last.map(|(slot, key)| (slot.place(), key));
        }
    }

    fn verify_value(
        &self,
        key: &[u8],
        slot: &Slot,
        memory: &ScanMemory,
        report: &mut VerifyReport,
    ) -> Result<(), NvmeError> {
        let file = self
            .segments
            .get(slot.segment_id)
            .and_then(|segment| segment.file.clone());
        let result = match file {
            Some(file) if slot.encoding == Encoding::Raw => {
                let range = (slot.offset_bytes, slot.stored_bytes);
                checksum_at(&*file, &self.buffers, range, memory.value_bytes())
                    .and_then(|found| check_sum(key, slot, found))
            }
            Some(file) => self.check_encoded(key, slot, &*file, memory),
            None => Err(NvmeError::FileNotFound {
                path: name_of(slot.segment_id),
            }),
        };
        if let Err(error @ NvmeError::MemoryLimit { .. }) = result {
            return Err(error);
        }
        // A value that was replaced meanwhile is not this one any more.
        if result.is_err() && self.index.get(key) != Some(*slot) {
            return Ok(());
        }
        report.values_checked += 1;
        report.bytes_checked += slot.stored_bytes;
        if let Err(error) = result {
            report.damage.push(Damage {
                structure: "value",
                location: format!("{} at {}", name_of(slot.segment_id), slot.offset_bytes),
                key: Some(key.to_vec()),
                reason: error.to_string(),
            });
        }
        Ok(())
    }

    /// Makes a compressed value whole, for which all of it has to be in memory twice.
    fn check_encoded(
        &self,
        key: &[u8],
        slot: &Slot,
        file: &dyn VolumeFile,
        memory: &ScanMemory,
    ) -> Result<(), NvmeError> {
        let page_bytes = PAGE_BYTES as u64;
        let bytes = slot.stored_bytes.saturating_add(slot.raw_bytes) + 2 * page_bytes;
        let more_bytes = (bytes + bytes / 8).saturating_sub(memory.value_bytes() as u64);
        let _more = match more_bytes {
            0 => None,
            more => Some(self.take_for_scan(more)?),
        };
        let lend = |len| self.buffers.lend_reserved(len);
        let stored = read_stored(file, slot.offset_bytes, slot.stored_bytes, lend)?;
        check(key, slot, &stored)?;
        let len = usize::try_from(slot.raw_bytes).unwrap_or(usize::MAX);
        let mut value = self.buffers.lend_reserved(len)?;
        drop(value.split_off(len));
        decode_into(key, slot, &stored, &mut value)
    }

    fn take_for_scan(&self, bytes: u64) -> Result<Reservation, NvmeError> {
        self.buffers.budget().try_reserve(MemoryKind::Scan, bytes)
    }
}

type Located = (Slot, Box<[u8]>);

/// Values without bytes may share a place: the key tells them apart.
type Position = (ValuePlace, Box<[u8]>);

/// The first values behind one, in the order of the log: as many as there is memory for.
struct Places {
    after: Option<Position>,
    /// Nothing from here on is wanted any more.
    before: Option<Position>,
    located: Vec<Located>,
    bytes: usize,
    bytes_max: usize,
}

impl Places {
    fn new(after: Option<Position>, bytes_max: usize) -> Self {
        Self {
            after,
            before: None,
            located: Vec::new(),
            bytes: 0,
            bytes_max,
        }
    }

    fn is_wanted(&self, key: &[u8], slot: &Slot) -> bool {
        let at = (slot.place(), key);
        let compare = |position: &Position| at.cmp(&(position.0, &*position.1));
        self.after.as_ref().is_none_or(|it| compare(it).is_gt())
            && self.before.as_ref().is_none_or(|it| compare(it).is_lt())
    }

    fn add(&mut self, key: &[u8], slot: &Slot) {
        if !self.is_wanted(key, slot) {
            return;
        }
        let bytes = Self::bytes_of(key);
        if self.bytes + bytes > self.bytes_max && self.located.len() > 1 {
            self.cut();
            if !self.is_wanted(key, slot) {
                return;
            }
        }
        self.bytes += bytes;
        self.located.push((*slot, key.into()));
    }

    /// What a value takes here, with the room that the list keeps for more.
    fn bytes_of(key: &[u8]) -> usize {
        3 * size_of::<Located>() + key.len().next_multiple_of(16) + 16
    }

    fn sort(&mut self) {
        self.located
            .sort_unstable_by(|(a, a_key), (b, b_key)| (a.place(), a_key).cmp(&(b.place(), b_key)));
    }

    /// Forgets the later half.
    fn cut(&mut self) {
        self.sort();
        let half = self.located.len() / 2;
        let first = self.located.get(half);
        self.before = first.map(|(slot, key)| (slot.place(), key.clone()));
        self.located.truncate(half);
        let bytes = self.located.iter().map(|(_, key)| Self::bytes_of(key));
        self.bytes = bytes.sum();
    }

    /// The values in order, and whether there are no more behind them.
    fn end(mut self) -> (Vec<Located>, bool) {
        self.sort();
        (self.located, self.before.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(offset_bytes: u64) -> Slot {
        Slot {
            segment_id: offset_bytes % 3,
            offset_bytes,
            stored_bytes: 1,
            raw_bytes: 1,
            sequence: 1,
            checksum: 0,
            encoding: Encoding::Raw,
        }
    }

    #[test]
    fn every_place_comes_once_and_in_order_however_little_memory_there_is() {
        // Many share a place.
        let all: Vec<_> = (0..1000_u64)
            .map(|number| {
                let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                (slot((mixed >> 40) % 200), mixed.to_le_bytes())
            })
            .collect();
        for bytes_max in [0, 1000, 10_000, 1 << 20] {
            let (mut after, mut found, mut passes) = (None, Vec::new(), 0);
            loop {
                let mut places = Places::new(after.take(), bytes_max);
                for (slot, key) in &all {
                    places.add(key, slot);
                    assert!(places.bytes <= bytes_max.max(2 * Places::bytes_of(key)));
                }
                passes += 1;
                let (located, is_all) = places.end();
                after = located
                    .last()
                    .map(|(slot, key)| (slot.place(), key.clone()));
                found.extend(located);
                if is_all {
                    break;
                }
            }
            let position = |(slot, key): &Located| (slot.place(), key.clone());
            assert!(found.is_sorted_by_key(position), "{bytes_max}");
            assert_eq!(found.len(), all.len(), "{bytes_max}");
            assert_eq!(passes == 1, bytes_max == 1 << 20);
        }
    }
}
