//! Slots for new blocks.

use std::cell::Cell as ThreadCell;

use core_view::contract::SlotId;

use super::core::Core;
use super::observer::{BlockEvent, EvictedBlock};
use super::shard::{Choice, Shard};
use crate::Error;
use crate::policy::EvictionPolicy;
use crate::sync::atomic::{AtomicU32, Ordering};

/// Slots taken from one shard before another is considered: a long request then ages all shards alike.
const CHUNK: usize = 64;

/// Allocations of a thread from one look at a shard from which nothing may have been taken to the next.
const CALLS_BETWEEN_LOOKS: u32 = 4;

thread_local!(static CALLS: ThreadCell<u32> = const { ThreadCell::new(0) });

/// What has to be told once no lock is held.
#[derive(Default)]
struct Departures {
    evicted: Vec<EvictedBlock>,
    events: Vec<BlockEvent>,
}

/// A number for the calling thread, the same at each call.
fn lane() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    thread_local!(static LANE: ThreadCell<u32> = const { ThreadCell::new(u32::MAX) });
    LANE.with(|lane| {
        if lane.get() == u32::MAX {
            lane.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        lane.get()
    })
}

impl Core {
    /// Hands out `count` slots or none.
    pub(super) fn allocate(&self, count: usize) -> Result<Vec<u32>, Error> {
        self.end_leases();
        let mut slots = Vec::with_capacity(count.min(self.capacity as usize));
        let mut departures = Departures::default();
        if count <= self.shards.available() {
            self.fill(&mut slots, count, &mut departures);
        }
        let mut outcome = Ok(());
        if slots.len() < count {
            outcome = self.fill_exactly(&mut slots, count, &mut departures);
        }
        if let Some(study) = &self.study {
            study.study();
        }
        self.announce_evicted(&departures.evicted, &departures.events);
        match outcome {
            Ok(()) => Ok(slots),
            Err(error) => {
                self.give_back(&slots);
                Err(error)
            }
        }
    }

    /// Now and then lets a shard that nobody has locked look anew at what its victims are worth, one shard after the other: one from which
    /// nothing is taken would not notice that its blocks grow old.
    fn look_around(&self) {
        let call = CALLS.with(|calls| calls.replace(calls.get().wrapping_add(1)));
        if !call.is_multiple_of(CALLS_BETWEEN_LOOKS) {
            return;
        }
        let shard = (call / CALLS_BETWEEN_LOOKS) as usize % self.shards.count();
        if let Some(mut cursor) = self.shards.try_cursor(shard) {
            let requests = self.clock.0.requests.load(Ordering::Relaxed);
            let policy = &mut cursor.enter(shard).policy;
            policy.advance(requests.saturating_sub(1));
        }
    }

    /// Takes slots where the pool is fullest of old blocks; fewer than `count` if other threads take them too.
    fn fill(&self, slots: &mut Vec<u32>, count: usize, departures: &mut Departures) {
        let lane = lane();
        let now = if self.shards.know_worth() {
            self.look_around();
            0
        } else {
            self.clock.0.requests.load(Ordering::Relaxed) as u32
        };
        let mut vain_tries = 0;
        while slots.len() < count && vain_tries <= self.shards.count() {
            let Some((choice, mut cursor)) = self.shards.choose(lane, now) else {
                return;
            };
            let wanted = (count - slots.len()).min(CHUNK);
            let before = slots.len();
            let shard = cursor.enter(choice.shard);
            self.take(shard, choice, now, slots, wanted, departures);
            vain_tries += usize::from(slots.len() == before);
        }
    }

    /// Takes the slots that are missing with all shards locked, or tells that there are too few.
    #[cold]
    fn fill_exactly(
        &self,
        slots: &mut Vec<u32>,
        count: usize,
        departures: &mut Departures,
    ) -> Result<(), Error> {
        let mut cursors = self.shards.lock_all();
        let mut available = slots.len();
        for (shard, cursor) in cursors.iter_mut().enumerate() {
            available += cursor.enter(shard).available();
        }
        if available < count {
            return Err(self.exhausted(count, available));
        }
        for evicts in [false, true] {
            for (shard, cursor) in cursors.iter_mut().enumerate() {
                let wanted = count - slots.len();
                let choice = Choice {
                    shard,
                    evicts,
                    worth_max: f32::INFINITY,
                };
                self.take(cursor.enter(shard), choice, 0, slots, wanted, departures);
            }
        }
        if slots.len() < count {
            // Only a policy that doesn't give up what it counts as evictable comes here.
            return Err(self.exhausted(count, slots.len()));
        }
        Ok(())
    }

    #[cold]
    fn exhausted(&self, requested: usize, available: usize) -> Error {
        Error::Exhausted {
            requested,
            available,
            capacity: self.capacity as usize,
        }
    }

    /// Takes up to `wanted` slots from a shard, and one if it has any: free ones, and if there are none anywhere, by
    /// eviction, as long as that is right there at the request `now`.
    fn take(
        &self,
        shard: &mut Shard,
        choice: Choice,
        now: u32,
        slots: &mut Vec<u32>,
        wanted: usize,
        departures: &mut Departures,
    ) {
        for taken in 0..wanted {
            if let Some(local) = shard.take_free() {
                slots.push(self.shards.slot(choice.shard, local));
                continue;
            }
            let too_dear = || shard.outlook().worth(now) > choice.worth_max;
            if !choice.evicts || taken > 0 && too_dear() {
                break;
            }
            let Some(local) = shard.take_evicted() else {
                break;
            };
            shard.counts.evicted += 1;
            let slot = self.shards.slot(choice.shard, local);
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
