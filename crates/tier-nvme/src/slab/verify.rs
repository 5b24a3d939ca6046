//! Reading and checking everything.

use std::collections::VecDeque;

use core_view::BufferMut;
use core_view::contract::{BlockKey, Transfer};

use super::Shared;
use super::commit::aligned_buffer;
use super::create::{damaged, read_superblock};
use super::recovery::check_header;
use super::replay::is_payload;
use super::slots::{Pin, SlotId};
use super::tables::TABLE_NAMES;
use crate::format::PAGE_BYTES;
use crate::format::slab::{BlockPlace, blocks_name};
use crate::store::{Damage, VerifyReport};

/// Blocks that are looked up at once.
const PAGE_BLOCKS: usize = 256;

struct Reading {
    key: BlockKey,
    place: BlockPlace,
    read: Transfer<BufferMut>,
    _pin: Pin,
}

impl Shared {
    pub(super) fn verify(&self) -> VerifyReport {
        let mut report = VerifyReport::default();
        {
            // Nobody writes the tables meanwhile.
            let _journal = self.journal();
            self.verify_superblock(&mut report);
            for (index, name) in TABLE_NAMES.into_iter().enumerate() {
                let checked = self.check_table(index, name);
                note(&mut report, "block table", name.to_owned(), checked);
            }
        }
        for segment in self.slots.all() {
            let name = blocks_name(segment.id).map(|name| name.to_string());
            let checked = match &segment.file {
                None => Err("the file is missing or too short".to_owned()),
                Some(file) => check_header(self, segment.id, &**file)
                    .unwrap_or_else(|error| Err(error.to_string())),
            };
            note(
                &mut report,
                "segment header",
                name.unwrap_or_default(),
                checked,
            );
        }
        self.verify_blocks(&mut report);
        report
    }

    fn verify_superblock(&self, report: &mut VerifyReport) {
        match read_superblock(&*self.volume) {
            Ok((_, damage)) => {
                report.structures_checked += 2;
                report.damage.extend(damage);
            }
            Err(error) => {
                let location = "both copies".to_owned();
                note(report, "superblock", location, Err(error.to_string()));
            }
        }
    }

    fn verify_blocks(&self, report: &mut VerifyReport) {
        let depth = self.config.io_depth() as usize;
        let mut after = None;
        loop {
            let page = self.table.page(after, PAGE_BLOCKS);
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            let mut readings = VecDeque::new();
            for (key, _) in page {
                if readings.len() >= depth
                    && let Some(oldest) = readings.pop_front()
                {
                    finish(report, oldest);
                }
                match self.start(key) {
                    Ok(Some(reading)) => readings.push_back(reading),
                    Ok(None) => {}
                    Err(reason) => report.damage.push(block_damage(key, "", reason)),
                }
            }
            for reading in readings {
                finish(report, reading);
            }
        }
    }

    /// Begins to read a block; `None` if it is gone by now.
    fn start(&self, key: BlockKey) -> Result<Option<Reading>, String> {
        let found = self.table.with(key, |place| {
            let id = SlotId {
                segment_id: place.segment_id,
                slot: place.slot,
            };
            (place.clone(), self.slots.pin(id))
        });
        let Some((place, pin)) = found else {
            return Ok(None);
        };
        let file = pin.as_ref().and_then(|pin| pin.file().cloned());
        let (Some(pin), Some(file)) = (pin, file) else {
            return Err("its segment is missing".to_owned());
        };
        let len = (place.payload_bytes as usize).next_multiple_of(PAGE_BYTES);
        let target = aligned_buffer(len).map_err(|error| error.to_string())?;
        let offset_bytes = self.geometry.slot_offset_bytes(place.slot);
        Ok(Some(Reading {
            key,
            read: file.read(offset_bytes, target),
            place,
            _pin: pin,
        }))
    }
}

fn finish(report: &mut VerifyReport, reading: Reading) {
    report.values_checked += 1;
    report.bytes_checked += u64::from(reading.place.payload_bytes);
    let location = format!(
        "slot {} of segment {:08x}",
        reading.place.slot, reading.place.segment_id
    );
    let reason = match reading.read.wait() {
        Ok(pages) if is_payload(&pages, &reading.place) => return,
        Ok(_) => "its bytes are not the ones stored".to_owned(),
        Err(failure) => failure.to_string(),
    };
    report
        .damage
        .push(block_damage(reading.key, &location, reason));
}

fn block_damage(key: BlockKey, location: &str, reason: String) -> Damage {
    Damage {
        key: Some(key.0.to_be_bytes().to_vec()),
        ..damaged("block", format!("block {key} {location}"), reason)
    }
}

fn note(
    report: &mut VerifyReport,
    structure: &'static str,
    location: String,
    checked: Result<(), String>,
) {
    report.structures_checked += 1;
    if let Err(reason) = checked {
        report.damage.push(damaged(structure, location, reason));
    }
}
