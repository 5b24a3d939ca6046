//! Counts of what is in use, per kind of storage.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    Guard, Guarded, Request, Storage, StorageAllocator, StorageError, StorageType, Uninit,
};

/// Storage that is counted by a [`Stats`] until it is dropped.
pub type Counted<S> = Guarded<S, Entry>;

/// Devices with an ordinal below this are counted one by one, the others together.
const DEVICES: usize = 32;

/// What a [`Stats`] counted, of one kind of storage or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use now.
    pub current_bytes: u64,
    /// The most bytes that were in use at once.
    pub peak_bytes: u64,
    /// Bytes handed out so far.
    pub total_bytes: u64,
    /// Storages in use now.
    pub current_count: u64,
    /// Storages handed out so far.
    pub total_count: u64,
    /// Requests that failed so far.
    pub failed_count: u64,
}

/// Bytes in use now, and at the most.
#[derive(Debug, Default)]
struct Level {
    current_bytes: AtomicU64,
    peak_bytes: AtomicU64,
}

impl Level {
    fn raise(&self, bytes: u64) {
        let current = self.current_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        if current > self.peak_bytes.load(Ordering::Acquire) {
            self.peak_bytes.fetch_max(current, Ordering::AcqRel);
        }
    }

    fn lower(&self, bytes: u64) {
        self.current_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

#[derive(Debug, Default)]
struct Tally {
    level: Level,
    total_bytes: AtomicU64,
    total_count: AtomicU64,
    released_count: AtomicU64,
    failed_count: AtomicU64,
}

impl Tally {
    fn add(&self, bytes: u64) {
        self.level.raise(bytes);
        self.total_bytes.fetch_add(bytes, Ordering::AcqRel);
        self.total_count.fetch_add(1, Ordering::AcqRel);
    }

    fn remove(&self, bytes: u64) {
        self.level.lower(bytes);
        self.released_count.fetch_add(1, Ordering::AcqRel);
    }

    fn usage(&self) -> Usage {
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        // In this order, so that no more is seen to be released than was handed out.
        let released_count = read(&self.released_count);
        let total_count = read(&self.total_count);
        Usage {
            current_bytes: read(&self.level.current_bytes),
            peak_bytes: read(&self.level.peak_bytes),
            total_bytes: read(&self.total_bytes),
            current_count: total_count.saturating_sub(released_count),
            total_count,
            failed_count: read(&self.failed_count),
        }
    }
}

#[derive(Debug, Default)]
struct Book {
    all: Level,
    system: Tally,
    pinned: Tally,
    disk: Tally,
    remote: Tally,
    null: Tally,
    devices: [Tally; DEVICES],
    other_devices: Tally,
}

impl Book {
    fn of(&self, kind: StorageType) -> &Tally {
        match kind {
            StorageType::System => &self.system,
            StorageType::Pinned => &self.pinned,
            StorageType::Disk(_) => &self.disk,
            StorageType::Nixl => &self.remote,
            StorageType::Null => &self.null,
            StorageType::Device(ordinal) => usize::try_from(ordinal)
                .ok()
                .and_then(|ordinal| self.devices.get(ordinal))
                .unwrap_or(&self.other_devices),
        }
    }

    /// The sums over all kinds; the peak is that of the sum.
    fn all(&self) -> Usage {
        let kinds = [
            &self.system,
            &self.pinned,
            &self.disk,
            &self.remote,
            &self.null,
        ];
        let others = self.devices.iter().chain([&self.other_devices]);
        let sum = |sum: Usage, kind: &Tally| {
            let usage = kind.usage();
            Usage {
                total_bytes: sum.total_bytes + usage.total_bytes,
                current_count: sum.current_count + usage.current_count,
                total_count: sum.total_count + usage.total_count,
                failed_count: sum.failed_count + usage.failed_count,
                ..sum
            }
        };
        let start = Usage {
            current_bytes: self.all.current_bytes.load(Ordering::Acquire),
            peak_bytes: self.all.peak_bytes.load(Ordering::Acquire),
            ..Usage::default()
        };
        kinds.into_iter().chain(others).fold(start, sum)
    }
}

/// A line in the books of a [`Stats`]; dropping it takes its bytes out of the current ones.
#[derive(Debug)]
pub struct Entry {
    book: Arc<Book>,
    kind: StorageType,
    bytes: u64,
}

impl<S> Guard<S> for Entry {}

impl Drop for Entry {
    fn drop(&mut self) {
        self.book.of(self.kind).remove(self.bytes);
        self.book.all.lower(self.bytes);
    }
}

/// Counts what is handed out and given back, in all and per kind.
///
/// ```
/// use core_alloc::{Stats, StorageAllocator, StorageType, SystemAllocator};
///
/// let stats = Stats::new(SystemAllocator);
/// let storage = stats.allocate(4096)?;
/// drop(storage);
/// let usage = stats.of(StorageType::System);
/// assert_eq!((usage.current_bytes, usage.peak_bytes), (0, 4096));
/// # Ok::<(), core_alloc::StorageError>(())
/// ```
#[derive(Debug)]
pub struct Stats<A> {
    inner: A,
    book: Arc<Book>,
}

impl<A> Stats<A> {
    /// Counts what `inner` hands out.
    pub fn new(inner: A) -> Self {
        Self {
            inner,
            book: Arc::default(),
        }
    }

    /// The counts over all kinds. Each is exact; together they are a snapshot only while no other
    /// thread allocates.
    pub fn all(&self) -> Usage {
        self.book.all()
    }

    /// The counts of one kind. Disk regions are counted together, whatever their payload, and so are
    /// devices with an ordinal of 32 or more.
    pub fn of(&self, kind: StorageType) -> Usage {
        self.book.of(kind).usage()
    }

    /// The allocator that is counted.
    pub fn inner(&self) -> &A {
        &self.inner
    }

    fn enter(&self, kind: StorageType, bytes: u64) -> Entry {
        self.book.of(kind).add(bytes);
        self.book.all.raise(bytes);
        Entry {
            book: Arc::clone(&self.book),
            kind,
            bytes,
        }
    }
}

impl<S: Storage, A: StorageAllocator<S>> StorageAllocator<Counted<S>> for Stats<A> {
    fn storage_type(&self) -> StorageType {
        self.inner.storage_type()
    }

    fn alignment_bytes(&self) -> usize {
        self.inner.alignment_bytes()
    }

    fn request(&self, request: Request) -> Result<Uninit<Counted<S>>, StorageError> {
        match self.inner.request(request) {
            Ok(storage) => {
                let size = storage.size();
                let entry = self.enter(storage.storage_type(), size as u64);
                // SAFETY: the guard reads nothing and covers the same bytes.
                Ok(unsafe { storage.map(|storage| Guarded::new(storage, size, entry)) })
            }
            Err(error) => {
                let tally = self.book.of(self.inner.storage_type());
                tally.failed_count.fetch_add(1, Ordering::AcqRel);
                Err(error)
            }
        }
    }
}
