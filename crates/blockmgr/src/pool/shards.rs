//! All shards of a pool, and what can be known of them without their locks.

use std::sync::Arc;

use super::backlog::Backlog;
use super::cell::Cell;
use super::choice::NOBODY;
use super::cursor::Cursor;
use super::shard::{Idle, Outlook, Shard};
use crate::policy::{EvictionPolicy, Policy};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sync::{Mutex, Padded, try_lock};

/// A shard with what others may read of it, and note for it, without its lock.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) shard: Padded<Mutex<Shard>>,
    pub(super) backlog: Padded<Backlog>,
    pub(super) home: Padded<Home>,
    /// [`Idle`] when the lock was last given up.
    idle: AtomicU64,
    /// [`Shard::outlook`] then.
    outlook: AtomicU64,
    /// [`Shard::free_or_registered`] then.
    free_or_registered: AtomicU32,
}

/// Whose own a shard is; apart from what changes all the time, so that all may look at it.
#[derive(Debug)]
pub(super) struct Home {
    /// A lane, or [`NOBODY`].
    pub(super) holder: AtomicU32,
    /// How often others took slots here since that lane did.
    pub(super) visits: AtomicU32,
    /// Whether there was a free slot when the shard's lock was last given up.
    pub(super) has_free: AtomicBool,
}

impl Place {
    #[inline]
    pub(super) fn idle(&self) -> Idle {
        Idle::unpacked(self.idle.load(Ordering::Relaxed))
    }

    /// States what others may read.
    pub(super) fn publish(&self, shard: &Shard) {
        let idle = shard.idle().packed();
        if self.idle.load(Ordering::Relaxed) != idle {
            self.idle.store(idle, Ordering::Relaxed);
        }
        let has_free = !shard.free.is_empty();
        if self.home.0.has_free.load(Ordering::Relaxed) != has_free {
            self.home.0.has_free.store(has_free, Ordering::Relaxed);
        }
        let outlook = shard.outlook().packed();
        if self.outlook.load(Ordering::Relaxed) != outlook {
            self.outlook.store(outlook, Ordering::Relaxed);
        }
        let count = shard.free_or_registered() as u32;
        if self.free_or_registered.load(Ordering::Relaxed) != count {
            self.free_or_registered.store(count, Ordering::Relaxed);
        }
    }

    /// What the next victim is worth. The pool evicts where it is least, so that a block leaves that is worth
    /// least in the whole pool, or for a policy without worth, one that was used longest ago.
    #[inline]
    pub(super) fn victim_worth(&self, now: u32) -> f32 {
        Outlook::unpacked(self.outlook.load(Ordering::Relaxed)).worth(now)
    }
}

/// All shards of a pool. A slot belongs to the shard that its lowest bits name.
#[derive(Debug)]
pub(super) struct Shards {
    pub(super) places: Box<[Padded<Place>]>,
    pub(super) bits: u32,
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

    /// A shard for each policy, with these slots. Their number is a power of two.
    pub(super) fn new(cells_of_each: &[Arc<[Cell]>], policies: Vec<Policy>) -> Self {
        let place = |(cells, policy): (&Arc<[Cell]>, Policy)| {
            let shard = Shard::new(Arc::clone(cells), policy);
            Padded(Place {
                idle: AtomicU64::new(shard.idle().packed()),
                outlook: AtomicU64::new(shard.outlook().packed()),
                free_or_registered: AtomicU32::new(shard.free_or_registered() as u32),
                shard: Padded(Mutex::new(shard)),
                backlog: Padded::default(),
                home: Padded(Home {
                    holder: AtomicU32::new(NOBODY),
                    visits: AtomicU32::new(0),
                    has_free: AtomicBool::new(true),
                }),
            })
        };
        let know_worth = policies
            .iter()
            .all(|policy| policy.victim_worth().is_some());
        Self {
            know_worth,
            places: cells_of_each.iter().zip(policies).map(place).collect(),
            bits: cells_of_each.len().trailing_zeros(),
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

    /// The number of a slot within its shard.
    #[inline]
    pub(super) fn local(&self, slot: u32) -> u32 {
        slot >> self.bits
    }

    /// The shard that a slot belongs to.
    #[inline]
    pub(super) fn shard_of(&self, slot: u32) -> usize {
        slot as usize & (self.places.len() - 1)
    }

    /// Slots of all shards that are free or have a block that the directory names; exact while no other thread uses the pool.
    pub(super) fn free_or_registered(&self) -> usize {
        let count = |Padded(place): &Padded<Place>| {
            place.free_or_registered.load(Ordering::Relaxed) as usize
        };
        self.places.iter().map(count).sum()
    }

    /// What was noted for a shard.
    #[inline]
    pub(super) fn backlog(&self, shard: usize) -> &Backlog {
        &self.places[shard].0.backlog.0
    }

    /// Tells the policy of a shard what was noted for it, if nobody has the shard locked, or else waits for that.
    #[cold]
    pub(super) fn catch_up(&self, shard: usize, waits: bool) {
        let caught_up = self.try_cursor(shard);
        if caught_up.is_none() && waits {
            self.cursor().enter(shard);
        }
    }

    /// The same for the shards where the thread of a lane evicted last, or nobody did.
    #[inline]
    pub(super) fn catch_up_own(&self, lane: u32) {
        for (shard, Padded(place)) in self.places.iter().enumerate() {
            if self.is_of_lane(shard, lane) && !place.backlog.0.is_empty() {
                drop(self.try_cursor(shard));
            }
        }
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
        let place = &self.places[shard].0;
        let mut guard = try_lock(&place.shard.0)?;
        guard.catch_up(&place.backlog.0);
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
