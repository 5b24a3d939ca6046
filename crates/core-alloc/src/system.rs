//! Aligned memory from the global allocator.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::storage::set_bytes;
use crate::{
    AddressableStorage, Alignment, HostStorage, Request, Storage, StorageAllocator, StorageError,
    StorageMemset, StorageType, Uninit,
};

/// From this size on, zeroed memory is aligned by hand inside an unaligned allocation: the global
/// allocator hands out large unaligned memory as fresh zero pages, but writes to every byte when the
/// alignment is more than its own.
const LAZY_ZERO_MIN_BYTES: usize = 256 << 10;

/// The alignment that the global allocator gives without being asked.
const NATURAL_ALIGNMENT_BYTES: usize = 16;

/// Pageable host memory.
///
/// ```
/// use core_alloc::{HostStorage, Storage, StorageMemset, StorageType, SystemStorage};
///
/// let mut storage = SystemStorage::new(4096)?;
/// storage.memset(255, 1000, 100)?;
/// assert_eq!(storage.storage_type(), StorageType::System);
/// assert_eq!(storage.as_slice()[999..1001], [0, 255]);
/// # Ok::<(), core_alloc::StorageError>(())
/// ```
#[derive(Debug)]
pub struct SystemStorage {
    pointer: NonNull<u8>,
    size: usize,
    /// The layout of the allocation; it starts `lead` bytes before `pointer`.
    layout: Layout,
    lead: usize,
}

// SAFETY: the allocation is owned by this value alone.
unsafe impl Send for SystemStorage {}
// SAFETY: `&SystemStorage` gives only shared access to the bytes.
unsafe impl Sync for SystemStorage {}

impl SystemStorage {
    /// Allocates `size` zeroed bytes at the default alignment of 128 bytes.
    ///
    /// # Errors
    /// [`StorageError::InvalidConfig`] for a size of zero or above `isize::MAX`,
    /// [`StorageError::AllocationFailed`] if there is no memory.
    pub fn new(size: usize) -> Result<Self, StorageError> {
        SystemAllocator::default().allocate(size)
    }

    fn from_allocation(
        base: *mut u8,
        layout: Layout,
        size: usize,
        alignment: Alignment,
    ) -> Result<Self, StorageError> {
        let failed = || StorageError::AllocationFailed {
            kind: StorageType::System,
            requested_bytes: size,
            alignment_bytes: alignment.bytes(),
            available_bytes: None,
            source: None,
        };
        let base = NonNull::new(base).ok_or_else(failed)?;
        let lead = base.addr().get().wrapping_neg() & (alignment.bytes() - 1);
        // SAFETY: the allocation is as large as `size` plus the most that aligning can skip.
        let pointer = unsafe { base.add(lead) };
        Ok(Self {
            pointer,
            size,
            layout,
            lead,
        })
    }
}

impl Drop for SystemStorage {
    fn drop(&mut self) {
        // SAFETY: the allocation starts `lead` bytes before the pointer.
        let base = unsafe { self.pointer.sub(self.lead) };
        // SAFETY: base and layout are those of the one allocation made for this value.
        unsafe { dealloc(base.as_ptr(), self.layout) };
    }
}

impl Storage for SystemStorage {
    fn storage_type(&self) -> StorageType {
        StorageType::System
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

// SAFETY: the allocation does not move while the value lives, and belongs to it alone.
unsafe impl AddressableStorage for SystemStorage {
    fn addr(&self) -> u64 {
        self.pointer.addr().get() as u64
    }
}

// SAFETY: the allocation is host memory of at least `size` bytes from the pointer.
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
        set_bytes(self, value, offset, len)
    }
}

/// Allocates aligned system memory, by default at multiples of 128 bytes.
///
/// ```
/// use core_alloc::{AddressableStorage, Alignment, StorageAllocator, SystemAllocator};
///
/// let small = SystemAllocator.allocate(100)?;
/// assert_eq!(small.addr() % 128, 0);
/// let block = SystemAllocator::aligned(Alignment::DIRECT_IO).allocate(1 << 20)?;
/// assert_eq!(block.addr() % 4096, 0);
/// # Ok::<(), core_alloc::StorageError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemAllocator {
    alignment: Alignment,
}

/// The system allocator at the default alignment, to be used like a unit struct.
#[expect(
    non_upper_case_globals,
    reason = "stands for the value of the type of the same name"
)]
pub const SystemAllocator: SystemAllocator = SystemAllocator {
    alignment: Alignment::CACHE_LINES,
};

impl SystemAllocator {
    /// An allocator whose blocks start at multiples of `alignment`.
    pub fn aligned(alignment: Alignment) -> Self {
        Self { alignment }
    }

    /// An allocator whose blocks start at multiples of `alignment_bytes`.
    ///
    /// # Errors
    /// [`StorageError::InvalidConfig`] as [`Alignment::new`].
    pub fn with_alignment(alignment_bytes: usize) -> Result<Self, StorageError> {
        Alignment::new(alignment_bytes).map(Self::aligned)
    }

    fn layout(self, size: usize, alignment_bytes: usize) -> Result<Layout, StorageError> {
        Layout::from_size_align(size, alignment_bytes).map_err(|_| StorageError::InvalidConfig {
            field: "size",
            reason: format!("{size} bytes can't be rounded up to {alignment_bytes}"),
        })
    }

    fn zeroed(self, size: usize) -> Result<SystemStorage, StorageError> {
        let alignment_bytes = self.alignment.bytes();
        let by_hand = alignment_bytes > NATURAL_ALIGNMENT_BYTES
            && size >= LAZY_ZERO_MIN_BYTES.max(alignment_bytes);
        let layout = if by_hand {
            self.layout(
                size.saturating_add(alignment_bytes - NATURAL_ALIGNMENT_BYTES),
                NATURAL_ALIGNMENT_BYTES,
            )?
        } else {
            self.layout(size, alignment_bytes)?
        };
        // SAFETY: the layout's size is not zero, because a request's size is not.
        let base = unsafe { alloc_zeroed(layout) };
        SystemStorage::from_allocation(base, layout, size, self.alignment)
    }
}

impl StorageAllocator<SystemStorage> for SystemAllocator {
    fn storage_type(&self) -> StorageType {
        StorageType::System
    }

    fn alignment_bytes(&self) -> usize {
        self.alignment.bytes()
    }

    fn request(&self, request: Request) -> Result<Uninit<SystemStorage>, StorageError> {
        let size = request.size();
        if request.prefers_zero() {
            let storage = self.zeroed(size)?;
            // SAFETY: the memory was allocated zeroed.
            return Ok(unsafe { Uninit::new_zeroed(storage) });
        }
        let layout = self.layout(size, self.alignment.bytes())?;
        // SAFETY: the layout's size is not zero, because a request's size is not.
        let base = unsafe { alloc(layout) };
        SystemStorage::from_allocation(base, layout, size, self.alignment).map(Uninit::new)
    }
}
