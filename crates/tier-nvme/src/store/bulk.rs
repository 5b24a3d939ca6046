//! Filling the index with what recovery found, on all processors.
//!
//! Each key is one thread's, which takes its changes in their order: the outcome does not depend on the
//! threads.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::thread;

use super::Shared;
use super::index::{Growth, SHARD_COUNT, Slot};
use crate::format::{BatchHeader, EntryKind, FormatError, IndexRecord};

/// Threads at most.
const LANES_MAX: usize = 8;
/// Keys for which another thread is worth starting.
const LANE_KEYS_MIN: usize = 32 << 10;
/// Changes that are handed out to the threads at once.
const ROUND_CHANGES: usize = 512 << 10;

fn lanes(keys: usize) -> usize {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    processors.min(LANES_MAX).min(keys / LANE_KEYS_MIN).max(1)
}

/// Does each piece of work on a thread of its own, the first on this one.
fn on_lanes<W: Send, T: Send>(work: Vec<W>, run: impl Fn(W) -> T + Sync) -> Vec<T> {
    let mut work = work.into_iter();
    let Some(first) = work.next() else {
        return Vec::new();
    };
    thread::scope(|scope| {
        let run = &run;
        let others: Vec<_> = work.map(|work| scope.spawn(move || run(work))).collect();
        let mut outcomes = vec![run(first)];
        for other in others {
            match other.join() {
                Ok(outcome) => outcomes.push(outcome),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        outcomes
    })
}

/// What recovery does with a key.
enum Change {
    Put(Slot),
    Delete,
    Move(EntryKind, Slot),
}

type Changes = Vec<(Box<[u8]>, Change)>;

impl Shared {
    /// Fills the index with the entries of a checkpoint.
    pub(super) fn fill_from_records(
        &self,
        records: &[u8],
        entry_count: u64,
    ) -> Result<(), FormatError> {
        let lane_count = lanes(usize::try_from(entry_count).unwrap_or(usize::MAX));
        let parts = IndexRecord::split(records, entry_count, lane_count as u64)?;
        let outcomes = on_lanes(parts, |(mut records, count)| {
            let mut growth = Growth::default();
            for _ in 0..count {
                let record = IndexRecord::decode(&mut records)?;
                let slot = Slot {
                    segment_id: record.segment_id,
                    offset_bytes: record.offset_bytes,
                    stored_bytes: record.stored_bytes,
                    raw_bytes: record.raw_bytes,
                    sequence: record.sequence,
                    checksum: record.checksum,
                    encoding: record.encoding,
                };
                self.index.fill(record.key.into(), slot, &mut growth);
            }
            Ok(growth)
        });
        for growth in outcomes {
            self.index.grow(growth?);
        }
        Ok(())
    }

    /// Changes the index as batches say, one after the other.
    pub(super) fn fill_from_batches(&self, headers: impl Iterator<Item = BatchHeader>) {
        let mut waiting = Vec::new();
        let mut changes = 0;
        for header in headers {
            changes += header.entries.len();
            waiting.push(header);
            if changes >= ROUND_CHANGES {
                self.fill_round(std::mem::take(&mut waiting), changes);
                changes = 0;
            }
        }
        self.fill_round(waiting, changes);
    }

    fn fill_round(&self, headers: Vec<BatchHeader>, changes: usize) {
        let lane_count = lanes(changes);
        let mut work: Vec<Changes> = (0..lane_count)
            .map(|_| Vec::with_capacity(changes / lane_count))
            .collect();
        for header in headers {
            let payload_at = header.place.offset_bytes + u64::from(header.header_bytes);
            for entry in header.entries {
                let slot = Slot {
                    segment_id: header.place.segment_id,
                    offset_bytes: payload_at + entry.value_offset_bytes,
                    stored_bytes: entry.stored_bytes,
                    raw_bytes: entry.raw_bytes,
                    sequence: header.sequence,
                    checksum: entry.checksum,
                    encoding: entry.encoding,
                };
                let change = match entry.kind {
                    EntryKind::Put => Change::Put(slot),
                    EntryKind::Delete => Change::Delete,
                    kind @ EntryKind::Move { .. } => Change::Move(kind, slot),
                };
                let lane = self.index.shard_of(&entry.key) % lane_count;
                if let Some(lane) = work.get_mut(lane) {
                    lane.push((entry.key, change));
                }
            }
        }
        let outcomes = on_lanes(work, |changes| {
            let mut growth = Growth::default();
            for (key, change) in changes {
                match change {
                    Change::Put(slot) => self.index.fill(key, slot, &mut growth),
                    Change::Delete => drop(self.index.remove(&key)),
                    Change::Move(EntryKind::Move { from }, slot) => {
                        self.index.replace(&key, from, slot);
                    }
                    Change::Move(..) => {}
                }
            }
            growth
        });
        outcomes
            .into_iter()
            .for_each(|growth| self.index.grow(growth));
    }

    /// Counts what lives in each segment anew, from the index.
    pub(super) fn count_live(&self) {
        let lane_count = lanes(usize::try_from(self.index.len()).unwrap_or(usize::MAX));
        let tallies = on_lanes((0..lane_count).collect(), |lane| {
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
