//! A share of a pool's slots.

use super::directory::NONE;
use crate::policy::{Access, EvictionPolicy, Policy, Slot};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, Padded, lock, try_lock};

/// Victims count as worth as little as the least that are worth more by less than this part.
const SLACK: f32 = 1.0 / 64.0;
/// And so much more, in a shard where the same thread evicted last, if another thread did where victims are worth least: threads that stay
/// apart neither wait for each other nor fetch lines from each other's caches.
const HOME_SLACK: f32 = 0.125;

/// No lane.
const NOBODY: u32 = u32::MAX;

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

    /// What can be told of the next victim.
    pub(super) fn outlook(&self) -> Outlook {
        match self.policy.victim_worth() {
            Some(worth) => Outlook::Worth(worth),
            None => Outlook::Used(self.victim_used),
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

    /// A slot has a block from now on, that the directory names, with one user.
    #[inline]
    pub(super) fn register(&mut self, local: usize, access: &Access) {
        self.use_first(local, State::Registered, access.request.tick);
        self.counts.registered += 1;
        self.policy.insert(Slot::new(local as u32), access);
    }

    /// A slot has a block from now on that another slot has too, with one user.
    #[inline]
    pub(super) fn register_duplicate(&mut self, local: usize, tick: u64) {
        self.use_first(local, State::Duplicate, tick);
        self.counts.duplicates += 1;
    }

    fn use_first(&mut self, local: usize, state: State, tick: u64) {
        let cell = &mut self.cells[local];
        cell.state = state;
        cell.users = 1;
        cell.used = tick as u32;
        cell.next = NONE;
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

/// What is known of the victims of a shard.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outlook {
    /// What the next one is worth.
    Worth(f32),
    /// When the latest ones were used.
    Used(u32),
}

impl Outlook {
    fn packed(self) -> u64 {
        match self {
            Self::Worth(worth) => u64::from(worth.to_bits()),
            Self::Used(tick) => 1 << 32 | u64::from(tick),
        }
    }

    fn unpacked(packed: u64) -> Self {
        match packed >> 32 {
            0 => Self::Worth(f32::from_bits(packed as u32)),
            _ => Self::Used(packed as u32),
        }
    }

    /// What a victim is worth; if that is not known, the less the longer ago it was used.
    pub(super) fn worth(self, now: u32) -> f32 {
        match self {
            Self::Worth(worth) => worth,
            Self::Used(tick) => {
                // A request that began later may have been counted already.
                let age = now.wrapping_sub(tick).cast_signed().max(0);
                1.0 / (age as f32 + 1.0)
            }
        }
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
    /// Once victims are worth more, another shard has to give.
    pub(super) worth_max: f32,
}

/// A shard with what others may read of it without its lock.
#[derive(Debug)]
struct Place {
    shard: Mutex<Shard>,
    /// [`Idle`] when the lock was last given up.
    idle: AtomicU64,
    /// [`Shard::outlook`] then.
    outlook: AtomicU64,
    /// The lane that evicted here last.
    holder: AtomicU32,
}

impl Place {
    fn idle(&self) -> Idle {
        Idle::unpacked(self.idle.load(Ordering::Relaxed))
    }

    fn hold(&self, lane: u32) {
        if self.holder.load(Ordering::Relaxed) != lane {
            self.holder.store(lane, Ordering::Relaxed);
        }
    }

    /// What the next victim is worth. The pool evicts where it is least, so that a block leaves that is worth
    /// least in the whole pool, or for a policy without worth, one that was used longest ago.
    fn victim_worth(&self, now: u32) -> f32 {
        Outlook::unpacked(self.outlook.load(Ordering::Relaxed)).worth(now)
    }
}

/// All shards of a pool. A slot belongs to the shard that its lowest bits name.
#[derive(Debug)]
pub(super) struct Shards {
    places: Box<[Padded<Place>]>,
    bits: u32,
    know_worth: bool,
}

impl Shards {
    /// How many slots each of `count` shards has of all.
    pub(super) fn slots_of_each(slots: u32, count: usize) -> Vec<u32> {
        let count = count as u32;
        (0..count)
            .map(|shard| (slots - shard).div_ceil(count))
            .collect()
    }

    /// A shard for each policy, with so many slots. Their number is a power of two.
    pub(super) fn new(slots_of_each: &[u32], policies: Vec<Policy>) -> Self {
        let place = |(&slots, policy): (&u32, Policy)| {
            let shard = Shard::new(slots, policy);
            Padded(Place {
                idle: AtomicU64::new(shard.idle().packed()),
                outlook: AtomicU64::new(shard.outlook().packed()),
                shard: Mutex::new(shard),
                holder: AtomicU32::new(NOBODY),
            })
        };
        let know_worth = policies
            .iter()
            .all(|policy| policy.victim_worth().is_some());
        Self {
            know_worth,
            places: slots_of_each.iter().zip(policies).map(place).collect(),
            bits: slots_of_each.len().trailing_zeros(),
        }
    }

    /// Whether policies tell what their victims are worth; if not, their age is asked for, and so the number of the request.
    pub(super) fn know_worth(&self) -> bool {
        self.know_worth
    }

    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// The slot of a shard's own number.
    #[inline]
    pub(super) fn slot(&self, shard: usize, local: u32) -> u32 {
        local << self.bits | shard as u32
    }

    /// The shard that a slot belongs to.
    #[inline]
    pub(super) fn shard_of(&self, slot: u32) -> usize {
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
    /// those whose victims are worth about as little as any. Each lane begins to look elsewhere, and passes over shards that
    /// are locked, so that threads stay out of each other's way. `None` if no shard seems to have a slot. `now` is the
    /// number of the request.
    pub(super) fn choose<'a>(&'a self, lane: u32, now: u32) -> Option<(Choice, Cursor<'a>)> {
        let count = self.places.len();
        // Reversed bits: half of the shards lie between the first two lanes, a quarter between those and the next two.
        let first = lane.reverse_bits().checked_shr(32 - self.bits).unwrap_or(0) as usize;
        let places = || (first..count).chain(0..first);
        // Others change the numbers meanwhile, so that what was seen once has to do.
        let mut free = None;
        let mut least: Option<(f32, usize)> = None;
        let mut next = f32::INFINITY;
        for shard in places() {
            let place = &self.places[shard].0;
            let idle = place.idle();
            if idle.free > 0 {
                free = free.or(Some(shard));
            }
            if idle.cached == 0 {
                continue;
            }
            let worth = place.victim_worth(now);
            match least {
                Some((found, _)) if worth >= found => next = next.min(worth),
                _ => {
                    next = least.map_or(next, |(found, _)| found);
                    least = Some((worth, shard));
                }
            }
        }
        let evicts = free.is_none();
        let (worth, shard) = least.unwrap_or((0.0, 0));
        let holder = self.places[shard].0.holder.load(Ordering::Relaxed);
        let is_contested = evicts && holder != NOBODY && holder != lane;
        let enough = worth * (1.0 + if is_contested { HOME_SLACK } else { SLACK });
        let has = |&shard: &usize| {
            let idle = self.places[shard].0.idle();
            if evicts {
                idle.cached > 0
            } else {
                idle.free > 0
            }
        };
        let within =
            |shard: usize, worth: f32| !evicts || self.places[shard].0.victim_worth(now) <= worth;
        let fits = |&shard: &usize| {
            let holder = self.places[shard].0.holder.load(Ordering::Relaxed);
            has(&shard) && within(shard, enough) && (!is_contested || holder == lane)
        };
        let is_near = |&shard: &usize| has(&shard) && within(shard, worth * (1.0 + HOME_SLACK));
        let chosen = |mut cursor: Cursor<'a>, shard| {
            cursor.enter(shard);
            if evicts {
                self.places[shard].0.hold(lane);
            }
            let worth_max = next.max(enough) * (1.0 + SLACK);
            let choice = Choice {
                shard,
                evicts,
                worth_max,
            };
            (choice, cursor)
        };
        let locked = |shard| Some(chosen(self.try_cursor(shard)?, shard));
        // A block that is worth a little more is given up rather than waited for.
        let not_busy = places().filter(fits).find_map(locked);
        let not_busy = not_busy.or_else(|| places().filter(is_near).find_map(locked));
        not_busy.or_else(|| {
            let shard = free.or(least.map(|(_, shard)| shard))?;
            Some(chosen(self.cursor(), shard))
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
    pub(super) fn try_cursor(&self, shard: usize) -> Option<Cursor<'_>> {
        let guard = try_lock(&self.places[shard].0.shard)?;
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
            // Stored before the lock is given up, so that the latest holder's numbers stay.
            let place = &self.shards.places[shard].0;
            let (idle, outlook) = (guard.idle().packed(), guard.outlook().packed());
            place.idle.store(idle, Ordering::Relaxed);
            place.outlook.store(outlook, Ordering::Relaxed);
        }
    }
}

impl Drop for Cursor<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
