//! The largest pages that can be had.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::mapped::{map_failed, page_bytes, whole_pages};
use crate::{
    Alignment, MappedStorage, Pages, Request, StorageAllocator, StorageError, StorageType, Uninit,
};

/// What a [`HugePageAllocator`] got, and why not better.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HugePageReport {
    /// Storages on reserved huge pages.
    pub huge_count: u64,
    /// Storages that the kernel was asked to back by huge pages.
    pub transparent_count: u64,
    /// Storages on base pages, those smaller than a huge page included.
    pub base_count: u64,
    /// Why the first storage that missed reserved huge pages did so.
    pub huge_refused: Option<String>,
    /// Why the first storage that missed transparent huge pages did so.
    pub transparent_refused: Option<String>,
}

#[derive(Debug, Default)]
struct Tally {
    huge: AtomicU64,
    transparent: AtomicU64,
    base: AtomicU64,
    huge_refused: OnceLock<String>,
    transparent_refused: OnceLock<String>,
}

/// Maps memory on the largest pages that can be had: reserved huge pages (`MAP_HUGETLB`), else
/// memory aligned to 2 MiB with the kernel told to use huge pages (`MADV_HUGEPAGE`), else base pages.
///
/// Storage smaller than 2 MiB goes straight to base pages. Which rung each storage is on is in
/// [`MappedStorage::pages`]; the counts, and the reason for the first fall from each rung, are in
/// [`HugePageAllocator::report`]. Clones share their counts.
///
/// ```
/// use core_alloc::{HugePageAllocator, Pages, StorageAllocator};
///
/// let allocator = HugePageAllocator::default();
/// let storage = allocator.allocate(4 << 20)?;
/// let report = allocator.report();
/// match storage.pages() {
///     Pages::Huge => assert_eq!(report.huge_count, 1),
///     _ => assert!(report.huge_refused.is_some()),
/// }
/// # Ok::<(), core_alloc::StorageError>(())
/// ```
#[derive(Debug, Clone)]
pub struct HugePageAllocator {
    top: Pages,
    tally: Arc<Tally>,
}

impl Default for HugePageAllocator {
    fn default() -> Self {
        Self::from_rung(Pages::Huge)
    }
}

impl HugePageAllocator {
    /// Starts at a lower rung of the ladder.
    pub fn from_rung(top: Pages) -> Self {
        Self {
            top,
            tally: Arc::default(),
        }
    }

    /// What was got so far.
    pub fn report(&self) -> HugePageReport {
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        HugePageReport {
            huge_count: read(&self.tally.huge),
            transparent_count: read(&self.tally.transparent),
            base_count: read(&self.tally.base),
            huge_refused: self.tally.huge_refused.get().cloned(),
            transparent_refused: self.tally.transparent_refused.get().cloned(),
        }
    }

    fn climb(&self, size: usize) -> Result<MappedStorage, StorageError> {
        let huge = Alignment::HUGE_PAGE;
        let rounded = huge.round_up(size).filter(|_| size >= huge.bytes());
        if let Some(rounded) = rounded {
            if self.top == Pages::Huge {
                match map_huge(size, rounded) {
                    Ok(storage) => return Ok(storage),
                    Err(error) => _ = self.tally.huge_refused.get_or_init(|| error.to_string()),
                }
            }
            if self.top <= Pages::Transparent {
                match map_transparent(size) {
                    Ok(storage) => return Ok(storage),
                    Err(error) => {
                        _ = self
                            .tally
                            .transparent_refused
                            .get_or_init(|| error.to_string());
                    }
                }
            }
        }
        let page = page_bytes();
        let mapped = whole_pages(size, page)?;
        MappedStorage::map(size, mapped, Alignment::new(page)?, Pages::Base, 0)
            .map_err(|source| map_failed(size, page, source))
    }
}

fn map_huge(size: usize, mapped_bytes: usize) -> io::Result<MappedStorage> {
    let flags = libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
    MappedStorage::map(size, mapped_bytes, Alignment::HUGE_PAGE, Pages::Huge, flags)
}

fn map_transparent(size: usize) -> io::Result<MappedStorage> {
    if !transparent_allowed() {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "transparent huge pages are switched off on this system",
        ));
    }
    // Only whole base pages stay mapped: the tail that fills no huge page should not cost one.
    let mapped = whole_pages(size, page_bytes()).map_err(io::Error::other)?;
    let storage = MappedStorage::map(size, mapped, Alignment::HUGE_PAGE, Pages::Transparent, 0)?;
    storage.advise(libc::MADV_HUGEPAGE)?;
    Ok(storage)
}

/// Whether the kernel heeds the advice; it accepts it also where it is set to ignore it.
fn transparent_allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| {
        std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
            .is_ok_and(|modes| !modes.contains("[never]"))
    })
}

impl StorageAllocator<MappedStorage> for HugePageAllocator {
    fn storage_type(&self) -> StorageType {
        StorageType::System
    }

    /// A base page, the least of the ladder.
    fn alignment_bytes(&self) -> usize {
        page_bytes()
    }

    fn request(&self, request: Request) -> Result<Uninit<MappedStorage>, StorageError> {
        let storage = self.climb(request.size())?;
        let counter = match storage.pages() {
            Pages::Huge => &self.tally.huge,
            Pages::Transparent => &self.tally.transparent,
            Pages::Base => &self.tally.base,
        };
        counter.fetch_add(1, Ordering::AcqRel);
        // SAFETY: the kernel hands out anonymous pages as zero.
        Ok(unsafe { Uninit::new_zeroed(storage) })
    }
}
