//! The part of a pool that its blocks keep alive.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::config::PoolConfig;
use super::size_class::SizeClasses;
use crate::slots::{SlotRef, Slots, Stack};
use crate::{Storage, StorageError};

/// A block's right to be kept: a slot, charged to the bytes that the pool retains.
#[derive(Debug)]
pub(super) struct Seat<S> {
    pub(super) slot: SlotRef<S>,
    pub(super) class: u32,
}

impl<S> Clone for Seat<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Seat<S> {}

/// Blocks by size class, and the accounts.
pub(super) struct Shared<S> {
    pub(super) classes: SizeClasses,
    stacks: Box<[Stack<S>]>,
    slots: Slots<S>,
    retained_max_bytes: usize,
    /// Sizes of blocks with a seat, in use or not.
    retained_bytes: AtomicUsize,
    /// Sizes of all blocks that were had from the allocator inside and not given back to it.
    held_bytes: AtomicUsize,
    high_water_bytes: AtomicUsize,
    pub(super) misses: AtomicU64,
    pub(super) released: AtomicU64,
    pub(super) evicted: AtomicU64,
}

impl<S> fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("held_bytes", &self.held_bytes)
            .field("retained_bytes", &self.retained_bytes)
            .finish_non_exhaustive()
    }
}

/// Takes a freed block off the accounts, also if freeing it unwound.
struct Settle<'a, S> {
    shared: &'a Shared<S>,
    seat: Option<Seat<S>>,
    bytes: usize,
}

impl<S> Drop for Settle<'_, S> {
    fn drop(&mut self) {
        self.shared
            .held_bytes
            .fetch_sub(self.bytes, Ordering::AcqRel);
        if let Some(seat) = self.seat {
            // SAFETY: the block's seat, which nothing uses after this.
            unsafe { self.shared.give_up(seat) };
        }
    }
}

impl<S> Shared<S> {
    pub(super) fn new(
        config: &PoolConfig,
        inner_alignment_bytes: usize,
    ) -> Result<Self, StorageError> {
        let classes = config.classes(inner_alignment_bytes)?;
        Ok(Self {
            classes,
            stacks: (0..classes.count()).map(|_| Stack::new()).collect(),
            slots: Slots::new(config.blocks_max()),
            retained_max_bytes: config.retained_max_bytes(),
            retained_bytes: AtomicUsize::new(0),
            held_bytes: AtomicUsize::new(0),
            high_water_bytes: AtomicUsize::new(0),
            misses: AtomicU64::new(0),
            released: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        })
    }

    #[inline]
    pub(super) fn pop(&self, class: u32) -> Option<(Seat<S>, S)> {
        let stack = self.stacks.get(class as usize)?;
        // SAFETY: the slots of all stacks here are those of `self.slots`.
        let (slot, storage) = unsafe { stack.pop(&self.slots) }?;
        Some((Seat { slot, class }, storage))
    }

    /// The stack of a class.
    #[inline]
    pub(super) fn stack(&self, class: u32) -> Option<NonNull<Stack<S>>> {
        self.stacks.get(class as usize).map(NonNull::from)
    }

    /// A seat for a block of a class, if there is room among what the pool retains.
    pub(super) fn seat(&self, class: u32) -> Option<Seat<S>> {
        let bytes = self.classes.size_bytes(class);
        self.retained_bytes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |retained| {
                retained
                    .checked_add(bytes)
                    .filter(|&sum| sum <= self.retained_max_bytes)
            })
            .ok()?;
        let slot = self.slots.acquire(class);
        if slot.is_none() {
            self.retained_bytes.fetch_sub(bytes, Ordering::AcqRel);
        }
        Some(Seat { slot: slot?, class })
    }

    /// Takes a seat back.
    ///
    /// # Safety
    /// The caller held the seat, which is one of this pool, and its slot is empty.
    unsafe fn give_up(&self, seat: Seat<S>) {
        let bytes = self.classes.size_bytes(seat.class);
        // SAFETY: the seat owned the slot, and gives it up here.
        unsafe { self.slots.release(seat.slot) };
        self.retained_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Enters a block that was had from the allocator inside.
    pub(super) fn charge(&self, bytes: usize) {
        let held = self.held_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        self.high_water_bytes.fetch_max(held, Ordering::AcqRel);
    }

    /// Gives a block back to where it came from.
    ///
    /// # Safety
    /// The caller holds the seat, if there is one, and gives it up.
    pub(super) unsafe fn free(&self, storage: S, seat: Option<Seat<S>>, bytes: usize) {
        let _settle = Settle {
            shared: self,
            seat,
            bytes,
        };
        drop(storage);
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Acquire)
    }

    pub(super) fn high_water_bytes(&self) -> usize {
        self.high_water_bytes.load(Ordering::Acquire)
    }

    pub(super) fn reset_high_water(&self) {
        self.high_water_bytes
            .store(self.held_bytes(), Ordering::Release);
    }

    /// Bytes and number of blocks that wait for reuse.
    pub(super) fn idle(&self) -> (usize, usize) {
        let (mut bytes, mut blocks) = (0usize, 0);
        self.slots.waiting(|class| {
            bytes += self.classes.size_bytes(class);
            blocks += 1;
        });
        (bytes, blocks)
    }
}

impl<S: Storage> Shared<S> {
    /// Frees waiting blocks, those of the largest classes first, until `bytes` are freed or none is
    /// left. Returns the bytes freed.
    ///
    /// The caller's own hold on the pool is not one of those that waiting blocks carry.
    pub(super) fn evict(this: &Arc<Self>, bytes: usize) -> usize {
        let mut freed = 0;
        for class in (0..this.classes.count()).rev() {
            while freed < bytes {
                let Some((seat, storage)) = this.pop(class) else {
                    break;
                };
                let hold = Self::take_hold(this);
                freed += this.classes.size_bytes(class);
                this.evicted.fetch_add(1, Ordering::AcqRel);
                // SAFETY: the seat came off the stack with the storage.
                unsafe { this.free(storage, Some(seat), this.classes.size_bytes(class)) };
                drop(hold);
            }
        }
        freed
    }

    /// Closes the pool: what waits is freed, what is in use will be when it is given back.
    pub(super) fn close(this: &Arc<Self>) {
        for (class, stack) in (0..).zip(&this.stacks) {
            // SAFETY: the slots of all stacks here are those of `this.slots`.
            let waiting = unsafe { stack.close(&this.slots) };
            for (slot, storage) in waiting {
                let hold = Self::take_hold(this);
                let seat = Seat { slot, class };
                // SAFETY: the seat came off the stack with the storage.
                unsafe { this.free(storage, Some(seat), this.classes.size_bytes(class)) };
                drop(hold);
            }
        }
    }

    /// The hold on the pool that a block carries while it waits, taken over with the block.
    #[inline]
    pub(super) fn take_hold(this: &Arc<Self>) -> Arc<Self> {
        let pointer = Arc::as_ptr(this);
        // SAFETY: a block that is put on a stack forgets its own `Arc`, and whoever takes a block off
        // calls this once, so that the count that is taken over here is there.
        unsafe { Arc::from_raw(pointer) }
    }
}
