//! When operations are carried out, and what goes wrong.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Dice;

/// How likely each kind of fault is, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Faults {
    /// An item, or a batch that is one whole, fails before anything is done.
    pub refused: f64,
    /// It is carried out, and reported as failed all the same.
    pub torn: f64,
    /// One bit of a block goes bad on its medium; only block stores know it.
    pub flipped: f64,
    /// The operation is carried out only after some more turns of [`Schedule::driven`], and can't be stopped
    /// meanwhile; other schedules have no turns.
    pub delayed: f64,
    /// The operation hangs until it is cancelled or its tier is dropped.
    pub hung: f64,
    /// The operation's worker goes away without a word, and its buffers with it.
    pub abandoned: f64,
}

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        refused: 0.0,
        torn: 0.0,
        flipped: 0.0,
        delayed: 0.0,
        hung: 0.0,
        abandoned: 0.0,
    };

    /// What happens to the next item.
    pub(super) fn draw(&self, dice: &mut Dice) -> Option<Fault> {
        // Always three draws, so that one probability does not shift the decisions of another.
        let draws = [
            (dice.chance(self.refused), Fault::Refused),
            (dice.chance(self.torn), Fault::Torn),
            (dice.chance(self.flipped), Fault::Flipped),
        ];
        draws
            .into_iter()
            .find_map(|(hit, fault)| hit.then_some(fault))
    }
}

/// What goes wrong with one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Refused,
    Torn,
    Flipped,
}

/// How often each kind of fault came about in one tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// As [`Faults::refused`].
    pub refused: u64,
    /// As [`Faults::torn`].
    pub torn: u64,
    /// As [`Faults::flipped`].
    pub flipped: u64,
    /// As [`Faults::delayed`].
    pub delayed: u64,
    /// As [`Faults::hung`].
    pub hung: u64,
    /// As [`Faults::abandoned`].
    pub abandoned: u64,
    /// Items refused at the bound of a block store.
    pub full: u64,
}

/// Counts that operations on any thread add to.
#[derive(Debug, Default)]
pub(super) struct FaultCounters {
    refused: AtomicU64,
    torn: AtomicU64,
    flipped: AtomicU64,
    pub(super) delayed: AtomicU64,
    pub(super) hung: AtomicU64,
    pub(super) abandoned: AtomicU64,
    pub(super) full: AtomicU64,
}

impl FaultCounters {
    pub(super) fn note(&self, fault: Fault) {
        let counter = match fault {
            Fault::Refused => &self.refused,
            Fault::Torn => &self.torn,
            Fault::Flipped => &self.flipped,
        };
        count(counter);
    }

    pub(super) fn counts(&self) -> FaultCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FaultCounts {
            refused: read(&self.refused),
            torn: read(&self.torn),
            flipped: read(&self.flipped),
            delayed: read(&self.delayed),
            hung: read(&self.hung),
            abandoned: read(&self.abandoned),
            full: read(&self.full),
        }
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// When the operations of a mock are carried out, and what goes wrong: reproduced by a seed.
///
/// The decisions about the n-th operation depend on the seed and on n alone. With
/// [`Schedule::driven`], and operations started by one thread, the order is reproduced too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    pub(super) order: Order,
    pub(super) seed: u64,
    pub(super) faults: Faults,
    pub(super) queue_max: usize,
}

/// Operations in flight at a time, where a schedule says nothing of it.
const QUEUE_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Immediate,
    Delayed(Duration),
    Reordering,
    Driven,
}

impl Schedule {
    fn new(order: Order, seed: u64) -> Self {
        Self {
            order,
            seed,
            faults: Faults::NONE,
            queue_max: QUEUE_MAX,
        }
    }

    /// Carried out before the call returns.
    pub fn immediate() -> Self {
        Self::new(Order::Immediate, 0)
    }

    /// Carried out by another thread, in order, `delay` after the call.
    pub fn delayed(delay: Duration) -> Self {
        Self::new(Order::Delayed(delay), 0)
    }

    /// Carried out before the call returns; of its items, this share (0 to 1) fails: half of them with
    /// nothing done, half with the work done.
    pub fn failing(seed: u64, share: f64) -> Self {
        let faults = Faults {
            refused: share / 2.0,
            torn: share / 2.0,
            ..Faults::NONE
        };
        Self::immediate().with_faults(seed, faults)
    }

    /// Carried out by another thread, out of order.
    pub fn reordering(seed: u64) -> Self {
        Self::new(Order::Reordering, seed)
    }

    /// Carried out, out of order, by whoever waits for any of the operations.
    pub fn driven(seed: u64) -> Self {
        Self::new(Order::Driven, seed)
    }

    /// Adds faults.
    #[must_use]
    pub fn with_faults(mut self, seed: u64, faults: Faults) -> Self {
        self.seed = seed;
        self.faults = faults;
        self
    }
    /// Sets how many operations may be queued or hang at a time (4096 unless told otherwise); the next
    /// is refused as [`ErrorKind::Busy`](crate::contract::ErrorKind::Busy), with its buffers.
    #[must_use]
    pub fn with_queue_max(mut self, operations: usize) -> Self {
        self.queue_max = operations;
        self
    }
}
