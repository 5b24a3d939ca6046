//! Reuse of a fixed number of equal blocks.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::slots::{SLOTS_MAX, SlotRef, Slots, Stack};
use crate::{
    Guard, Guarded, Request, Storage, StorageAllocator, StorageError, StorageType, Uninit,
};

/// A block that goes back to its [`FixedPool`] when it is dropped.
pub type FixedBlock<S> = Guarded<S, FixedReturn<S>>;

struct Shared<S> {
    stack: Stack<S>,
    slots: Slots<S>,
    block_bytes: usize,
    blocks: usize,
    kind: StorageType,
    alignment_bytes: usize,
    exhausted: AtomicU64,
}

impl<S> fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("block_bytes", &self.block_bytes)
            .field("blocks", &self.blocks)
            .finish_non_exhaustive()
    }
}

/// The way back into a [`FixedPool`].
pub struct FixedReturn<S: Storage> {
    shared: Arc<Shared<S>>,
    slot: SlotRef<S>,
}

impl<S: Storage> fmt::Debug for FixedReturn<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FixedReturn")
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}

impl<S: Storage> Guard<S> for FixedReturn<S> {
    #[inline]
    fn give_back(self, storage: S) {
        // A block that waits keeps the hold on the pool that it had in use.
        let this = ManuallyDrop::new(self);
        let shared = std::ptr::from_ref(&this.shared);
        // SAFETY: the field is read once, and never dropped in place.
        let shared = ManuallyDrop::new(unsafe { shared.read() });
        let stack = NonNull::from(&shared.stack);
        // SAFETY: the guard owns the slot, and through its `Arc` the pool; it is gone after this.
        let returned = unsafe { Stack::push(stack, this.slot, storage) };
        if let Err(storage) = returned {
            let _last = ManuallyDrop::into_inner(shared);
            drop(storage);
        }
    }
}

/// Equal blocks, all allocated at the start and reused without a lock.
///
/// It serves requests of exactly the block size, so that nothing is wasted, and reports
/// [`StorageError::PoolExhausted`] when all blocks are in use. Blocks can outlive the pool.
///
/// ```
/// use core_alloc::{FixedPool, StorageAllocator, StorageError, SystemAllocator};
///
/// let pool = FixedPool::new(&SystemAllocator, 4096, 2)?;
/// let first = pool.allocate(4096)?;
/// let second = pool.allocate(4096)?;
/// assert!(matches!(pool.allocate(4096), Err(StorageError::PoolExhausted { .. })));
/// drop(first);
/// assert_eq!(pool.available(), 1);
/// # drop(second);
/// # Ok::<(), StorageError>(())
/// ```
#[derive(Debug)]
pub struct FixedPool<S: Storage> {
    shared: Arc<Shared<S>>,
}

impl<S: Storage> FixedPool<S> {
    /// Allocates `blocks` blocks of `block_bytes` from `inner`, which is not needed afterwards.
    ///
    /// # Errors
    /// [`StorageError::InvalidConfig`] if there are no or too many blocks, or their size is wrong;
    /// [`StorageError::BrokenContract`] if `inner` returns blocks of another size or a wrong
    /// alignment; otherwise the reason why `inner` can't serve all of them.
    pub fn new<A: StorageAllocator<S> + ?Sized>(
        inner: &A,
        block_bytes: usize,
        blocks: usize,
    ) -> Result<Self, StorageError> {
        let request = Request::new(block_bytes)?;
        check_count(blocks)?;
        let alignment_bytes = inner.alignment_bytes();
        let mut filled = Vec::new();
        for _ in 0..blocks {
            let block = inner.request(request)?;
            let found = match block.address() {
                _ if block.size() != block_bytes => format!("it returned {} bytes", block.size()),
                Some(address) if !address.is_multiple_of(alignment_bytes as u64) => {
                    format!("address {address:#x} is not a multiple of {alignment_bytes}")
                }
                _ => String::new(),
            };
            if !found.is_empty() {
                return Err(broken(block.storage_type(), block_bytes, found));
            }
            // SAFETY: the pool never reads a block, and hands it out as uninitialised.
            filled.push(unsafe { block.assume_init() });
        }
        Self::fill(filled, inner.storage_type(), alignment_bytes)
    }

    /// Takes over blocks of equal size, such as the parts of a [slab](crate::split_slab).
    ///
    /// # Errors
    /// [`StorageError::InvalidConfig`] if there are no or too many blocks;
    /// [`StorageError::BrokenContract`] if their sizes differ.
    pub fn from_blocks(blocks: Vec<S>) -> Result<Self, StorageError> {
        let kind = blocks.first().map_or(StorageType::System, S::storage_type);
        let common = blocks
            .iter()
            .filter_map(S::as_addressable)
            .fold(0, |bits, block| bits | block.addr());
        // The lowest bit that any address has set; without addresses, nothing is promised.
        let alignment = 1u64 << common.trailing_zeros().min(48);
        let alignment_bytes = match common {
            0 => 1,
            _ => usize::try_from(alignment).unwrap_or(1),
        };
        Self::fill(blocks, kind, alignment_bytes)
    }

    fn fill(
        blocks: Vec<S>,
        kind: StorageType,
        alignment_bytes: usize,
    ) -> Result<Self, StorageError> {
        let count = check_count(blocks.len())?;
        let block_bytes = blocks.first().map_or(0, S::size);
        Request::new(block_bytes)?;
        let shared = Arc::new(Shared {
            stack: Stack::new(),
            slots: Slots::new(count),
            block_bytes,
            blocks: blocks.len(),
            kind,
            alignment_bytes,
            exhausted: AtomicU64::new(0),
        });
        let pool = Self { shared };
        for storage in blocks {
            if storage.size() != block_bytes {
                let found = format!("one block has {} bytes", storage.size());
                return Err(broken(storage.storage_type(), block_bytes, found));
            }
            let Some(slot) = pool.shared.slots.acquire(0) else {
                return Err(too_many(blocks_max()));
            };
            // To give a fresh block back is how it gets onto the stack.
            let shared = Arc::clone(&pool.shared);
            FixedReturn { shared, slot }.give_back(storage);
        }
        Ok(pool)
    }

    /// The size of each block in bytes.
    pub fn block_bytes(&self) -> usize {
        self.shared.block_bytes
    }

    /// The number of blocks, in use or not.
    pub fn blocks(&self) -> usize {
        self.shared.blocks
    }

    /// The number of blocks that wait. Walks all blocks; exact while no other thread uses the pool.
    pub fn available(&self) -> usize {
        let mut waiting = 0;
        self.shared.slots.waiting(|_| waiting += 1);
        waiting
    }

    /// Requests that found all blocks in use.
    pub fn exhausted(&self) -> u64 {
        self.shared.exhausted.load(Ordering::Acquire)
    }

    /// A block, if one waits.
    #[inline]
    pub fn take(&self) -> Option<Uninit<FixedBlock<S>>> {
        let shared = &self.shared;
        // SAFETY: all slots on the stack are those of the pool.
        let (slot, storage) = unsafe { shared.stack.pop(&shared.slots) }?;
        // SAFETY: the block that was just taken forgot its own `Arc` when it was put on the stack.
        let shared = unsafe { Arc::from_raw(Arc::as_ptr(shared)) };
        let size = shared.block_bytes;
        Some(Uninit::new(Guarded::new(
            storage,
            size,
            FixedReturn { shared, slot },
        )))
    }

    fn refuse(&self, request: Request) -> StorageError {
        let shared = &self.shared;
        if request.size() != shared.block_bytes {
            return StorageError::InvalidConfig {
                field: "size",
                reason: format!(
                    "{} bytes were asked for, this pool has blocks of exactly {}",
                    request.size(),
                    shared.block_bytes
                ),
            };
        }
        shared.exhausted.fetch_add(1, Ordering::AcqRel);
        StorageError::PoolExhausted {
            kind: shared.kind,
            block_bytes: shared.block_bytes,
            blocks: shared.blocks,
        }
    }
}

impl<S: Storage> Drop for FixedPool<S> {
    fn drop(&mut self) {
        // SAFETY: all slots on the stack are those of the pool.
        let waiting = unsafe { self.shared.stack.close(&self.shared.slots) };
        for (_, storage) in waiting {
            // SAFETY: a block that waits forgot its own `Arc` when it was put on the stack.
            let _hold = unsafe { Arc::from_raw(Arc::as_ptr(&self.shared)) };
            drop(storage);
        }
    }
}

impl<S: Storage> StorageAllocator<FixedBlock<S>> for FixedPool<S> {
    fn storage_type(&self) -> StorageType {
        self.shared.kind
    }

    fn alignment_bytes(&self) -> usize {
        self.shared.alignment_bytes
    }

    #[inline]
    fn request(&self, request: Request) -> Result<Uninit<FixedBlock<S>>, StorageError> {
        let taken = match request.size() == self.shared.block_bytes {
            true => self.take(),
            false => None,
        };
        taken.ok_or_else(|| self.refuse(request))
    }
}

fn blocks_max() -> usize {
    usize::try_from(SLOTS_MAX).unwrap_or(usize::MAX)
}

fn check_count(blocks: usize) -> Result<u32, StorageError> {
    match u32::try_from(blocks) {
        Ok(count @ 1..=SLOTS_MAX) => Ok(count),
        _ => Err(too_many(blocks)),
    }
}

fn too_many(blocks: usize) -> StorageError {
    StorageError::InvalidConfig {
        field: "blocks",
        reason: format!("{blocks} is not from 1 to {SLOTS_MAX}"),
    }
}

fn broken(kind: StorageType, requested_bytes: usize, broken: String) -> StorageError {
    StorageError::BrokenContract {
        kind,
        requested_bytes,
        broken,
    }
}
