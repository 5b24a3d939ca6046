//! Anonymous memory straight from the operating system.

use std::io;
use std::ptr::NonNull;
use std::sync::OnceLock;

use crate::request::SIZE_MAX_BYTES;
use crate::storage::set_bytes;
use crate::{
    AddressableStorage, Alignment, HostStorage, Request, Storage, StorageAllocator, StorageError,
    StorageMemset, StorageType, Uninit,
};

/// The pages that a [`MappedStorage`] lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Pages {
    /// Huge pages of 2 MiB that were reserved by the administrator.
    Huge,
    /// Aligned to 2 MiB, and the kernel was told to use huge pages where it can.
    Transparent,
    /// Pages of the usual size.
    Base,
}

/// Anonymous memory of its own mapping, unmapped on drop.
#[derive(Debug)]
pub struct MappedStorage {
    pointer: NonNull<u8>,
    size: usize,
    mapped_bytes: usize,
    pages: Pages,
}

// SAFETY: the mapping is owned by this value alone.
unsafe impl Send for MappedStorage {}
// SAFETY: `&MappedStorage` gives only shared access to the bytes.
unsafe impl Sync for MappedStorage {}

impl MappedStorage {
    /// The pages that the memory lies on.
    pub fn pages(&self) -> Pages {
        self.pages
    }

    /// Bytes of the mapping: the size rounded up to whole pages.
    pub fn mapped_bytes(&self) -> usize {
        self.mapped_bytes
    }

    /// Maps at least `size` bytes at a multiple of `alignment`, which is a page or more.
    ///
    /// `mapped_bytes` is the length that stays mapped, a multiple of the page size of `flags`.
    pub(crate) fn map(
        size: usize,
        mapped_bytes: usize,
        alignment: Alignment,
        pages: Pages,
        flags: libc::c_int,
    ) -> io::Result<Self> {
        let natural = match pages {
            Pages::Huge => Alignment::HUGE_PAGE.bytes(),
            Pages::Transparent | Pages::Base => page_bytes(),
        };
        let slack = alignment.bytes().saturating_sub(natural);
        let total = mapped_bytes
            .checked_add(slack)
            .filter(|&total| total <= SIZE_MAX_BYTES)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let base = map_anonymous(total, flags)?;
        let lead = base.addr().get().wrapping_neg() & (alignment.bytes() - 1);
        // SAFETY: the mapping is as long as the part that stays plus the most that aligning skips.
        let pointer = unsafe { base.add(lead) };
        unmap(base, lead);
        // SAFETY: the end of what stays lies inside the mapping or at its end.
        let end = unsafe { pointer.add(mapped_bytes) };
        unmap(end, total - lead - mapped_bytes);
        Ok(Self {
            pointer,
            size,
            mapped_bytes,
            pages,
        })
    }

    /// Tells the kernel how to back the mapping.
    pub(crate) fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        let start = self.pointer.as_ptr().cast::<libc::c_void>();
        // SAFETY: the range is this value's own mapping, and the advice used here changes no contents.
        let code = unsafe { libc::madvise(start, self.mapped_bytes, advice) };
        if code == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

fn map_anonymous(len: usize, flags: libc::c_int) -> io::Result<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no other memory.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
}

/// Unmaps a part of a mapping that nobody has been given yet, or any more.
fn unmap(start: NonNull<u8>, len: usize) {
    if len > 0 {
        // SAFETY: callers pass whole pages of a mapping that they own and that nobody else can reach.
        // It can fail only by running out of kernel memory for the split, and then the pages stay
        // mapped and unused.
        unsafe { libc::munmap(start.as_ptr().cast(), len) };
    }
}

/// The size of a base page in bytes.
pub(crate) fn page_bytes() -> usize {
    static PAGE_BYTES: OnceLock<usize> = OnceLock::new();
    *PAGE_BYTES.get_or_init(|| {
        // SAFETY: asks for a constant of the system.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size)
            .ok()
            .filter(|size| size.is_power_of_two())
            .unwrap_or(4096)
    })
}

impl Drop for MappedStorage {
    fn drop(&mut self) {
        unmap(self.pointer, self.mapped_bytes);
    }
}

impl Storage for MappedStorage {
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

// SAFETY: the mapping does not move while the value lives, and belongs to it alone.
unsafe impl AddressableStorage for MappedStorage {
    fn addr(&self) -> u64 {
        self.pointer.addr().get() as u64
    }
}

// SAFETY: the mapping is readable and writable for at least `size` bytes, and the kernel initialised it.
unsafe impl HostStorage for MappedStorage {
    fn as_ptr(&self) -> *const u8 {
        self.pointer.as_ptr()
    }

    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.pointer.as_ptr()
    }
}

impl StorageMemset for MappedStorage {
    fn memset(&mut self, value: u8, offset: usize, len: usize) -> Result<(), StorageError> {
        set_bytes(self, value, offset, len)
    }
}

/// Maps each storage on its own, from the operating system.
///
/// ```
/// use core_alloc::{MmapAllocator, Pages, StorageAllocator};
///
/// let storage = MmapAllocator::default().with_populate(true).allocate(1 << 20)?;
/// assert_eq!(storage.pages(), Pages::Base);
/// # Ok::<(), core_alloc::StorageError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct MmapAllocator {
    populate: bool,
    base_pages_only: bool,
}

impl MmapAllocator {
    /// Whether all pages are made present at once (`MAP_POPULATE`) rather than at the first touch.
    #[must_use]
    pub fn with_populate(mut self, populate: bool) -> Self {
        self.populate = populate;
        self
    }

    /// Whether the kernel is told not to use huge pages on its own (`MADV_NOHUGEPAGE`).
    #[must_use]
    pub fn with_base_pages_only(mut self, base_pages_only: bool) -> Self {
        self.base_pages_only = base_pages_only;
        self
    }
}

/// The error for a mapping of `size` bytes that could not be had.
pub(crate) fn map_failed(size: usize, alignment_bytes: usize, source: io::Error) -> StorageError {
    StorageError::AllocationFailed {
        kind: StorageType::System,
        requested_bytes: size,
        alignment_bytes,
        available_bytes: None,
        source: Some(source),
    }
}

/// `size` rounded up to whole pages of `page_bytes`.
pub(crate) fn whole_pages(size: usize, page_bytes: usize) -> Result<usize, StorageError> {
    size.checked_next_multiple_of(page_bytes)
        .filter(|&rounded| rounded <= SIZE_MAX_BYTES)
        .ok_or_else(|| StorageError::InvalidConfig {
            field: "size",
            reason: format!("{size} bytes can't be rounded up to pages of {page_bytes}"),
        })
}

impl StorageAllocator<MappedStorage> for MmapAllocator {
    fn storage_type(&self) -> StorageType {
        StorageType::System
    }

    fn alignment_bytes(&self) -> usize {
        page_bytes()
    }

    fn request(&self, request: Request) -> Result<Uninit<MappedStorage>, StorageError> {
        let (size, page) = (request.size(), page_bytes());
        let mapped_bytes = whole_pages(size, page)?;
        // With `MAP_POPULATE` the pages would be there before the advice.
        let late_populate = self.populate && self.base_pages_only;
        let flags = if self.populate && !late_populate {
            libc::MAP_POPULATE
        } else {
            0
        };
        let mut storage = MappedStorage::map(
            size,
            mapped_bytes,
            Alignment::new(page)?,
            Pages::Base,
            flags,
        )
        .map_err(|source| map_failed(size, page, source))?;
        if self.base_pages_only {
            // A kernel without transparent huge pages refuses the advice and needs none.
            let _ = storage.advise(libc::MADV_NOHUGEPAGE);
        }
        // A kernel before 5.14 does not know this advice; writing to the pages does the same.
        if late_populate && storage.advise(libc::MADV_POPULATE_WRITE).is_err() {
            storage.memset(0, 0, size)?;
        }
        // SAFETY: the kernel hands out anonymous pages as zero.
        Ok(unsafe { Uninit::new_zeroed(storage) })
    }
}
