//! Aligned memory that is used again.

use std::sync::Arc;

use core_alloc::{Guarded, Pool, PoolConfig, Pooled, StorageAllocator, StorageError};
#[cfg(target_os = "linux")]
use core_alloc::{HugePageAllocator, MappedStorage, Pages};
#[cfg(not(target_os = "linux"))]
use core_alloc::{SystemAllocator, SystemStorage};
use core_view::BufferMut;

use super::memory::{Budget, MemoryKind, Reservation};
use crate::NvmeError;
use crate::format::PAGE_BYTES;

/// Bytes that are kept for reuse at most, whatever the limit allows.
const KEPT_BYTES_MAX: u64 = 64 << 20;

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
    _kept: Reservation,
}

impl Buffers {
    pub(super) fn new(budget: Arc<Budget>) -> Result<Self, NvmeError> {
        let kept_bytes = KEPT_BYTES_MAX.min(budget.share_bytes(MemoryKind::Buffers) / 8);
        let config = PoolConfig::default()
            .with_retained_max_bytes(kept_bytes as usize)
            .with_block_max_bytes((kept_bytes as usize / 4).max(PAGE_BYTES));
        let pool = Pool::with_config(source()?, config).map_err(unavailable)?;
        let kept = budget.try_reserve(MemoryKind::Buffers, kept_bytes)?;
        Ok(Self {
            pool,
            budget,
            _kept: kept,
        })
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
        let share = self.budget.try_reserve(kind, bytes as u64)?;
        let block = self.take(bytes)?;
        Ok(BufferMut::from_storage(Guarded::new(block, bytes, share)))
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
    fn the_limit_holds_with_every_buffer_out() {
        let limit = 16 << 20;
        let buffers = Buffers::new(Budget::new(limit)).unwrap();
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
