//! Slots for new blocks.

use core_view::contract::SlotId;

use super::choice::Choice;
use super::core::Core;
use super::cursor::Cursor;
use super::directory::Directory;
use super::lane::lane;
use super::observer::{BlockEvent, EvictedBlock};
use super::shard::Shard;
use crate::Error;
use crate::policy::EvictionPolicy;
use crate::sync::atomic::Ordering;
use crate::sync::contained;

/// Slots taken from one shard before another is considered: a long request then ages all shards alike.
const CHUNK: usize = 64;

/// Allocations of a thread in a pool from one look at a shard from which nothing may have been taken to the next.
const CALLS_BETWEEN_LOOKS: u32 = 4;

/// Rounds of looks at one's own shards from one at all to the next.
const ROUNDS_BETWEEN_VISITS: usize = 16;

/// How often in a row it is tried, with all shards locked, to take slots that somebody had just let go, and to find them in use again.
const VAIN_ROUNDS_MAX: usize = 64;

/// Allocations of a thread in a pool from one that may take what is worth less in another thread's shards to the next.
const CALLS_BETWEEN_VISITS: u32 = 32;

/// What has to be told once no lock is held, also if a policy panics before.
pub(super) struct Departures<'a> {
    core: &'a Core,
    evicted: Vec<EvictedBlock>,
    pub(super) events: Vec<BlockEvent>,
}

impl<'a> Departures<'a> {
    pub(super) fn new(core: &'a Core) -> Self {
        Self {
            core,
            evicted: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Tells what left, before the slots are used again.
    pub(super) fn tell(&mut self) {
        let evicted = std::mem::take(&mut self.evicted);
        if let Some(hook) = &self.core.hook
            && !evicted.is_empty()
        {
            hook.evicted(&evicted);
        }
        let events = std::mem::take(&mut self.events);
        self.core.publish(&events);
    }
}

impl Drop for Departures<'_> {
    fn drop(&mut self) {
        contained(|| self.tell());
    }
}

/// Slots that go back unless they are handed out, also if a policy panics, or who is told of what left.
struct TakenSlots<'a> {
    core: &'a Core,
    slots: Vec<u32>,
}

impl Drop for TakenSlots<'_> {
    fn drop(&mut self) {
        self.core.give_back(&self.slots); // mutant: kv-pool-no-give-back
    }
}

/// Slots taken in a shard that stays locked; the index still has the blocks of some. They leave it all at once, without a locked instruction in
/// between: others have read these places, and each takes a while to be ours.
struct Leaving<'a> {
    directory: &'a Directory,
    slots: &'a mut Vec<u32>,
    /// Those from here on had blocks.
    first_evicted: usize,
}

impl Leaving<'_> {
    /// Adds a slot whose block has to leave.
    #[inline]
    fn push_evicted(&mut self, slot: u32) {
        self.first_evicted = self.first_evicted.min(self.slots.len());
        self.slots.push(slot);
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        for &slot in self.slots.iter().skip(self.first_evicted) {
            self.directory.remove(slot);
        }
    }
}

impl Core {
    /// Hands out `count` slots or none.
    pub(super) fn allocate(&self, count: usize) -> Result<Vec<u32>, Error> {
        self.end_leases();
        let mut taken = TakenSlots {
            core: self,
            slots: Vec::with_capacity(count.min(self.capacity as usize)),
        };
        let slots = &mut taken.slots;
        let mut departures = Departures::new(self);
        let lane = lane();
        self.shards.catch_up_own(lane);
        if self.shards.has_at_once(lane, count) || count <= self.available() {
            self.fill(lane, slots, count, &mut departures);
        }
        let mut outcome = Ok(());
        if slots.len() < count {
            outcome = self.fill_exactly(slots, count, &mut departures);
        }
        if let Some(study) = &self.study {
            study.study();
        }
        departures.tell();
        outcome?;
        Ok(std::mem::take(&mut taken.slots))
    }

    /// Now and then lets a shard that nobody has locked look anew at what its victims are worth, one shard after the other: one from which
    /// nothing is taken would not notice that its blocks grow old. Where another lane evicts it is mostly that lane that looks.
    fn look_around(&self, lane: u32, call: u32) {
        if !call.is_multiple_of(CALLS_BETWEEN_LOOKS) {
            return;
        }
        let look = (call / CALLS_BETWEEN_LOOKS) as usize;
        let shard = look % self.shards.count();
        let round = look / self.shards.count();
        if !self.shards.is_of_lane(shard, lane) && !round.is_multiple_of(ROUNDS_BETWEEN_VISITS) {
            return;
        }
        if let Some(mut cursor) = self.shards.try_cursor(shard) {
            let requests = self.clock.0.requests.load(Ordering::Relaxed);
            let policy = &mut cursor.enter(shard).policy;
            policy.advance(requests.saturating_sub(1));
        }
    }

    /// Takes slots where the pool is fullest of old blocks; fewer than `count` if other threads take them too.
    fn fill(&self, lane: u32, slots: &mut Vec<u32>, count: usize, departures: &mut Departures<'_>) {
        let call = self.lanes.own().count_allocation();
        let visits = call.is_multiple_of(CALLS_BETWEEN_VISITS);
        let now = if self.shards.know_worth() {
            self.look_around(lane, call);
            0
        } else {
            self.clock.0.requests.load(Ordering::Relaxed) as u32
        };
        let mut vain_tries = 0;
        while slots.len() < count && vain_tries <= self.shards.count() {
            let Some((choice, mut cursor)) = self.shards.choose(lane, now, visits) else {
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
        departures: &mut Departures<'_>,
    ) -> Result<(), Error> {
        let mut cursors = self.shards.lock_all();
        let mut available = slots.len();
        for (shard, cursor) in cursors.iter_mut().enumerate() {
            available += cursor.enter(shard).free_or_registered();
        }
        available = available.saturating_sub(self.lanes.in_use_at_once());
        if available < count {
            // A block that lost its last user, and got another before that was counted, was counted twice: to refuse, they are looked at.
            let idle = |(shard, cursor): (usize, &mut Cursor<'_>)| cursor.enter(shard).look_idle();
            available = slots.len() + cursors.iter_mut().enumerate().map(idle).sum::<usize>();
        }
        if available < count {
            // mutant: kv-pool-no-all-or-nothing
            return Err(self.exhausted(count, available));
        }
        let mut vain_rounds = 0;
        loop {
            let before = slots.len();
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
            if slots.len() == count {
                return Ok(());
            }
            // Nothing was left to take. If nothing came back since it was looked for in the first shard, that was so in all shards at one time.
            let mut came_back = false;
            for (shard, cursor) in cursors.iter_mut().enumerate() {
                came_back |= cursor.catch_up();
                // Some may have been let go and not been noted yet.
                came_back |= cursor.enter(shard).tell_idle();
            }
            match slots.len() == before {
                true => vain_rounds += 1,
                false => vain_rounds = 0,
            }
            if !came_back || vain_rounds == VAIN_ROUNDS_MAX {
                return Err(self.exhausted(count, slots.len()));
            }
        }
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
        departures: &mut Departures<'_>,
    ) {
        let mut leaving = Leaving {
            directory: &self.directory,
            slots,
            first_evicted: usize::MAX,
        };
        for taken in 0..wanted {
            if let Some(local) = shard.take_free() {
                leaving.slots.push(self.shards.slot(choice.shard, local));
                continue;
            }
            let too_dear = || shard.outlook().worth(now) > choice.worth_max;
            if !choice.evicts || taken > 0 && too_dear() {
                break;
            }
            let newest = |hash| self.unasked(hash, 1);
            let Some(local) = shard.take_evicted(newest) else {
                break;
            };
            shard.counts.evicted += 1;
            let slot = self.shards.slot(choice.shard, local);
            if self.hook.is_some() || self.sink.is_some() {
                let sequence_hash = self.directory.cell(slot).identity();
                self.note_removed(&mut departures.events, sequence_hash);
                if self.hook.is_some() {
                    departures.evicted.push(EvictedBlock {
                        slot: SlotId(slot),
                        sequence_hash,
                    });
                }
            }
            leaving.push_evicted(slot);
        }
    }

    /// Evicts all that nobody uses; tells how many blocks that were.
    pub(super) fn reset(&self) -> usize {
        let mut departures = Departures::new(self);
        let mut removed = 0;
        for index in 0..self.shards.count() {
            let mut cursor = self.shards.cursor();
            let shard = cursor.enter(index);
            while let Some(local) = shard.take_evicted(|hash| self.unasked(hash, 1)) {
                let slot = self.shards.slot(index, local);
                let identity = self.directory.cell(slot).identity();
                self.note_removed(&mut departures.events, identity);
                self.directory.remove(slot);
                shard.put_free(local);
                shard.counts.removed += 1;
                removed += 1;
            }
        }
        departures.tell();
        removed
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::panic::resume_unwind;

    use super::super::BlockPool;
    use super::*;
    use crate::{ImmutableBlocks, MutableBlocks, SequenceHash};

    fn hash(number: u64) -> SequenceHash {
        SequenceHash::new(u128::from(number + 1) << 64 | 9, 0)
    }

    fn pool_of_two(shards: usize) -> Result<BlockPool, Error> {
        let builder = BlockPool::builder().capacity_blocks(2);
        builder.shards(shards).build()
    }

    fn registered(pool: &BlockPool, number: u64) -> Result<ImmutableBlocks, Error> {
        let fresh = pool.allocate_blocks(1)?;
        let complete = fresh.complete(&[hash(number)])?;
        Ok(pool.register_blocks(complete)?)
    }

    /// What a thread does first that lets a block go: it has neither counted nor noted that.
    fn begin_to_let_go(pool: &BlockPool, blocks: ImmutableBlocks) {
        for slot in blocks.into_slots() {
            assert_eq!(pool.core.directory.cell(slot).release().users, 1);
        }
    }

    /// Blocks for another thread, which has no shards of its own: it asks all of them.
    fn allocated_elsewhere(pool: &BlockPool, count: usize) -> Result<MutableBlocks, Error> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| pool.allocate_blocks(count));
            thread
                .join()
                .unwrap_or_else(|payload| resume_unwind(payload))
        })
    }

    #[test]
    fn a_block_that_is_taken_up_while_it_is_let_go_counts_once() -> Result<(), Error> {
        for shards in [1, 2] {
            let pool = pool_of_two(shards)?;
            let used = registered(&pool, 0)?;
            drop(registered(&pool, 1)?);
            begin_to_let_go(&pool, used);
            let used = pool.match_sequence_hashes(&[hash(0)]);
            assert_eq!(used.len(), 1);
            // The other one was nobody's all the time.
            let fresh = allocated_elsewhere(&pool, 1)?;
            assert!(allocated_elsewhere(&pool, 1).is_err());
            drop((fresh, used));
        }
        Ok(())
    }

    #[test]
    fn a_block_that_was_let_go_is_found_before_that_is_noted() -> Result<(), Error> {
        for shards in [1, 2] {
            let pool = pool_of_two(shards)?;
            let kept = registered(&pool, 0)?;
            begin_to_let_go(&pool, registered(&pool, 1)?);
            pool.core.lanes.own().count_released(1);
            let fresh = allocated_elsewhere(&pool, 1)?;
            assert!(allocated_elsewhere(&pool, 1).is_err());
            drop((fresh, kept));
        }
        Ok(())
    }
}
