//! Memory that tells when it is freed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use core_alloc::{
    AddressableStorage, HostStorage, Storage, StorageAllocator, StorageType, SystemAllocator,
    SystemStorage,
};
use core_view::BufferMut;

use crate::NvmeError;

/// System memory that counts how often it was freed.
#[derive(Debug)]
struct CountedStorage {
    memory: SystemStorage,
    freed: Arc<AtomicUsize>,
}

impl Drop for CountedStorage {
    fn drop(&mut self) {
        self.freed.fetch_add(1, Ordering::AcqRel);
    }
}

impl Storage for CountedStorage {
    fn storage_type(&self) -> StorageType {
        self.memory.storage_type()
    }

    fn size(&self) -> usize {
        self.memory.size()
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
}

// SAFETY: the address is that of the memory inside, which promises the same.
unsafe impl AddressableStorage for CountedStorage {
    fn addr(&self) -> u64 {
        self.memory.addr()
    }
}

// SAFETY: the pointers are those of the memory inside, which promises the same.
unsafe impl HostStorage for CountedStorage {
    fn as_ptr(&self) -> *const u8 {
        self.memory.as_ptr()
    }

    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.memory.as_mut_ptr()
    }
}

/// A buffer that adds one to `freed` when its memory is freed.
pub(super) fn buffer(
    len_bytes: usize,
    alignment_bytes: usize,
    freed: &Arc<AtomicUsize>,
) -> Result<BufferMut, NvmeError> {
    let memory = SystemAllocator::with_alignment(alignment_bytes.max(128))
        .and_then(|allocator| allocator.allocate(len_bytes))
        .map_err(|error| NvmeError::Invalid {
            field: "buffer",
            reason: error.to_string(),
        })?;
    Ok(BufferMut::from_storage(CountedStorage {
        memory,
        freed: Arc::clone(freed),
    }))
}
