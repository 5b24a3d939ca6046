//! Aligned system memory.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::{
    AddressableStorage, HostStorage, Storage, StorageAllocator, StorageError, StorageMemset,
    StorageType, Uninit,
};

const DEFAULT_ALIGNMENT_BYTES: usize = 128;

/// Pageable host memory.
#[derive(Debug)]
pub struct SystemStorage {
    pointer: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the allocation is owned by this value alone.
unsafe impl Send for SystemStorage {}
// SAFETY: `&SystemStorage` gives only shared access to the bytes.
unsafe impl Sync for SystemStorage {}

impl Drop for SystemStorage {
    fn drop(&mut self) {
        // SAFETY: pointer and layout are those of the one allocation made for this value.
        unsafe { dealloc(self.pointer.as_ptr(), self.layout) };
    }
}

impl Storage for SystemStorage {
    fn storage_type(&self) -> StorageType {
        StorageType::System
    }

    fn size(&self) -> usize {
        self.layout.size()
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

// SAFETY: the allocation does not move while the value lives.
unsafe impl AddressableStorage for SystemStorage {
    fn addr(&self) -> u64 {
        self.pointer.as_ptr().addr() as u64
    }
}

// SAFETY: the allocation is host memory of `layout.size()` bytes.
unsafe impl HostStorage for SystemStorage {
    fn as_ptr(&self) -> *const u8 {
        self.pointer.as_ptr()
    }

    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.pointer.as_ptr()
    }
}

impl StorageMemset for SystemStorage {
    fn memset(&mut self, value: u8, offset: usize, len: usize) -> Result<(), StorageError> {
        let size_bytes = self.size();
        if offset.checked_add(len).is_none_or(|end| end > size_bytes) {
            return Err(StorageError::OutOfBounds {
                offset_bytes: offset,
                len_bytes: len,
                size_bytes,
            });
        }
        // SAFETY: the range was checked to lie inside the allocation.
        let start = unsafe { self.pointer.as_ptr().add(offset) };
        // SAFETY: as above; the memory is writable and this value's alone.
        unsafe { start.write_bytes(value, len) };
        Ok(())
    }
}

/// Allocates aligned system memory.
#[derive(Debug, Clone, Copy)]
pub struct SystemAllocator {
    alignment_bytes: usize,
}

impl Default for SystemAllocator {
    fn default() -> Self {
        Self {
            alignment_bytes: DEFAULT_ALIGNMENT_BYTES,
        }
    }
}

impl SystemAllocator {
    /// An allocator whose blocks start at multiples of `alignment_bytes`.
    ///
    /// # Errors
    /// [`StorageError::InvalidConfig`] if the alignment is not a power of two.
    pub fn with_alignment(alignment_bytes: usize) -> Result<Self, StorageError> {
        if !alignment_bytes.is_power_of_two() {
            return Err(StorageError::InvalidConfig {
                field: "alignment_bytes",
                reason: format!("{alignment_bytes} is not a power of two"),
            });
        }
        Ok(Self { alignment_bytes })
    }

    fn allocate_with(
        self,
        size: usize,
        allocate: unsafe fn(Layout) -> *mut u8,
    ) -> Result<SystemStorage, StorageError> {
        let layout = Layout::from_size_align(size, self.alignment_bytes)
            .ok()
            .filter(|layout| layout.size() > 0)
            .ok_or_else(|| StorageError::InvalidConfig {
                field: "size",
                reason: format!("{size} bytes can't be allocated"),
            })?;
        // SAFETY: the layout's size is not zero.
        let pointer = unsafe { allocate(layout) };
        let pointer = NonNull::new(pointer).ok_or(StorageError::AllocationFailed {
            kind: StorageType::System,
            requested_bytes: size,
            alignment_bytes: self.alignment_bytes,
            available_bytes: None,
            source: None,
        })?;
        Ok(SystemStorage { pointer, layout })
    }
}

impl StorageAllocator<SystemStorage> for SystemAllocator {
    fn allocate_uninit(&self, size: usize) -> Result<Uninit<SystemStorage>, StorageError> {
        self.allocate_with(size, alloc).map(Uninit::new)
    }

    fn allocate(&self, size: usize) -> Result<SystemStorage, StorageError> {
        self.allocate_with(size, alloc_zeroed)
    }
}
