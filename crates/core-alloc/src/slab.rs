//! One allocation, split into equal parts.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::storage::set_bytes;
use crate::{AddressableStorage, HostStorage, Storage, StorageError, StorageMemset, StorageType};

/// A part of a host storage that was split; the whole is freed when the last part is gone.
pub struct SlabPart<S: HostStorage> {
    pointer: NonNull<u8>,
    size: usize,
    whole: Arc<S>,
}

// SAFETY: the part's bytes are reached through this value alone, and the whole is `Send + Sync`.
unsafe impl<S: HostStorage> Send for SlabPart<S> {}
// SAFETY: `&SlabPart` gives only shared access to the bytes.
unsafe impl<S: HostStorage> Sync for SlabPart<S> {}

/// Splits a storage into parts of `part_bytes`; what remains at the end is not used.
///
/// This is how many small blocks share huge pages or one registration, for a
/// [`FixedPool`](crate::FixedPool).
///
/// ```
/// use core_alloc::{FixedPool, HugePageAllocator, StorageAllocator, split_slab};
///
/// let slab = HugePageAllocator::default().allocate(2 << 20)?;
/// let pool = FixedPool::from_blocks(split_slab(slab, 64 << 10)?)?;
/// assert_eq!(pool.blocks(), 32);
/// # Ok::<(), core_alloc::StorageError>(())
/// ```
///
/// # Errors
/// [`StorageError::InvalidConfig`] if `part_bytes` is zero or larger than the storage.
pub fn split_slab<S: HostStorage>(
    mut whole: S,
    part_bytes: usize,
) -> Result<Vec<SlabPart<S>>, StorageError> {
    let size = whole.size();
    let invalid = |reason| StorageError::InvalidConfig {
        field: "part_bytes",
        reason,
    };
    if part_bytes == 0 || part_bytes > size {
        return Err(invalid(format!("{part_bytes} is not from 1 to {size}")));
    }
    let base = NonNull::new(whole.as_mut_ptr())
        .ok_or_else(|| invalid("the storage has no pointer".to_owned()))?;
    let whole = Arc::new(whole);
    let parts = (0..size / part_bytes).map(|index| SlabPart {
        // SAFETY: the part lies inside the storage, because the index is below `size / part_bytes`.
        pointer: unsafe { base.add(index * part_bytes) },
        size: part_bytes,
        whole: Arc::clone(&whole),
    });
    Ok(parts.collect())
}

impl<S: HostStorage> fmt::Debug for SlabPart<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlabPart")
            .field("pointer", &self.pointer)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl<S: HostStorage> Storage for SlabPart<S> {
    fn storage_type(&self) -> StorageType {
        self.whole.storage_type()
    }

    fn size(&self) -> usize {
        self.size
    }

    fn as_addressable(&self) -> Option<&dyn AddressableStorage> {
        Some(self)
    }

    fn as_host(&self) -> Option<&dyn HostStorage> {
        Some(self)
    }

    fn as_host_mut(&mut self) -> Option<&mut dyn HostStorage> {
        Some(self)
    }

    fn as_memset(&mut self) -> Option<&mut dyn StorageMemset> {
        Some(self)
    }
}

// SAFETY: parts are disjoint, nobody reaches the whole any more, and it lives as long as a part does.
unsafe impl<S: HostStorage> AddressableStorage for SlabPart<S> {
    fn addr(&self) -> u64 {
        self.pointer.addr().get() as u64
    }
}

// SAFETY: as for `AddressableStorage`; the whole's contract makes the bytes valid.
unsafe impl<S: HostStorage> HostStorage for SlabPart<S> {
    fn as_ptr(&self) -> *const u8 {
        self.pointer.as_ptr()
    }

    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.pointer.as_ptr()
    }
}

impl<S: HostStorage> StorageMemset for SlabPart<S> {
    fn memset(&mut self, value: u8, offset: usize, len: usize) -> Result<(), StorageError> {
        set_bytes(self, value, offset, len)
    }
}
