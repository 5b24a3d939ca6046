//! A share of a pool's slots.

use super::directory::NONE;
use crate::policy::{EvictionPolicy, Policy, Slot};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, Padded, lock};

/// What a slot is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// In the free list.
    Free,
    /// In the hands of whoever allocated it, not registered.
    Taken,
    /// Has the block that the directory names; kept after its last user, until it is evicted.
    Registered,
    /// Has a block that another slot has too; goes with its last user.
    Duplicate,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) state: State,
    /// Handles to the block.
    pub(super) users: u32,
    /// Counts the blocks that the slot has had.
    pub(super) generation: u32,
    /// Where the block that followed this one last was, in any shard; a guess.
    pub(super) next: u32,
}

/// What happened in a shard since it was made.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) hits: u64,
    pub(super) registered: u64,
    pub(super) duplicates: u64,
    pub(super) evicted: u64,
    pub(super) removed: u64,
}

/// Slots with a policy of their own, under one lock.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) cells: Vec<Cell>,
    /// Numbers within the shard.
    pub(super) free: Vec<u32>,
    pub(super) policy: Policy,
    pub(super) counts: Counts,
}

impl Shard {
    fn new(slots: u32, policy: Policy) -> Self {
        let cell = Cell {
            state: State::Free,
            users: 0,
            generation: 0,
            next: NONE,
        };
        Self {
            cells: vec![cell; slots as usize],
            free: (0..slots).rev().collect(),
            policy,
            counts: Counts::default(),
        }
    }

    /// Slots that could be handed out now.
    fn idle(&self) -> Idle {
        Idle {
            free: self.free.len() as u32,
            cached: self.policy.evictable_slots(),
        }
    }

    /// Puts a slot without users into the free list.
    #[inline]
    pub(super) fn put_free(&mut self, local: usize) {
        let cell = &mut self.cells[local];
        cell.state = State::Free;
        cell.generation = cell.generation.wrapping_add(1);
        self.free.push(local as u32);
    }

    /// Takes a slot out of the free list.
    #[inline]
    pub(super) fn take_free(&mut self) -> Option<u32> {
        let local = self.free.pop()?;
        self.cells[local as usize].state = State::Taken;
        Some(local)
    }

    /// Takes a slot from a block that the policy gives up. The directory still has the block.
    #[inline]
    pub(super) fn take_evicted(&mut self) -> Option<u32> {
        let local = self.policy.evict()?;
        let cell = &mut self.cells[local.index()];
        debug_assert_eq!((cell.state, cell.users), (State::Registered, 0));
        cell.state = State::Taken;
        cell.generation = cell.generation.wrapping_add(1);
        Some(local.get())
    }

    /// Adds a user to a registered block.
    #[inline]
    pub(super) fn add_user(&mut self, local: usize) {
        let cell = &mut self.cells[local];
        if cell.users == 0 {
            self.policy.pin(Slot::new(local as u32));
        }
        cell.users += 1;
    }
}

/// Slots of a shard that nobody uses.
#[derive(Debug, Clone, Copy)]
struct Idle {
    free: u32,
    cached: u32,
}

impl Idle {
    fn packed(self) -> u64 {
        u64::from(self.free) << 32 | u64::from(self.cached)
    }

    fn unpacked(packed: u64) -> Self {
        Self {
            free: (packed >> 32) as u32,
            cached: packed as u32,
        }
    }
}

/// Where slots are to be taken from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) shard: usize,
    /// Whether no shard seems to have a free slot, so that blocks must leave.
    pub(super) evicts: bool,
}

/// A shard with what others may read of it without its lock.
#[derive(Debug)]
struct Place {
    shard: Mutex<Shard>,
    /// [`Idle`] when the lock was last given up.
    idle: AtomicU64,
    /// Slots handed out since the pool was made, which the pool keeps even over the shards: then a block that nobody
    /// uses grows equally old in each.
    handed_out: AtomicU64,
}

/// All shards of a pool. A slot belongs to the shard that its lowest bits name.
#[derive(Debug)]
pub(super) struct Shards {
    places: Box<[Padded<Place>]>,
    bits: u32,
}

impl Shards {
    /// `slots` slots in `1 << bits` shards, each with what `policy` makes for a number of slots.
    pub(super) fn new(slots: u32, bits: u32, policy: impl Fn(u32) -> Policy) -> Self {
        let count = 1 << bits;
        let place = |shard: u32| {
            let slots = (slots - shard).div_ceil(count);
            Padded(Place {
                idle: AtomicU64::new(
                    Idle {
                        free: slots,
                        cached: 0,
                    }
                    .packed(),
                ),
                shard: Mutex::new(Shard::new(slots, policy(slots))),
                handed_out: AtomicU64::new(0),
            })
        };
        Self {
            places: (0..count).map(place).collect(),
            bits,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// The slot of a shard's own number.
    #[inline]
    pub(super) fn slot(&self, shard: usize, local: u32) -> u32 {
        local << self.bits | shard as u32
    }

    #[inline]
    fn shard_of(&self, slot: u32) -> usize {
        slot as usize & (self.places.len() - 1)
    }

    /// Slots of all shards that could be handed out; exact while no other thread uses the pool.
    pub(super) fn available(&self) -> usize {
        let available = |Padded(place): &Padded<Place>| {
            let idle = Idle::unpacked(place.idle.load(Ordering::Relaxed));
            idle.free as usize + idle.cached as usize
        };
        self.places.iter().map(available).sum()
    }

    /// Where a thread should take slots from: the shard it took from last, `preferred`, unless that is `slack` slots
    /// ahead of the one with the fewest handed out. Shards with free slots come first. `None` if no shard seems to
    /// have a slot.
    pub(super) fn choose(&self, preferred: usize, slack: u64) -> Option<Choice> {
        let mut free = Candidates::default();
        let mut cached = Candidates::default();
        for (shard, Padded(place)) in self.places.iter().enumerate() {
            let idle = Idle::unpacked(place.idle.load(Ordering::Relaxed));
            let out = place.handed_out.load(Ordering::Relaxed);
            if idle.free > 0 {
                free.add(shard, out, preferred);
            }
            if idle.cached > 0 {
                cached.add(shard, out, preferred);
            }
        }
        let choice = |evicts| move |shard| Choice { shard, evicts };
        free.choose(preferred, slack)
            .map(choice(false))
            .or_else(|| cached.choose(preferred, slack).map(choice(true)))
    }

    /// States that a shard hands out slots, before its lock is taken, so that others choose another.
    pub(super) fn claim(&self, shard: usize, slots: u64) {
        self.places[shard]
            .0
            .handed_out
            .fetch_add(slots, Ordering::Relaxed);
    }

    /// Takes back part of a claim.
    pub(super) fn disclaim(&self, shard: usize, slots: u64) {
        if slots > 0 {
            self.places[shard]
                .0
                .handed_out
                .fetch_sub(slots, Ordering::Relaxed);
        }
    }

    /// A cursor that holds no lock yet.
    pub(super) fn cursor(&self) -> Cursor<'_> {
        Cursor {
            shards: self,
            held: None,
        }
    }
}

/// The best of the shards seen so far.
#[derive(Default)]
struct Candidates {
    /// The fewest slots handed out, and by which.
    least: Option<(u64, usize)>,
    /// The slots that the preferred shard handed out.
    preferred_out: Option<u64>,
}

impl Candidates {
    fn add(&mut self, shard: usize, out: u64, preferred: usize) {
        if shard == preferred {
            self.preferred_out = Some(out);
        }
        if self.least.is_none_or(|(fewest, _)| out < fewest) {
            self.least = Some((out, shard));
        }
    }

    fn choose(&self, preferred: usize, slack: u64) -> Option<usize> {
        let (fewest, shard) = self.least?;
        match self.preferred_out {
            Some(out) if out <= fewest + slack => Some(preferred),
            _ => Some(shard),
        }
    }
}

/// Goes from shard to shard with at most one locked.
pub(super) struct Cursor<'a> {
    shards: &'a Shards,
    held: Option<(usize, MutexGuard<'a, Shard>)>,
}

impl<'a> Cursor<'a> {
    /// The shard of a slot, locked, and the slot's number there.
    #[inline]
    pub(super) fn at(&mut self, slot: u32) -> (&mut Shard, usize) {
        let shard = self.shards.shard_of(slot);
        let local = (slot >> self.shards.bits) as usize;
        (self.enter(shard), local)
    }

    /// A shard, locked.
    #[inline]
    pub(super) fn enter(&mut self, shard: usize) -> &mut Shard {
        if self.held.as_ref().is_none_or(|(held, _)| *held != shard) {
            self.leave();
        }
        let shards = self.shards;
        let (_, guard) = self
            .held
            .get_or_insert_with(|| (shard, lock(&shards.places[shard].0.shard)));
        guard
    }

    /// The shard of a slot, if it is the one that is locked; there is none of [`NONE`].
    #[inline]
    pub(super) fn here(&mut self, slot: u32) -> Option<(&mut Shard, usize)> {
        if slot == NONE {
            return None;
        }
        let shard = self.shards.shard_of(slot);
        let local = (slot >> self.shards.bits) as usize;
        match &mut self.held {
            Some((held, guard)) if *held == shard => Some((guard, local)),
            _ => None,
        }
    }

    /// Gives the lock up.
    #[inline]
    pub(super) fn leave(&mut self) {
        if let Some((shard, guard)) = self.held.take() {
            // Stored before the lock is given up, so that the latest holder's number stays.
            let idle = &self.shards.places[shard].0.idle;
            idle.store(guard.idle().packed(), Ordering::Relaxed);
        }
    }
}

impl Drop for Cursor<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
