//! Page-aligned memory for chunks, reused.

use core_alloc::{Pool, PoolConfig, Pooled, StorageAllocator, SystemAllocator, SystemStorage};
use core_view::BufferMut;

use crate::WeightError;

const PAGE_LEN: usize = 4096;
/// Below this, memory comes from the heap: such values are packed, not written from where they are.
const POOLED_LEN_MIN: usize = PAGE_LEN;
/// Idle memory that is kept.
const RETAINED_BYTES_MAX: usize = 96 << 20;

/// Where chunk buffers come from and, when they are dropped, go back to.
pub(super) struct Buffers {
    pool: Pool<SystemAllocator, SystemStorage>,
}

impl std::fmt::Debug for Buffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Buffers").field(&self.pool.usage()).finish()
    }
}

impl Buffers {
    pub(super) fn new() -> Result<Self, WeightError> {
        let refused = |error| WeightError::storage("set up its buffers", error);
        let pages = SystemAllocator::with_alignment(PAGE_LEN).map_err(refused)?;
        let config = PoolConfig::default().with_retained_max_bytes(RETAINED_BYTES_MAX);
        let pool = Pool::with_config(pages, config).map_err(refused)?;
        Ok(Self { pool })
    }

    /// `len` bytes of unspecified content, on a page boundary unless they are less than a page.
    pub(super) fn take(&self, len: usize) -> Result<BufferMut, WeightError> {
        if len < POOLED_LEN_MIN {
            return Ok(BufferMut::from_vec(vec![0; len]));
        }
        let block: Pooled<SystemStorage> = self
            .pool
            .allocate(len.next_multiple_of(PAGE_LEN))
            .map_err(|_| WeightError::OutOfMemory {
                what: "a chunk".into(),
                requested_bytes: len as u64,
            })?;
        let mut buffer = BufferMut::from_storage(block);
        drop(buffer.split_off(len));
        Ok(buffer)
    }
}
