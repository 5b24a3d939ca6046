//! Slots for new blocks.

use std::cell::Cell as ThreadCell;

use core_view::contract::SlotId;

use super::core::{Core, LANES};
use super::observer::{BlockEvent, EvictedBlock};
use super::shard::{Choice, Cursor};
use crate::Error;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// Slots taken from one shard before another is considered: a long request then ages all shards alike.
const CHUNK: usize = 64;

/// What has to be told once no lock is held.
#[derive(Default)]
struct Departures {
    evicted: Vec<EvictedBlock>,
    events: Vec<BlockEvent>,
}

/// A number for the calling thread, the same at each call.
fn lane() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static LANE: ThreadCell<usize> = const { ThreadCell::new(usize::MAX) });
    LANE.with(|lane| {
        if lane.get() == usize::MAX {
            lane.set(NEXT.fetch_add(1, Ordering::Relaxed) % LANES);
        }
        lane.get()
    })
}

impl Core {
    /// Hands out `count` slots or none.
    pub(super) fn allocate(&self, count: usize) -> Result<Vec<u32>, Error> {
        let available = self.shards.available();
        if count > available {
            return Err(self.exhausted(count, available));
        }
        let mut slots = Vec::with_capacity(count);
        let mut departures = Departures::default();
        self.fill(&mut slots, count, &mut departures);
        self.announce_evicted(&departures.evicted, &departures.events);
        if slots.len() < count {
            // Other threads were faster. What was evicted is gone, its slots are free.
            let taken = slots.len();
            self.give_back(&slots);
            return Err(self.exhausted(count, taken));
        }
        Ok(slots)
    }

    #[cold]
    fn exhausted(&self, requested: usize, available: usize) -> Error {
        Error::Exhausted {
            requested,
            available,
            capacity: self.capacity as usize,
        }
    }

    /// Takes slots where the pool is fullest of old blocks; fewer than `count` only if other threads take them too.
    fn fill(&self, slots: &mut Vec<u32>, count: usize, departures: &mut Departures) {
        let slack = u64::from(self.capacity) / (16 * self.shards.count() as u64);
        let lane = &self.lanes[lane()].0;
        let mut preferred = lane.load(Ordering::Relaxed) as usize;
        // Other threads may take what this one chose. After so many vain tries it is them, or a policy that keeps
        // what it says it could give.
        let mut tries = 4 * self.shards.count();
        while slots.len() < count && tries > 0 {
            let Some(choice) = self.shards.choose(preferred, slack) else {
                break;
            };
            let shard = choice.shard;
            preferred = shard;
            let wanted = (count - slots.len()).min(CHUNK);
            self.shards.claim(shard, wanted as u64);
            let before = slots.len();
            let mut cursor = self.shards.cursor();
            self.take(&mut cursor, choice, slots, wanted, departures);
            drop(cursor);
            let taken = slots.len() - before;
            tries = tries.saturating_sub(usize::from(taken == 0));
            self.shards.disclaim(shard, (wanted - taken) as u64);
        }
        lane.store(preferred as u32, Ordering::Relaxed);
    }

    /// Takes up to `wanted` slots from a shard: free ones, and if there are none anywhere, by eviction.
    fn take(
        &self,
        cursor: &mut Cursor<'_>,
        choice: Choice,
        slots: &mut Vec<u32>,
        wanted: usize,
        departures: &mut Departures,
    ) {
        let index = choice.shard;
        let shard = cursor.enter(index);
        for _ in 0..wanted {
            if let Some(local) = shard.take_free() {
                slots.push(self.shards.slot(index, local));
                continue;
            }
            if !choice.evicts {
                break;
            }
            let Some(local) = shard.take_evicted() else {
                break;
            };
            shard.counts.evicted += 1;
            let slot = self.shards.slot(index, local);
            if self.hook.is_some() || self.sink.is_some() {
                let sequence_hash = self.directory.identity(slot);
                self.note_removed(&mut departures.events, sequence_hash);
                if self.hook.is_some() {
                    departures.evicted.push(EvictedBlock {
                        slot: SlotId(slot),
                        sequence_hash,
                    });
                }
            }
            self.directory.remove(slot);
            slots.push(slot);
        }
    }

    /// Evicts all that nobody uses; tells how many blocks that were.
    pub(super) fn reset(&self) -> usize {
        let mut departures = Departures::default();
        let mut removed = 0;
        for index in 0..self.shards.count() {
            let mut cursor = self.shards.cursor();
            let shard = cursor.enter(index);
            while let Some(local) = shard.take_evicted() {
                let slot = self.shards.slot(index, local);
                self.note_removed(&mut departures.events, self.directory.identity(slot));
                self.directory.remove(slot);
                shard.put_free(local as usize);
                shard.counts.removed += 1;
                removed += 1;
            }
        }
        self.publish(&departures.events);
        removed
    }
}
