//! A share of a pool's slots.

use super::directory::NONE;
use crate::policy::{EvictionPolicy, Policy, Slot};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, Padded, TryLockError, lock};

/// Victims count as equally old that are younger than the oldest by less than this part.
const SLACK: u32 = 64;

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
    /// When a request last matched or registered the block: its number, modulo 2³².
    pub(super) used: u32,
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
    /// When the blocks that left lately were used last; the newer ones count more.
    victim_used: u32,
}

impl Shard {
    fn new(slots: u32, policy: Policy) -> Self {
        let cell = Cell {
            state: State::Free,
            users: 0,
            generation: 0,
            used: 0,
            next: NONE,
        };
        Self {
            cells: vec![cell; slots as usize],
            free: (0..slots).rev().collect(),
            policy,
            counts: Counts::default(),
            victim_used: 0,
        }
    }

    /// Slots that could be handed out now.
    pub(super) fn available(&self) -> usize {
        let idle = self.idle();
        idle.free as usize + idle.cached as usize
    }

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
        // A step towards this victim: not all the way, for the choice of a single one may be odd.
        let later = cell.used.wrapping_sub(self.victim_used).cast_signed();
        self.victim_used = self.victim_used.wrapping_add_signed(step(later));
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

/// A quarter of a distance, and not nothing.
fn step(distance: i32) -> i32 {
    distance / 4 + distance.signum()
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
    /// [`Shard::victim_used`] then. The pool evicts where it is oldest, so that a block which nobody uses grows equally
    /// old in all shards, whatever each is asked for.
    victim_used: AtomicU32,
}

impl Place {
    fn idle(&self) -> Idle {
        Idle::unpacked(self.idle.load(Ordering::Relaxed))
    }

    /// Requests since the shard's latest victims were used.
    fn victim_age(&self, now: u32) -> u32 {
        // A request that began later may have been counted already.
        let age = now.wrapping_sub(self.victim_used.load(Ordering::Relaxed));
        u32::try_from(age.cast_signed()).unwrap_or(0)
    }
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
                victim_used: AtomicU32::new(0),
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
            let idle = place.idle();
            idle.free as usize + idle.cached as usize
        };
        self.places.iter().map(available).sum()
    }

    /// Locks the shard where the thread of a lane should take slots: one that has free slots; if there is none, one of
    /// those whose victims are about as old as any. Each lane begins to look elsewhere, and passes over shards that
    /// are locked, so that threads stay out of each other's way. `None` if no shard seems to have a slot. `now` is the
    /// number of the request.
    pub(super) fn choose(&self, lane: u32, now: u32) -> Option<(Choice, Cursor<'_>)> {
        let count = self.places.len();
        // Reversed bits: half of the shards lie between the first two lanes, a quarter between those and the next two.
        let first = lane.reverse_bits().checked_shr(32 - self.bits).unwrap_or(0) as usize;
        let places = || (first..count).chain(0..first);
        // Others change the numbers meanwhile, so that what was seen once has to do.
        let mut free = None;
        let mut oldest = None;
        for shard in places() {
            let place = &self.places[shard].0;
            let idle = place.idle();
            if idle.free > 0 {
                free = free.or(Some(shard));
            }
            let age = place.victim_age(now);
            if idle.cached > 0 && oldest.is_none_or(|(most, _)| age > most) {
                oldest = Some((age, shard));
            }
        }
        let fits = |&shard: &usize| {
            let place = &self.places[shard].0;
            match (free, oldest) {
                (Some(_), _) => place.idle().free > 0,
                (None, Some((most, _))) => {
                    place.idle().cached > 0 && place.victim_age(now) >= most - most / SLACK
                }
                (None, None) => false,
            }
        };
        let evicts = free.is_none();
        let not_busy = places().filter(fits).find_map(|shard| {
            let cursor = self.try_cursor(shard)?;
            Some((Choice { shard, evicts }, cursor))
        });
        not_busy.or_else(|| {
            let shard = free.or(oldest.map(|(_, shard)| shard))?;
            let mut cursor = self.cursor();
            cursor.enter(shard);
            Some((Choice { shard, evicts }, cursor))
        })
    }

    /// All shards, locked in order.
    pub(super) fn lock_all(&self) -> Vec<Cursor<'_>> {
        let cursors = (0..self.count()).map(|shard| {
            let mut cursor = self.cursor();
            cursor.enter(shard);
            cursor
        });
        cursors.collect()
    }

    /// A cursor at a shard that nobody has locked.
    fn try_cursor(&self, shard: usize) -> Option<Cursor<'_>> {
        let guard = match self.places[shard].0.shard.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Cursor {
            shards: self,
            held: Some((shard, guard)),
        })
    }

    /// A cursor that holds no lock yet.
    pub(super) fn cursor(&self) -> Cursor<'_> {
        Cursor {
            shards: self,
            held: None,
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
            let place = &self.shards.places[shard].0;
            place.idle.store(guard.idle().packed(), Ordering::Relaxed);
            place
                .victim_used
                .store(guard.victim_used, Ordering::Relaxed);
        }
    }
}

impl Drop for Cursor<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
