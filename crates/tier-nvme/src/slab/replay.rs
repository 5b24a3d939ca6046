//! The records that follow a table: finding them, and how many of them count.

use std::collections::{BTreeMap, BTreeSet};

use core_view::BufferMut;
use core_view::contract::BlockKey;

use super::Shared;
use super::commit::aligned_buffer;
use super::load::Loaded;
use super::recovery::{SegmentFiles, SlabRecovery};
use super::slots::SlotId;
use crate::NvmeError;
use crate::format::slab::{BlockEdit, BlockPlace, LogPlace, Record, is_begun};
use crate::format::{PAGE_BYTES, crc32c};

/// Logs that are read at once.
const LOGS_IN_FLIGHT: usize = 8;

/// What the logs hold that follows a table.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In order of their sequence.
    pub(super) records: Vec<Record>,
    /// The segments in whose logs a record was begun that is not whole.
    pub(super) begun: BTreeSet<u32>,
}

impl Found {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.begun.is_empty()
    }
}

/// Where the records end, and blocks that are to be written again.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    pub(super) sequence: u64,
    pub(super) checksum: u32,
    /// Live blocks of the records that nobody is known to have been told of.
    pub(super) tail: Vec<(BlockKey, BlockPlace)>,
}

/// Reads every page of every log: also behind what seems to be its end, where the record may be that
/// names a lost one as synced.
pub(super) fn scan_logs(
    shared: &Shared,
    files: &SegmentFiles,
    epoch: u64,
) -> Result<Found, NvmeError> {
    let mut found = Found::default();
    let files: Vec<_> = files.iter().collect();
    for group in files.chunks(LOGS_IN_FLIGHT) {
        let mut reads = Vec::with_capacity(group.len());
        for (_, file) in group {
            let target = aligned_buffer(shared.geometry.log_bytes as usize)?;
            reads.push(file.read(shared.geometry.log_offset_bytes(), target));
        }
        for ((id, _), read) in group.iter().zip(reads) {
            scan_log(shared, **id, &read.wait()?, epoch, &mut found)?;
        }
    }
    found.records.sort_by_key(|record| record.sequence);
    Ok(found)
}

fn scan_log(
    shared: &Shared,
    segment_id: u32,
    log: &[u8],
    epoch: u64,
    found: &mut Found,
) -> Result<(), NvmeError> {
    let mut at = 0;
    while let Some(rest) = log.get(at..).filter(|rest| !rest.is_empty()) {
        let place = LogPlace {
            store_id: shared.store_id,
            segment_id,
            offset_bytes: at as u32,
        };
        at += PAGE_BYTES;
        match Record::decode(rest, &place) {
            Ok(record) if record.epoch == epoch => {
                at += record.record_bytes as usize - PAGE_BYTES;
                found.records.push(record);
            }
            Ok(record) if record.epoch > epoch => {
                return Err(log_error(format!(
                    "record {} follows table {}, the newest that is whole is {epoch}",
                    record.sequence, record.epoch
                )));
            }
            Ok(_) => {}
            Err(_) if is_begun(rest, shared.store_id, epoch) => {
                found.begun.insert(segment_id);
            }
            Err(_) => {}
        }
    }
    Ok(())
}

fn log_error(reason: String) -> NvmeError {
    NvmeError::Corrupt {
        structure: "log",
        location: "records behind the table".to_owned(),
        reason: format!("{reason}; make a new slab and store the blocks again"),
    }
}

/// Applies the table and the records that count.
///
/// Up to the newest sequence that any record names as synced, all have to be there. Of those behind it, as
/// many count as leave no live block whose payload is not whole: the slots of blocks that a synced record
/// has replaced may hold something else by then, so that a block that is not live any more says nothing.
pub(super) fn replay(
    shared: &Shared,
    loaded: &Loaded,
    records: Vec<Record>,
    report: &mut SlabRecovery,
) -> Result<Replayed, NvmeError> {
    let synced = records.iter().map(|record| record.synced_sequence).max();
    let synced = synced.unwrap_or(0).max(loaded.header.sequence);
    let mut chain = Chain {
        sequence: loaded.header.sequence,
        checksum: loaded.header.record_checksum,
    };
    let total = records.len() as u64;
    let mut records: Vec<Record> = records
        .into_iter()
        .take_while(|record| chain.follows(record))
        .collect();
    if chain.sequence < synced {
        return Err(log_error(format!(
            "record {} is missing or damaged, and was synced: {synced} says so",
            chain.sequence + 1
        )));
    }
    let mut tail = Tail::default();
    let kept = tail.whole_records(shared, &records, synced)?;
    records.truncate(kept);
    report.records_replayed = kept as u64;
    report.tail_records_discarded = total - kept as u64;
    let taken = records.iter().filter(|record| record.sequence > synced);
    report.tail_records_taken = taken.count() as u64;
    let mut replayed = Replayed {
        sequence: loaded.header.sequence,
        checksum: loaded.header.record_checksum,
        tail: Vec::new(),
    };
    if let Some(last) = records.last() {
        replayed.sequence = last.sequence;
        replayed.checksum = last.checksum;
    }
    apply(shared, loaded, records)?;
    replayed.tail = tail.live(shared);
    Ok(replayed)
}

/// The end of a run of records, each of which names the one before.
struct Chain {
    sequence: u64,
    checksum: u32,
}

impl Chain {
    fn follows(&mut self, record: &Record) -> bool {
        let is_next = record.sequence == self.sequence + 1;
        if !is_next || record.previous_checksum != self.checksum {
            // mutant: slab-no-sequence-order
            return false;
        }
        self.sequence = record.sequence;
        self.checksum = record.checksum;
        true
    }
}

fn apply(shared: &Shared, loaded: &Loaded, records: Vec<Record>) -> Result<(), NvmeError> {
    let edits = records.into_iter().flat_map(|record| record.edits);
    for edit in loaded.edits.iter().cloned().chain(edits) {
        match edit {
            BlockEdit::Put(key, place) => {
                let is_there = shared.slots.get(place.segment_id).is_some();
                if !is_there || !shared.is_place(&place) {
                    return Err(log_error(format!("block {key} is where none can be")));
                }
                shared.table.insert(key, place);
            }
            BlockEdit::Remove(key) => {
                shared.table.remove(key);
            }
        }
    }
    shared.table.for_each(|key, place| {
        let id = SlotId {
            segment_id: place.segment_id,
            slot: place.slot,
        };
        if shared.slots.claim(id) {
            return Ok(());
        }
        Err(log_error(format!("block {key} is in another block's slot")))
    })
}

/// The blocks that were put behind the newest synced record, and are whole.
#[derive(Debug, Default)]
struct Tail {
    blocks: Vec<(BlockKey, BlockPlace)>,
}

impl Tail {
    /// How many of the records count.
    fn whole_records(
        &mut self,
        shared: &Shared,
        records: &[Record],
        synced: u64,
    ) -> Result<usize, NvmeError> {
        let first = records.partition_point(|record| record.sequence <= synced);
        let mut kept = first;
        let mut torn: BTreeSet<BlockKey> = BTreeSet::new();
        for (i, record) in records.iter().enumerate().skip(first) {
            let mut last: BTreeMap<BlockKey, Option<&BlockPlace>> = BTreeMap::new();
            for edit in &record.edits {
                match edit {
                    BlockEdit::Put(key, place) => last.insert(*key, Some(place)),
                    BlockEdit::Remove(key) => last.insert(*key, None),
                };
            }
            for (key, place) in last {
                torn.remove(&key);
                let Some(place) = place else { continue };
                let payload = shared.payload_at(place)?;
                if !is_payload(&payload, place) {
                    // mutant: slab-no-payload-check
                    torn.insert(key);
                    continue;
                }
                self.blocks.push((key, place.clone()));
            }
            if torn.is_empty() {
                kept = i + 1;
            }
        }
        Ok(kept)
    }

    /// Those that are live now.
    fn live(self, shared: &Shared) -> Vec<(BlockKey, BlockPlace)> {
        let is_live = |(key, place): &(BlockKey, BlockPlace)| {
            shared.table.with(*key, |live| live == place) == Some(true)
        };
        self.blocks.into_iter().filter(is_live).collect()
    }
}

/// Whether these are the bytes of the block.
pub(super) fn is_payload(pages: &[u8], place: &BlockPlace) -> bool {
    let payload = pages.get(..place.payload_bytes as usize);
    payload.is_some_and(|payload| crc32c(payload) == place.checksum)
}

impl Shared {
    /// The pages of a payload, whatever they hold; none where no block can be.
    pub(super) fn payload_at(&self, place: &BlockPlace) -> Result<BufferMut, NvmeError> {
        let segment = self.slots.get(place.segment_id);
        let file = segment.and_then(|segment| segment.file.clone());
        let Some(file) = file.filter(|_| self.is_place(place)) else {
            return Ok(BufferMut::from_vec(Vec::new()));
        };
        let len = (place.payload_bytes as usize).next_multiple_of(PAGE_BYTES);
        let offset_bytes = self.geometry.slot_offset_bytes(place.slot);
        Ok(file.read_blocking(offset_bytes, aligned_buffer(len)?)?)
    }
}
