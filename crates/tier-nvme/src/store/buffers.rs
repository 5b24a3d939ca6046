//! Aligned memory that is used again.

use std::sync::Arc;

#[cfg(not(target_os = "linux"))]
use core_alloc::SystemStorage;
use core_alloc::{
    Guarded, Pool, PoolConfig, Pooled, StorageAllocator, StorageError, SystemAllocator,
};
#[cfg(target_os = "linux")]
use core_alloc::{HugePageAllocator, MappedStorage, Pages};
use core_view::BufferMut;

use super::memory::{Budget, MemoryKind, Reservation};
use crate::NvmeError;
use crate::format::PAGE_BYTES;

/// Bytes that are kept for reuse at most, whatever the limit allows.
const KEPT_BYTES_MAX: u64 = 64 << 20;

/// What starts where the allocator puts it.
const SMALL_ALIGNMENT_BYTES: usize = 16;
/// Bytes that a value of less than a page takes beside its own: the allocator's, and its owner's.
const SMALL_OVERHEAD_BYTES: usize = 128;

/// Bytes that a copy of less than a page takes.
pub(super) fn small_bytes(len_bytes: usize) -> u64 {
    (len_bytes.next_multiple_of(SMALL_ALIGNMENT_BYTES) + SMALL_OVERHEAD_BYTES) as u64
}

#[cfg(target_os = "linux")]
type Block = MappedStorage;
#[cfg(target_os = "linux")]
type Source = HugePageAllocator;
#[cfg(not(target_os = "linux"))]
type Block = SystemStorage;
#[cfg(not(target_os = "linux"))]
type Source = SystemAllocator;

/// Hands out buffers that start on a page, under the store's limit.
///
/// Memory that was used before is used again: the first touch of a fresh page costs many times what it
/// takes to write it to a device. What waits for reuse is bounded, and counted as if it were all there.
#[derive(Debug)]
pub(super) struct Buffers {
    pool: Pool<Source, Block>,
    budget: Arc<Budget>,
    kept_bytes: u64,
    kept: Option<Reservation>,
}

impl Buffers {
    pub(super) fn new(budget: Arc<Budget>) -> Result<Self, NvmeError> {
        let kept_bytes = KEPT_BYTES_MAX.min(budget.share_bytes(MemoryKind::Buffers) / 8);
        let config = PoolConfig::default()
            .with_retained_max_bytes(kept_bytes as usize)
            .with_block_max_bytes((kept_bytes as usize / 4).max(PAGE_BYTES));
        let pool = Pool::with_config(source()?, config).map_err(unavailable)?;
        Ok(Self {
            pool,
            budget,
            kept_bytes,
            kept: None,
        })
    }

    /// Counts what waits for reuse from here on: while a store is opened, its index may need that more.
    ///
    /// # Errors
    /// [`NvmeError::MemoryLimit`].
    pub(super) fn count_kept(&mut self) -> Result<(), NvmeError> {
        if self.kept.is_none() {
            let kept = self
                .budget
                .try_reserve(MemoryKind::Buffers, self.kept_bytes)?;
            self.kept = Some(kept);
        }
        Ok(())
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// `len_bytes` of any contents, rounded up to whole pages, which count as `kind` until they are
    /// dropped.
    ///
    /// # Errors
    /// [`NvmeError::MemoryLimit`]; [`NvmeError::Transfer`] if the system has no memory.
    pub(super) fn lend(&self, kind: MemoryKind, len_bytes: usize) -> Result<BufferMut, NvmeError> {
        if len_bytes == 0 {
            return Ok(BufferMut::from_vec(Vec::new()));
        }
        let whole = len_bytes.checked_next_multiple_of(PAGE_BYTES);
        let bytes = whole.ok_or_else(|| NvmeError::Invalid {
            field: "length",
            reason: format!("{len_bytes} bytes are more than memory has"),
        })?;
        let block_bytes = self.pool.block_bytes(bytes) as u64;
        let share = self.budget.try_reserve(kind, block_bytes)?;
        let block = self.take(bytes)?;
        Ok(BufferMut::from_storage(Guarded::new(block, bytes, share)))
    }

    /// Bytes of memory that a request for `len_bytes` takes.
    pub(super) fn block_bytes(&self, len_bytes: usize) -> usize {
        self.pool
            .block_bytes(len_bytes.next_multiple_of(PAGE_BYTES))
    }

    /// A copy of `bytes` that counts as `kind` until it is dropped; of less than a page, in memory of its own size.
    ///
    /// # Errors
    /// As [`lend`](Self::lend).
    pub(super) fn copy_of(&self, kind: MemoryKind, bytes: &[u8]) -> Result<BufferMut, NvmeError> {
        if bytes.is_empty() {
            return Ok(BufferMut::from_vec(Vec::new()));
        }
        if bytes.len() < PAGE_BYTES {
            let share = self.budget.try_reserve(kind, small_bytes(bytes.len()))?;
            let memory = SystemAllocator::with_alignment(SMALL_ALIGNMENT_BYTES)
                .and_then(|allocator| allocator.allocate_uninit(bytes.len()))
                .and_then(|memory| memory.copy_from(bytes))
                .map_err(unavailable)?;
            let guarded = Guarded::new(memory, bytes.len(), share);
            return Ok(BufferMut::from_storage(guarded));
        }
        let mut copy = self.lend(kind, bytes.len())?;
        drop(copy.split_off(bytes.len()));
        copy.copy_from_slice(bytes);
        Ok(copy)
    }

    /// `len_bytes`, whole pages, of any contents, which the caller has reserved.
    ///
    /// # Errors
    /// [`NvmeError::Transfer`] if the system has no memory.
    pub(super) fn lend_reserved(&self, len_bytes: usize) -> Result<BufferMut, NvmeError> {
        self.take(len_bytes).map(BufferMut::from_storage)
    }

    #[cfg(target_os = "linux")]
    fn take(&self, len_bytes: usize) -> Result<Pooled<Block>, NvmeError> {
        let block = self.pool.allocate_uninit(len_bytes).map_err(unavailable)?;
        // SAFETY: the pool is over mapped memory, whose bytes have a value from the start: the kernel's
        // zeros, or what its last user left.
        Ok(unsafe { block.assume_init() })
    }

    #[cfg(not(target_os = "linux"))]
    fn take(&self, len_bytes: usize) -> Result<Pooled<Block>, NvmeError> {
        self.pool.allocate(len_bytes).map_err(unavailable)
    }
}

#[cfg(target_os = "linux")]
fn source() -> Result<Source, NvmeError> {
    // Huge pages that an administrator set aside are not this store's to take.
    Ok(HugePageAllocator::from_rung(Pages::Transparent))
}

#[cfg(not(target_os = "linux"))]
fn source() -> Result<Source, NvmeError> {
    SystemAllocator::with_alignment(PAGE_BYTES).map_err(unavailable)
}

fn unavailable(error: StorageError) -> NvmeError {
    NvmeError::Transfer(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_used_again_and_counted_once() {
        let buffers = Buffers::new(Budget::new(64 << 20)).unwrap();
        let idle = buffers.budget().stats().used_bytes;
        let mut first = buffers.lend(MemoryKind::Buffers, 1 << 20).unwrap();
        first.fill(7);
        let address = first.as_ptr();
        assert!(first.is_aligned_to(PAGE_BYTES));
        assert_eq!(buffers.budget().stats().used_bytes, idle + (1 << 20));
        drop(first);
        assert_eq!(buffers.budget().stats().used_bytes, idle);
        let second = buffers.lend(MemoryKind::Queue, (1 << 20) - 1).unwrap();
        assert_eq!((second.as_ptr(), second.len()), (address, 1 << 20));
    }

    #[test]
    fn a_copy_counts_with_what_holds_it() {
        let buffers = Buffers::new(Budget::new(64 << 20)).unwrap();
        let idle = buffers.budget().stats().used_bytes;
        let used = || buffers.budget().stats().used_bytes - idle;
        let (small, long) = (vec![1; 100], vec![2; 5000]);
        let copies = [&small, &long].map(|of| buffers.copy_of(MemoryKind::Cache, of).unwrap());
        assert_eq!(copies[0][..], small);
        assert_eq!(copies[1][..], long);
        assert_eq!(used(), small_bytes(100) + 8192);
        let parts = copies.map(|mut copy| copy.split_off(50));
        assert!(used() > 8192, "a part holds all of it");
        drop(parts);
        assert_eq!(used(), 0);
    }

    #[test]
    fn what_the_pool_rounds_up_counts() {
        let buffers = Buffers::new(Budget::new(64 << 20)).unwrap();
        let idle = buffers.budget().stats().used_bytes;
        let _lent = buffers.lend(MemoryKind::Buffers, (1 << 20) + 4096).unwrap();
        let used = buffers.budget().stats().used_bytes - idle;
        assert_eq!(used, (1 << 20) + (1 << 17));
    }

    #[test]
    fn the_limit_holds_with_every_buffer_out() {
        let limit = 16 << 20;
        let mut buffers = Buffers::new(Budget::new(limit)).unwrap();
        buffers.count_kept().unwrap();
        let mut lent = Vec::new();
        let error = loop {
            match buffers.lend(MemoryKind::Buffers, 1 << 20) {
                Ok(buffer) => lent.push(buffer),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, NvmeError::MemoryLimit { .. }), "{error}");
        assert!(lent.len() as u64 <= limit >> 20 && lent.len() > 4);
        assert!(buffers.lend(MemoryKind::Queue, 2 << 20).is_ok());
        let parts = lent.pop().unwrap().split_into(4096);
        drop(lent);
        drop(parts);
        assert!(buffers.lend(MemoryKind::Buffers, 4 << 20).is_ok());
    }
}
