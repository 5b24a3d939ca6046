//! Buffers whose memory is watched beyond their end.

use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use core_alloc::{HostStorage, StorageAllocator, SystemAllocator};

use super::verdict::{PATIENCE, broken};
use crate::{Access, BufferMut, BufferOwner};

/// What freed memory is filled with.
const FREED: u8 = 0xdd;

/// Makes buffers, and keeps the memory of those that were dropped, to see that each is dropped exactly
/// once, and that nobody touches it afterwards.
///
/// ```
/// use core_view::contract::conformance::Quarantine;
///
/// let quarantine = Quarantine::default();
/// let buffer = quarantine.buffer(4096);
/// assert_eq!(quarantine.in_use(), 1);
/// drop(buffer);
/// quarantine.settle(|| {});
/// ```
#[derive(Default)]
pub struct Quarantine(Arc<Ward>);

#[derive(Default)]
struct Ward {
    beds: Mutex<Beds>,
    changed: Condvar,
}

#[derive(Default)]
struct Beds {
    made: usize,
    freed: Vec<Box<dyn HostStorage>>,
}

impl Ward {
    fn lock(&self) -> MutexGuard<'_, Beds> {
        self.beds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The memory of one buffer.
struct Patient {
    storage: Option<Box<dyn HostStorage>>,
    ward: Arc<Ward>,
}

// SAFETY: the storage lives until this is dropped, and nobody else has a pointer to it.
unsafe impl BufferOwner for Patient {
    fn access(&self) -> Access {
        Access::ReadWrite
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        if let Some(mut storage) = self.storage.take() {
            storage.as_mut_slice().fill(FREED);
            self.ward.lock().freed.push(storage);
            self.ward.changed.notify_all();
        }
    }
}

impl Quarantine {
    /// A zeroed buffer of `len` bytes, aligned for direct I/O.
    ///
    /// # Panics
    /// If there is no memory left.
    pub fn buffer(&self, len: usize) -> BufferMut {
        let storage = SystemAllocator::with_alignment(4096)
            .and_then(|allocator| allocator.allocate(len.max(1)));
        let mut storage = storage.map(Box::new).unwrap_or_else(|error| {
            // A suite without memory has nothing to say.
            broken(&error.to_string())
        });
        let start = NonNull::new(storage.as_mut_ptr()).unwrap_or(NonNull::dangling());
        self.0.lock().made += 1;
        let patient = Patient {
            storage: Some(storage),
            ward: Arc::clone(&self.0),
        };
        // SAFETY: `len` initialised bytes from the start of the storage, which its owner does not touch
        // before it is dropped.
        unsafe { BufferMut::from_owner(start, len, Arc::new(patient)) }
    }

    /// A buffer with these bytes.
    ///
    /// # Panics
    /// As [`Quarantine::buffer`].
    pub fn filled(&self, bytes: &[u8]) -> BufferMut {
        let mut buffer = self.buffer(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    /// Number of buffers whose memory is not free.
    pub fn in_use(&self) -> usize {
        let beds = self.0.lock();
        beds.made.saturating_sub(beds.freed.len())
    }

    /// Waits until every buffer was dropped, and checks that nobody has touched one since; `push` is
    /// called again and again meanwhile, for operations that only their waiters push forward.
    ///
    /// # Panics
    /// If a buffer is not dropped in time, is dropped twice, or was written after it was dropped.
    pub fn settle(&self, mut push: impl FnMut()) {
        let until = Instant::now() + PATIENCE;
        let mut beds = self.0.lock();
        while beds.freed.len() < beds.made {
            assert!(
                Instant::now() < until,
                "{} of {} buffers never came back",
                beds.made - beds.freed.len(),
                beds.made
            );
            drop(beds);
            push();
            beds = self.0.lock();
            if beds.freed.len() < beds.made {
                let woken = self.0.changed.wait_timeout(beds, Duration::from_millis(1));
                beds = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        assert_eq!(beds.freed.len(), beds.made, "a buffer was dropped twice");
        for storage in &beds.freed {
            assert!(
                storage.as_slice().iter().all(|&byte| byte == FREED),
                "a buffer was written after it was given back or dropped"
            );
        }
    }
}

impl fmt::Debug for Quarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quarantine")
            .field("in_use", &self.in_use())
            .finish()
    }
}
