//! One limit over the memory that a store takes.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use core_alloc::{Guard, Storage};

use crate::NvmeError;

/// What memory is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemoryKind {
    /// Buffers lent out: values read, memory for callers to fill, and what the pool keeps for reuse.
    Buffers,
    /// Keys and places.
    Index,
    /// Values kept for the next read.
    Cache,
    /// Batches from their acceptance to their acknowledgement, with what a commit copies.
    Queue,
    /// What was read ahead of those who read in order.
    ReadAhead,
    /// Values on their way out of a segment that is being emptied: a part set aside for that, and what a longer
    /// value takes.
    Compaction,
    /// What a checkpoint is put together in: a part set aside for that, and what a longer piece takes.
    Checkpoint,
    /// What opening and verifying a store read it through.
    Scan,
}

const KINDS: usize = 8;

/// The part of the limit that is set aside for compaction: one of so many.
const COMPACTION_PART: u64 = 16;
/// More than this is not set aside for it, in bytes.
const COMPACTION_BYTES_MAX: u64 = 26 << 20;
/// The part of the limit that is set aside for checkpoints: one of so many.
const CHECKPOINT_PART: u64 = 8;
/// More than this is not set aside for them, in bytes.
const CHECKPOINT_BYTES_MAX: u64 = 8 << 20;

/// How long memory of batches is waited for before it is looked again whether something is to be done for them: what ends a stage
/// gives memory back before it lets others begin one.
const BATCH_PATIENCE: Duration = Duration::from_millis(2);

impl MemoryKind {
    fn index(self) -> usize {
        match self {
            Self::Buffers => 0,
            Self::Index => 1,
            Self::Cache => 2,
            Self::Queue => 3,
            Self::ReadAhead => 4,
            Self::Compaction => 5,
            Self::Checkpoint => 6,
            Self::Scan => 7,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Buffers => "buffers",
            Self::Index => "the index",
            Self::Cache => "the cache",
            Self::Queue => "batches",
            Self::ReadAhead => "reading ahead",
            Self::Compaction => "compaction",
            Self::Checkpoint => "checkpoints",
            Self::Scan => "reading the whole store",
        }
    }

    /// Whether callers and the past decide when it comes back, and not the store.
    fn may_stay(self) -> bool {
        matches!(
            self,
            Self::Buffers | Self::Index | Self::Cache | Self::ReadAhead
        )
    }
}

/// Memory of a store, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// The limit.
    pub limit_bytes: u64,
    /// In use, of every kind.
    pub used_bytes: u64,
    /// The most ever in use at once.
    pub peak_bytes: u64,
    /// In use for [`MemoryKind::Buffers`].
    pub buffers_bytes: u64,
    /// In use for [`MemoryKind::Index`].
    pub index_bytes: u64,
    /// In use for [`MemoryKind::Cache`].
    pub cache_bytes: u64,
    /// In use for [`MemoryKind::Queue`].
    pub queue_bytes: u64,
    /// In use for [`MemoryKind::ReadAhead`].
    pub read_ahead_bytes: u64,
    /// Set aside or in use for [`MemoryKind::Compaction`].
    pub compaction_bytes: u64,
    /// Set aside or in use for [`MemoryKind::Checkpoint`].
    pub checkpoint_bytes: u64,
    /// In use for [`MemoryKind::Scan`].
    pub scan_bytes: u64,
    /// Times that a writer waited for memory.
    pub waits: u64,
    /// Requests that were refused.
    pub refusals: u64,
}

/// The memory that a store may take, and what it takes.
///
/// The index takes half of it at most, so that what it leads to can be read. Compaction and checkpoints have parts of
/// their own, so that they go on whatever else is there. Of the rest, a quarter of the limit is kept for batches: values that
/// readers hold on to, the cache, what is read ahead and the index can't take it. What is in that quarter comes back by
/// itself when commits and scans end, so that a writer who waits for it is not kept waiting by anybody's buffers.
///
/// Only writers wait, before their batch is in the queue, with no lock held and none of the memory of batches in their
/// hands; they wait for batches in the queue, which need no more memory than they have. Everybody else is refused at once.
#[derive(Debug)]
pub(super) struct Budget {
    limit_bytes: u64,
    used_bytes: AtomicU64,
    /// What may stay for as long as callers like.
    staying_bytes: AtomicU64,
    peak_bytes: AtomicU64,
    kinds: [AtomicU64; KINDS],
    waits: AtomicU64,
    refusals: AtomicU64,
    waiting: AtomicUsize,
    /// Guards nothing but the wait itself.
    gate: Mutex<()>,
    released: Condvar,
}

impl Budget {
    pub(super) fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            used_bytes: AtomicU64::new(0),
            staying_bytes: AtomicU64::new(0),
            peak_bytes: AtomicU64::new(0),
            kinds: Default::default(),
            waits: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            gate: Mutex::new(()),
            released: Condvar::new(),
        })
    }

    /// The most bytes that a kind can have while no other has any.
    pub(super) fn share_bytes(&self, kind: MemoryKind) -> u64 {
        match kind {
            MemoryKind::Index => self.limit_bytes / 2,
            kind if kind.may_stay() => {
                let set_aside = self.compaction_bytes() + self.checkpoint_bytes();
                self.limit_bytes - self.limit_bytes / 4 - set_aside
            }
            _ => self.limit_bytes,
        }
    }

    /// Bytes that are set aside for compaction.
    pub(super) fn compaction_bytes(&self) -> u64 {
        (self.limit_bytes / COMPACTION_PART).min(COMPACTION_BYTES_MAX)
    }

    /// Bytes that are set aside for checkpoints.
    pub(super) fn checkpoint_bytes(&self) -> u64 {
        (self.limit_bytes / CHECKPOINT_PART).min(CHECKPOINT_BYTES_MAX)
    }

    /// Takes `bytes` until the reservation is dropped.
    ///
    /// # Errors
    /// [`NvmeError::MemoryLimit`] if they are not to be had now.
    pub(super) fn try_reserve(
        self: &Arc<Self>,
        kind: MemoryKind,
        bytes: u64,
    ) -> Result<Reservation, NvmeError> {
        let mut reservation = Reservation {
            budget: Arc::clone(self),
            kind,
            bytes: 0,
        };
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    /// As [`try_reserve`](Self::try_reserve), waiting for batches that are under way to give memory back. `step` does
    /// something for them, if there is something to do that nobody does: they may have nobody else.
    ///
    /// # Errors
    /// [`NvmeError::MemoryLimit`] if no batch is under way, and they are still not to be had: whoever has
    /// the memory may never give it back.
    pub(super) fn reserve_for_batch(
        self: &Arc<Self>,
        bytes: u64,
        mut step: impl FnMut() -> bool,
    ) -> Result<Reservation, NvmeError> {
        let mut has_waited = false;
        loop {
            if self.take(MemoryKind::Queue, bytes) {
                return Ok(Reservation {
                    budget: Arc::clone(self),
                    kind: MemoryKind::Queue,
                    bytes,
                });
            }
            if step() {
                continue;
            }
            if bytes > self.limit_bytes || !self.wait_for_batch(bytes) {
                return Err(self.refusal(MemoryKind::Queue, bytes));
            }
            if !std::mem::replace(&mut has_waited, true) {
                self.waits.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits until memory was given back, or there may be something to do for batches; `false` if none has any memory.
    fn wait_for_batch(&self, bytes: u64) -> bool {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let under_way = loop {
            let fits = self.used_bytes.load(Ordering::SeqCst).saturating_add(bytes);
            if fits <= self.limit_bytes {
                break true;
            }
            if self.kinds[MemoryKind::Queue.index()].load(Ordering::SeqCst) == 0 {
                break false;
            }
            let waited = self.released.wait_timeout(gate, BATCH_PATIENCE);
            let (woken, ended) = waited.unwrap_or_else(PoisonError::into_inner);
            gate = woken;
            if ended.timed_out() {
                break true;
            }
        };
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        under_way
    }

    fn take(&self, kind: MemoryKind, bytes: u64) -> bool {
        let add = |counter: &AtomicU64, limit: u64| {
            counter
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| {
                    used.checked_add(bytes).filter(|&sum| sum <= limit)
                })
                .ok()
        };
        // Before the sum, so that whoever waits for batches sees this one if the sum has it.
        let of_kind = self.kinds[kind.index()].fetch_add(bytes, Ordering::SeqCst);
        let may_stay = kind.may_stay();
        let staying_max = self.share_bytes(MemoryKind::Buffers);
        let is_beyond = of_kind.saturating_add(bytes) > self.share_bytes(kind);
        let taken = if is_beyond || may_stay && add(&self.staying_bytes, staying_max).is_none() {
            None
        } else {
            let taken = add(&self.used_bytes, self.limit_bytes);
            if taken.is_none() && may_stay {
                self.staying_bytes.fetch_sub(bytes, Ordering::SeqCst);
            }
            taken
        };
        match taken {
            Some(before) => _ = self.peak_bytes.fetch_max(before + bytes, Ordering::Relaxed),
            None => self.forget(kind, bytes),
        }
        taken.is_some()
    }

    /// Bytes that nobody uses.
    pub(super) fn free_bytes(&self) -> u64 {
        let used = self.used_bytes.load(Ordering::Relaxed);
        self.limit_bytes.saturating_sub(used)
    }

    /// Takes bytes that are in use already, whatever the limit.
    fn charge(&self, kind: MemoryKind, bytes: u64) {
        self.kinds[kind.index()].fetch_add(bytes, Ordering::SeqCst);
        if kind.may_stay() {
            self.staying_bytes.fetch_add(bytes, Ordering::SeqCst);
        }
        let before = self.used_bytes.fetch_add(bytes, Ordering::SeqCst);
        self.peak_bytes.fetch_max(before + bytes, Ordering::Relaxed);
    }

    fn give_back(&self, kind: MemoryKind, bytes: u64) {
        if bytes == 0 {
            return;
        }
        if kind.may_stay() {
            self.staying_bytes.fetch_sub(bytes, Ordering::SeqCst);
        }
        self.used_bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.forget(kind, bytes);
    }

    /// Takes bytes off their kind, which comes last, and wakes who waits.
    fn forget(&self, kind: MemoryKind, bytes: u64) {
        self.kinds[kind.index()].fetch_sub(bytes, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            drop(self.gate.lock().unwrap_or_else(PoisonError::into_inner));
            self.released.notify_all();
        }
    }

    pub(super) fn refusal(&self, kind: MemoryKind, bytes: u64) -> NvmeError {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        let left =
            |share: u64, taken: &AtomicU64| share.saturating_sub(taken.load(Ordering::Relaxed));
        let mut available_bytes = left(self.limit_bytes, &self.used_bytes);
        if kind.may_stay() {
            let staying_max = self.share_bytes(MemoryKind::Buffers);
            available_bytes = available_bytes
                .min(left(staying_max, &self.staying_bytes))
                .min(left(self.share_bytes(kind), &self.kinds[kind.index()]));
        }
        NvmeError::MemoryLimit {
            purpose: kind.name(),
            requested_bytes: bytes,
            available_bytes,
            limit_bytes: self.limit_bytes,
        }
    }

    pub(super) fn stats(&self) -> MemoryStats {
        let kind = |kind: MemoryKind| self.kinds[kind.index()].load(Ordering::Relaxed);
        MemoryStats {
            limit_bytes: self.limit_bytes,
            used_bytes: self.used_bytes.load(Ordering::Relaxed),
            peak_bytes: self.peak_bytes.load(Ordering::Relaxed),
            buffers_bytes: kind(MemoryKind::Buffers),
            index_bytes: kind(MemoryKind::Index),
            cache_bytes: kind(MemoryKind::Cache),
            queue_bytes: kind(MemoryKind::Queue),
            read_ahead_bytes: kind(MemoryKind::ReadAhead),
            compaction_bytes: kind(MemoryKind::Compaction),
            checkpoint_bytes: kind(MemoryKind::Checkpoint),
            scan_bytes: kind(MemoryKind::Scan),
            waits: self.waits.load(Ordering::Relaxed),
            refusals: self.refusals.load(Ordering::Relaxed),
        }
    }
}

/// Memory taken out of a budget until this is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    kind: MemoryKind,
    bytes: u64,
}

impl Reservation {
    /// Takes `bytes` more.
    ///
    /// # Errors
    /// [`NvmeError::MemoryLimit`], with nothing changed.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<(), NvmeError> {
        if !self.budget.take(self.kind, bytes) {
            return Err(self.budget.refusal(self.kind, bytes));
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Gives `bytes` of it back, or all if it has fewer.
    pub(super) fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.give_back(self.kind, bytes);
    }

    /// Takes over what `other`, of the same budget and kind, holds.
    pub(super) fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Makes it hold what is in use, whatever the limit.
    pub(super) fn set(&mut self, bytes: u64) {
        if bytes > self.bytes {
            self.budget.charge(self.kind, bytes - self.bytes);
            self.bytes = bytes;
        } else {
            self.shrink(self.bytes - bytes);
        }
    }

    /// Makes it hold at least `bytes`, of all that nobody uses, whatever the share of its kind.
    ///
    /// # Errors
    /// [`NvmeError::MemoryLimit`], with nothing changed.
    pub(super) fn open_to(&mut self, bytes: u64) -> Result<(), NvmeError> {
        let more = bytes.saturating_sub(self.bytes);
        if more > self.budget.free_bytes() {
            return Err(self.budget.refusal(self.kind, more));
        }
        self.set(bytes.max(self.bytes));
        Ok(())
    }

    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(self.kind, self.bytes);
    }
}

/// A buffer holds its share until it is freed.
impl<S: Storage> Guard<S> for Reservation {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// There is nothing to do for batches.
    fn nothing() -> bool {
        false
    }

    #[test]
    fn what_may_stay_leaves_a_quarter_and_what_is_set_aside() {
        let budget = Budget::new(16_000);
        let set_aside = budget.compaction_bytes() + budget.checkpoint_bytes();
        assert_eq!(set_aside, 1000 + 2000);
        let buffers = budget.try_reserve(MemoryKind::Buffers, 7000).unwrap();
        let mut index = budget.try_reserve(MemoryKind::Index, 1000).unwrap();
        let ahead = budget.try_reserve(MemoryKind::ReadAhead, 500).unwrap();
        assert!(budget.try_reserve(MemoryKind::Cache, 501).is_err());
        index.grow(500).unwrap();
        assert!(index.grow(1).is_err());
        let aside = budget.try_reserve(MemoryKind::Compaction, 3000).unwrap();
        let batch = budget.reserve_for_batch(4000, nothing).unwrap();
        let stats = budget.stats();
        assert_eq!((stats.used_bytes, stats.peak_bytes), (16_000, 16_000));
        assert_eq!((stats.index_bytes, stats.refusals), (1500, 2));
        assert_eq!(
            (stats.compaction_bytes, stats.read_ahead_bytes),
            (3000, 500)
        );
        drop((buffers, index, ahead, aside, batch));
        let stats = budget.stats();
        assert_eq!((stats.used_bytes, stats.peak_bytes), (0, 16_000));
        assert!(budget.try_reserve(MemoryKind::Cache, 9000).is_ok());
        assert!(budget.try_reserve(MemoryKind::Index, 8001).is_err());
        assert!(budget.try_reserve(MemoryKind::Scan, 16_000).is_ok());
    }

    #[test]
    fn a_batch_waits_for_batches_and_for_nobody_else() {
        let budget = Budget::new(1000);
        let _lent = budget.try_reserve(MemoryKind::Buffers, 500).unwrap();
        let _aside = budget.try_reserve(MemoryKind::Compaction, 200).unwrap();
        let error = budget.reserve_for_batch(301, nothing).unwrap_err();
        assert!(matches!(
            error,
            NvmeError::MemoryLimit {
                requested_bytes: 301,
                available_bytes: 300,
                limit_bytes: 1000,
                ..
            }
        ));
        let first = budget.reserve_for_batch(200, nothing).unwrap();
        let (done, outcome) = mpsc::channel();
        let waiter = {
            let budget = Arc::clone(&budget);
            std::thread::spawn(move || done.send(budget.reserve_for_batch(300, nothing).is_ok()))
        };
        assert!(outcome.recv_timeout(Duration::from_millis(50)).is_err());
        drop(first);
        assert!(outcome.recv_timeout(Duration::from_secs(60)).unwrap());
        waiter.join().unwrap().unwrap();
        assert_eq!(budget.stats().waits, 1);
    }

    #[test]
    fn parts_of_a_reservation_are_given_back_once() {
        let budget = Budget::new(1000);
        let mut first = budget.reserve_for_batch(400, nothing).unwrap();
        first.grow(100).unwrap();
        first.shrink(450);
        assert_eq!((first.bytes(), budget.stats().queue_bytes), (50, 50));
        first.shrink(100);
        drop(first);
        assert_eq!(budget.stats().used_bytes, 0);
    }
}
