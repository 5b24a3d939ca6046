//! Filling the index with what recovery found, on all processors.
//!
//! Each key is one thread's, which takes its changes in their order: the outcome does not depend on the
//! threads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::Shared;
use super::index::{Index, SHARD_COUNT, Slot};
use crate::format::{BatchFields, BatchPlace, EntryKind, EntryRef, FormatError, IndexRecord};
use crate::threads;

/// What the threads are called.
pub(super) const THREAD_NAME: &str = "stepwell-index";
/// Threads at most.
pub(super) const LANES_MAX: usize = 8;
/// Keys for which another thread is worth starting.
const LANE_KEYS_MIN: usize = 32 << 10;
/// Changes that are handed out to the threads at once: enough that a shard, once it is in the caches, gets many.
const ROUND_CHANGES: usize = 128 << 10;

pub(super) fn lanes(keys: usize) -> usize {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    processors.min(LANES_MAX).min(keys / LANE_KEYS_MIN).max(1)
}

/// Does the work of each lane, on this thread and on as many others as there are lanes left and the system starts. The
/// outcomes are in no order.
fn on_lanes<T: Send>(lane_count: usize, run: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let take_lanes = || {
        std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed))
            .take_while(|lane| *lane < lane_count)
            .map(&run)
            .collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..lane_count)
            .map_while(|_| threads::start(scope, THREAD_NAME, take_lanes).ok())
            .collect();
        let mut outcomes = take_lanes();
        for other in others {
            match other.join() {
                Ok(more) => outcomes.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        outcomes
    })
}

/// Keys in the index, or on their way into it, and the bytes of their records in a checkpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KeyGrowth {
    pub(super) keys: u64,
    pub(super) record_bytes: u64,
}

impl KeyGrowth {
    pub(super) fn of_index(index: &Index) -> Self {
        Self {
            keys: index.len(),
            record_bytes: index.record_bytes(),
        }
    }

    fn count(&mut self, key: &[u8]) {
        self.keys += 1;
        self.record_bytes += IndexRecord::encoded_bytes(key.len());
    }
}

impl std::ops::Add for KeyGrowth {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            keys: self.keys.saturating_add(other.keys),
            record_bytes: self.record_bytes.saturating_add(other.record_bytes),
        }
    }
}

/// The header of a batch as it was read, and where each key's change is in it.
pub(super) struct Headed {
    pub(super) fields: BatchFields,
    bytes: Box<[u8]>,
    /// Shard of the key, and offset in `bytes`.
    changes: Vec<(u8, u32)>,
    /// Of the keys that it puts.
    growth: KeyGrowth,
}

/// Bytes of memory for each change of a batch, beside its header, until it is in the index: in the batch and in a round.
const CHANGE_BYTES: usize = size_of::<(u8, u32)>() + size_of::<(u32, u32)>();

impl Headed {
    /// The header that `bytes` are, if it is right and belongs at `place`.
    pub(super) fn decode(
        bytes: Box<[u8]>,
        place: &BatchPlace,
        index: &Index,
    ) -> Result<Self, FormatError> {
        let (fields, header) = BatchFields::open(&bytes, place)?;
        let mut changes = Vec::with_capacity(fields.entry_count as usize);
        let mut growth = KeyGrowth::default();
        for entry in fields.entries(header) {
            let (at, entry) = entry?;
            if entry.kind == EntryKind::Put {
                growth.count(entry.key);
            }
            changes.push((index.shard_of(entry.key) as u8, at as u32));
        }
        Ok(Self {
            fields,
            bytes,
            changes,
            growth,
        })
    }

    /// Bytes of memory that it takes until it is in the index.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.len() + CHANGE_BYTES * self.changes.len()
    }

    /// What it adds to an index that has none of its keys.
    pub(super) fn growth(&self) -> KeyGrowth {
        self.growth
    }

    /// What it adds to this index, or more.
    pub(super) fn growth_of(&self, index: &Index) -> KeyGrowth {
        let mut growth = KeyGrowth::default();
        for entry in self.entries() {
            if entry.kind == EntryKind::Put && index.get(entry.key).is_none() {
                growth.count(entry.key);
            }
        }
        growth
    }

    /// The entries; they were decoded before.
    pub(super) fn entries(&self) -> impl Iterator<Item = EntryRef<'_>> {
        let entries = self.fields.entries(&self.bytes);
        entries.filter_map(|entry| Some(entry.ok()?.1))
    }

    fn change_at(&self, at: u32) -> Option<(EntryRef<'_>, Slot)> {
        let fields = &self.fields;
        let entry = fields.entry_at(&self.bytes, at as usize).ok()?;
        let payload_at = fields.place.offset_bytes + u64::from(fields.header_bytes);
        let slot = Slot {
            segment_id: fields.place.segment_id,
            offset_bytes: payload_at + entry.value_offset_bytes,
            stored_bytes: entry.stored_bytes,
            raw_bytes: entry.raw_bytes,
            sequence: fields.sequence,
            checksum: entry.checksum,
            encoding: entry.encoding,
        };
        Some((entry, slot))
    }
}

/// Batches that change the index together.
#[derive(Default)]
pub(super) struct Round {
    batches: Vec<Headed>,
    changes: usize,
    memory_bytes: usize,
}

impl Round {
    pub(super) fn push(&mut self, batch: Headed) {
        self.memory_bytes += batch.memory_bytes();
        self.changes += batch.changes.len();
        self.batches.push(batch);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether there are enough for all processors, or as many as may be in memory.
    pub(super) fn is_full(&self, memory_bytes_max: usize) -> bool {
        self.changes >= ROUND_CHANGES
            || self.batches.len() >= ROUND_CHANGES / SHARD_COUNT
            || self.memory_bytes >= memory_bytes_max
    }

    /// Where each change is, one shard's after the other's, and where each shard's begin. One shard's follow one
    /// another as the batches do.
    fn by_shard(&self) -> (Vec<(u32, u32)>, Vec<usize>) {
        let mut starts = vec![0; SHARD_COUNT + 1];
        for (shard, _) in self.batches.iter().flat_map(|batch| &batch.changes) {
            starts[usize::from(*shard) + 1] += 1;
        }
        for shard in 0..SHARD_COUNT {
            starts[shard + 1] += starts[shard];
        }
        let mut ends = starts.clone();
        let mut places = vec![(0, 0); self.changes];
        for (number, batch) in self.batches.iter().enumerate() {
            for &(shard, at) in &batch.changes {
                let end = &mut ends[usize::from(shard)];
                places[*end] = (number as u32, at);
                *end += 1;
            }
        }
        (places, starts)
    }
}

/// A round that is sorted.
pub(super) struct Sorted {
    batches: Vec<Headed>,
    /// Batch and offset in its header of each change, one shard's after the other's.
    places: Vec<(u32, u32)>,
    /// Where each shard's begin.
    starts: Vec<usize>,
}

impl From<Round> for Sorted {
    fn from(round: Round) -> Self {
        let (places, starts) = round.by_shard();
        Self {
            batches: round.batches,
            places,
            starts,
        }
    }
}

impl Shared {
    /// Changes the shards of one of `lane_count` lanes as batches say, one after the other.
    pub(super) fn fill_lane(&self, round: &Sorted, lane: usize, lane_count: usize) {
        for shard in (lane..SHARD_COUNT).step_by(lane_count) {
            let places = &round.places[round.starts[shard]..round.starts[shard + 1]];
            let mut filling = self.index.filling(shard);
            for &(number, at) in places {
                let batch = &round.batches[number as usize];
                let Some((entry, slot)) = batch.change_at(at) else {
                    continue;
                };
                match entry.kind {
                    EntryKind::Put => {
                        filling.put(entry.key, slot);
                    }
                    EntryKind::Delete => filling.delete(entry.key),
                    EntryKind::Move { from } => filling.replace(entry.key, from, slot),
                }
            }
            self.index.grow(filling.end());
        }
    }

    /// Counts what lives in each segment anew, from the index.
    pub(super) fn count_live(&self) {
        let lane_count = lanes(usize::try_from(self.index.len()).unwrap_or(usize::MAX));
        let tallies = on_lanes(lane_count, |lane| {
            let mut tally: HashMap<u64, Live> = HashMap::new();
            let mut current = (0, Live::default());
            for shard in (lane..SHARD_COUNT).step_by(lane_count) {
                self.index.for_each_in(shard, |key, slot| {
                    if current.0 != slot.segment_id {
                        let (id, live) = std::mem::take(&mut current);
                        tally.entry(id).or_default().add(&live);
                        current.0 = slot.segment_id;
                    }
                    current.1.add(&Live::of(slot, key.len()));
                });
            }
            tally.entry(current.0).or_default().add(&current.1);
            tally
        });
        let mut sums: HashMap<u64, Live> = HashMap::new();
        for (id, live) in tallies.into_iter().flatten() {
            sums.entry(id).or_default().add(&live);
        }
        let mut log_bytes = 0;
        for segment in self.segments.all() {
            let live = sums.remove(&segment.id).unwrap_or_default();
            segment.live_values.store(live.values, Ordering::Relaxed);
            segment.live_bytes.store(live.bytes, Ordering::Relaxed);
            segment
                .live_raw_bytes
                .store(live.raw_bytes, Ordering::Relaxed);
            segment
                .live_log_bytes
                .store(live.log_bytes, Ordering::Relaxed);
            log_bytes += live.log_bytes;
        }
        self.segments.set_live_log_bytes(log_bytes);
    }
}

/// What lives in a segment.
#[derive(Debug, Clone, Copy, Default)]
struct Live {
    values: u64,
    bytes: u64,
    raw_bytes: u64,
    log_bytes: u64,
}

impl Live {
    fn of(slot: &Slot, key_bytes: usize) -> Self {
        Self {
            values: 1,
            bytes: slot.stored_bytes,
            raw_bytes: slot.raw_bytes,
            log_bytes: slot.log_bytes(key_bytes),
        }
    }

    fn add(&mut self, other: &Self) {
        self.values += other.values;
        self.bytes += other.bytes;
        self.raw_bytes += other.raw_bytes;
        self.log_bytes += other.log_bytes;
    }
}
