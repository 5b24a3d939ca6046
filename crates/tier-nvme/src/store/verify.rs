//! Reading and checking everything.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::checkpoint::CHECKPOINT_NAMES;
use super::create::read_superblock;
use super::index::Slot;
use super::load::{check_checkpoint, damage_reason};
use super::log::{Segment, aligned_buffer};
use super::read::{check, read_stored, whole};
use super::recovery::name_of;
use super::scrub::{Throttle, VerifyOptions, VerifyPosition};
use super::{NvmeError, Shared};
use crate::VolumeFile;
use crate::format::{BatchHeader, BatchPlace, FormatError, PAGE_BYTES, SegmentHeader, Superblock};

/// Values whose places are kept in memory at a time.
const GROUP_VALUES_MAX: u64 = 500_000;

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
    pub(super) fn verify(&self, options: &VerifyOptions) -> VerifyReport {
        let mut report = VerifyReport::default();
        let mut pace = Throttle::new(options.bytes_per_second_max);
        let mut next_id = options.start.to_u64();
        if next_id == 0 {
            self.verify_superblock(&mut report);
            self.verify_checkpoints(&mut report);
        }
        loop {
            let (group, is_last) = self.next_group(next_id, options);
            let (first_id, last_id) = (next_id, group.last().map_or(u64::MAX, |last| last.id));
            for segment in group {
                self.verify_segment(&segment, &mut report);
            }
            let end = if is_last { u64::MAX } else { last_id };
            if options.values {
                self.verify_values(first_id..=end, &mut pace, &mut report);
            }
            if is_last {
                return report;
            }
            next_id = last_id + 1;
            if options
                .bytes_max
                .is_some_and(|max| report.bytes_checked >= max)
            {
                report.stopped_at = Some(VerifyPosition::from_u64(next_id));
                return report;
            }
        }
    }

    /// The segments that are looked at together, and whether there are no more: as many as have their values
    /// in bounded memory, found by one pass over the index.
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

    fn verify_checkpoints(&self, report: &mut VerifyReport) {
        // Nobody else replaces a checkpoint.
        let _work = self.maintenance.lock();
        let superblock = Superblock::new(self.store_id, self.segment_bytes);
        for name in CHECKPOINT_NAMES {
            let result = check_checkpoint(&*self.volume, name, &superblock);
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
    fn verify_segment(&self, segment: &Segment, report: &mut VerifyReport) {
        let location = name_of(segment.id);
        report.add(
            "segment header",
            location.clone(),
            self.check_segment_header(segment),
        );
        let Some(file) = &segment.file else { return };
        let used_bytes = segment.used_bytes.load(Ordering::Acquire);
        let mut offset = PAGE_BYTES as u64;
        let mut in_damage = false;
        while offset < used_bytes {
            match self.read_batch_header(&**file, segment.id, offset, used_bytes) {
                Ok(header) => {
                    report.structures_checked += 1;
                    in_damage = false;
                    offset += header.batch_bytes();
                }
                Err(reason) => {
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
            }
        }
    }

    pub(super) fn read_batch_header(
        &self,
        file: &dyn VolumeFile,
        segment_id: u64,
        offset_bytes: u64,
        used_bytes: u64,
    ) -> Result<BatchHeader, String> {
        let place = BatchPlace {
            store_id: self.store_id,
            segment_id,
            offset_bytes,
        };
        let read = |bytes: usize| -> Result<_, String> {
            let target = aligned_buffer(bytes).map_err(|error| error.to_string())?;
            file.read_blocking(offset_bytes, target)
                .map_err(|failure| failure.to_string())
        };
        let reason = |error: FormatError| error.reason();
        let page = read(PAGE_BYTES)?;
        let header_bytes = BatchHeader::peek_header_bytes(&page, &place).map_err(reason)?;
        if header_bytes as u64 > used_bytes - offset_bytes {
            return Err("it is longer than the log".to_owned());
        }
        let header = if header_bytes == PAGE_BYTES {
            page
        } else {
            read(header_bytes)?
        };
        let header = BatchHeader::decode(&header, &place).map_err(reason)?;
        if header.batch_bytes() > used_bytes - offset_bytes {
            return Err("it is longer than the log".to_owned());
        }
        Ok(header)
    }

    /// Reads every value that is in these segments, in the order of the log.
    fn verify_values(
        &self,
        group: RangeInclusive<u64>,
        pace: &mut Throttle,
        report: &mut VerifyReport,
    ) {
        let mut entries = Vec::new();
        self.index.for_each(|key, slot| {
            if group.contains(&slot.segment_id) {
                entries.push((*slot, Box::<[u8]>::from(key)));
            }
        });
        entries.sort_unstable_by_key(|(slot, _)| slot.place());
        for (slot, key) in entries {
            self.verify_value(&key, &slot, report);
            pace.passed(slot.stored_bytes);
        }
    }

    fn verify_value(&self, key: &[u8], slot: &Slot, report: &mut VerifyReport) {
        let file = self
            .segments
            .get(slot.segment_id)
            .and_then(|segment| segment.file.clone());
        let result = match file {
            Some(file) => {
                read_stored(&*file, slot.offset_bytes, slot.stored_bytes).and_then(|stored| {
                    check(key, slot, &stored)?;
                    whole(key, slot, stored).map(drop)
                })
            }
            None => Err(NvmeError::FileNotFound {
                path: name_of(slot.segment_id),
            }),
        };
        // A value that was replaced meanwhile is not this one any more.
        if result.is_err() && self.index.get(key) != Some(*slot) {
            return;
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
    }
}
