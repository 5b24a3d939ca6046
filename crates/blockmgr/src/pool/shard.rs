//! A share of a pool's slots.

use std::sync::Arc;

use super::backlog::{Backlog, Entries};
use super::cell::{Cell, Hold, State};
use super::directory::NONE;
use super::matching::access;
use crate::SequenceHash;
use crate::policy::{Access, EvictionPolicy, Policy, Request, Slot};

/// What happened in a shard since it was made.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) registered: u64,
    pub(super) duplicates: u64,
    pub(super) evicted: u64,
    pub(super) removed: u64,
}

/// Slots with a policy of their own: what changes under one lock.
#[derive(Debug)]
pub(super) struct Shard {
    cells: Arc<[Cell]>,
    /// Numbers within the shard.
    pub(super) free: Vec<u32>,
    pub(super) policy: Policy,
    /// Slots whose blocks nobody uses, as far as the policy was told.
    is_idle: Vec<bool>,
    pub(super) counts: Counts,
    /// Slots whose blocks the directory names.
    registered: u32,
    /// The newest request that the policy was told of.
    newest_tick: u64,
    /// When the blocks that left lately were used last; the newer ones count more.
    victim_used: u32,
    /// Entries that were taken from the backlog, and how many of them the policy was told of.
    taken: Entries,
    told: usize,
}

impl Shard {
    pub(super) fn new(cells: Arc<[Cell]>, policy: Policy) -> Self {
        Self {
            free: (0..cells.len() as u32).rev().collect(),
            is_idle: vec![false; cells.len()],
            cells,
            policy,
            counts: Counts::default(),
            registered: 0,
            newest_tick: 0,
            victim_used: 0,
            taken: Entries::default(),
            told: 0,
        }
    }

    pub(super) fn idle(&self) -> Idle {
        Idle {
            free: self.free.len() as u32,
            cached: self.policy.evictable_slots(),
        }
    }

    /// Slots that are free or have a block that the directory names.
    pub(super) fn free_or_registered(&self) -> usize {
        self.free.len() + self.registered as usize
    }

    /// The same without those in use, by a look at each slot: some may change meanwhile.
    #[cold]
    pub(super) fn look_idle(&self) -> usize {
        let idle = self.cells.iter().filter(|cell| is_idle(cell.hold()));
        self.free.len() + idle.count()
    }

    /// Tells the policy of blocks that nobody uses though it was not told so yet; whether there were any.
    #[cold]
    pub(super) fn tell_idle(&mut self) -> bool {
        let mut were_any = false;
        for local in 0..self.cells.len() {
            if !self.is_idle[local] && is_idle(self.cells[local].hold()) {
                self.tell_released(local as u32);
                were_any = true;
            }
        }
        were_any
    }

    /// What can be told of the next victim.
    pub(super) fn outlook(&self) -> Outlook {
        match self.policy.victim_worth() {
            Some(worth) => Outlook::Worth(worth),
            None => Outlook::Used(self.victim_used),
        }
    }

    fn cell(&self, local: u32) -> &Cell {
        &self.cells[local as usize]
    }

    /// Puts a slot that is the caller's alone into the free list.
    #[inline]
    pub(super) fn put_free(&mut self, local: u32) {
        self.cell(local).free();
        self.free.push(local);
    }

    /// Takes a slot out of the free list.
    #[inline]
    pub(super) fn take_free(&mut self) -> Option<u32> {
        let local = self.free.pop()?;
        self.cell(local).set(State::Taken, 0);
        Some(local)
    }

    /// Takes a slot from a block that the policy gives up. The directory still has the block. `newest` stands for the request
    /// of a block that nobody asked for.
    #[inline]
    pub(super) fn take_evicted(&mut self, newest: impl Fn(SequenceHash) -> Request) -> Option<u32> {
        // A policy that names blocks in use again and again must not keep the lock for ever.
        for _ in 0..self.cells.len() {
            let slot = self.policy.evict()?;
            let local = slot.get();
            self.is_idle[local as usize] = false;
            let cell = &self.cells[local as usize];
            if cell.claim() {
                self.registered -= 1;
                // A step towards this victim: not all the way, for the choice of a single one may be odd.
                let later = cell.used().wrapping_sub(self.victim_used).cast_signed();
                self.victim_used = self.victim_used.wrapping_add_signed(step(later));
                return Some(local);
            }
            // Somebody took hold of it since the policy was told of it last, and will be noted. The block stays, as if it were new.
            if cell.hold().state == State::Registered {
                let identity = cell.identity();
                let access = access(identity, newest(identity));
                self.policy.insert(slot, &access);
            }
        }
        None
    }

    /// Takes the slot of one block that nobody uses; whether nobody did. The directory and the policy still have the block.
    pub(super) fn take_idle(&mut self, local: u32) -> bool {
        let is_idle = self.cell(local).claim();
        self.registered -= u32::from(is_idle);
        is_idle
    }

    /// A slot has a block from now on, that the directory names, with so many users: one, or none if it was a duplicate until now.
    #[inline]
    pub(super) fn register(&mut self, local: u32, access: &Access, users: u32) {
        let slot = Slot::new(local);
        // A policy may panic: nothing has happened until it knows.
        self.policy.insert(slot, access);
        if users == 0 {
            self.policy.release(slot);
        }
        let heritage = self.policy.heritage(slot);
        self.is_idle[local as usize] = users == 0;
        self.newest_tick = self.newest_tick.max(access.request.tick);
        self.registered += 1;
        self.counts.registered += u64::from(users);
        let cell = self.cell(local);
        cell.forget_again();
        cell.set_used(access.request.tick);
        cell.set_heritage(heritage.0);
        cell.set_next(NONE);
        cell.set(State::Registered, users);
    }

    /// Tells the policy what was noted while the shard was not locked.
    pub(super) fn catch_up(&mut self, backlog: &Backlog) {
        // What it was not told the last time, because it panicked, comes first.
        self.tell_taken();
        if !backlog.is_empty() {
            backlog.take(&mut self.taken);
            self.tell_taken();
        }
    }

    fn tell_taken(&mut self) {
        while let Some((entry, request)) = self.taken.get(self.told) {
            self.told += 1;
            let cell = &self.cells[entry.local as usize];
            let hold = cell.hold();
            if hold.state != State::Registered || hold.generation != entry.generation {
                continue;
            }
            let slot = Slot::new(entry.local);
            if let Some(request) = request {
                self.newest_tick = self.newest_tick.max(request.tick);
                let access = access(cell.identity(), *request);
                if self.is_idle[entry.local as usize] {
                    self.policy.hit(slot, &access);
                } else {
                    // It was in use again before the policy could be told that it was let go.
                    self.policy.hit_again(slot, &access, 1);
                }
            }
            self.policy.pin(slot);
            self.is_idle[entry.local as usize] = false;
            // A use is followed by another entry when it ends.
            if request.is_none() && hold.users == 0 {
                self.tell_released(entry.local);
            }
        }
        self.taken.clear();
        self.told = 0;
    }

    /// Tells the policy that nobody uses a block any more, and of its uses since it was told last.
    #[inline]
    fn tell_released(&mut self, local: u32) {
        let slot = Slot::new(local);
        let cell = &self.cells[local as usize];
        if let Some((times, newest)) = cell.take_again(self.newest_tick) {
            self.policy.hit_again(slot, &newest, times);
        }
        self.policy.release(slot);
        self.is_idle[local as usize] = true;
    }
}

/// Whether a slot has a block that nobody uses.
fn is_idle(hold: Hold) -> bool {
    hold.state == State::Registered && hold.users == 0
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
    pub(super) fn packed(self) -> u64 {
        match self {
            Self::Worth(worth) => u64::from(worth.to_bits()),
            Self::Used(tick) => 1 << 32 | u64::from(tick),
        }
    }

    pub(super) fn unpacked(packed: u64) -> Self {
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
pub(super) struct Idle {
    pub(super) free: u32,
    pub(super) cached: u32,
}

impl Idle {
    pub(super) fn packed(self) -> u64 {
        u64::from(self.free) << 32 | u64::from(self.cached)
    }

    pub(super) fn unpacked(packed: u64) -> Self {
        Self {
            free: (packed >> 32) as u32,
            cached: packed as u32,
        }
    }
}
