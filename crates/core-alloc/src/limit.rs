//! An upper bound on the bytes in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{
    Guard, Guarded, Request, Storage, StorageAllocator, StorageError, StorageType, Uninit,
};

/// Storage that counts against a [`Limit`] until it is dropped.
pub type Limited<S> = Guarded<S, Share>;

/// Refuses requests that would take the bytes in use above a limit.
///
/// Sizes are counted as requested. The share of a request that fails further down is given back.
///
/// ```
/// use core_alloc::{Limit, StorageAllocator, StorageError, SystemAllocator};
///
/// let limit = Limit::new(SystemAllocator, 1000);
/// let first = limit.allocate(600)?;
/// assert!(matches!(
///     limit.allocate(600),
///     Err(StorageError::LimitExceeded { available_bytes: 400, .. })
/// ));
/// drop(first);
/// assert_eq!(limit.used_bytes(), 0);
/// # Ok::<(), StorageError>(())
/// ```
#[derive(Debug)]
pub struct Limit<A> {
    inner: A,
    ledger: Arc<Ledger>,
}

#[derive(Debug)]
struct Ledger {
    limit_bytes: AtomicUsize,
    used_bytes: AtomicUsize,
}

/// A part of a limit; dropping it gives the part back.
#[derive(Debug)]
pub struct Share {
    ledger: Arc<Ledger>,
    bytes: usize,
}

impl<S> Guard<S> for Share {}

impl Drop for Share {
    fn drop(&mut self) {
        self.ledger
            .used_bytes
            .fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl<A> Limit<A> {
    /// Puts `inner` under a limit of `limit_bytes` in use at any time.
    pub fn new(inner: A, limit_bytes: usize) -> Self {
        Self {
            inner,
            ledger: Arc::new(Ledger {
                limit_bytes: AtomicUsize::new(limit_bytes),
                used_bytes: AtomicUsize::new(0),
            }),
        }
    }

    /// The limit in bytes.
    pub fn limit_bytes(&self) -> usize {
        self.ledger.limit_bytes.load(Ordering::Acquire)
    }

    /// Sets the limit for requests to come. What is in use stays, also above a lower limit.
    pub fn set_limit_bytes(&self, limit_bytes: usize) {
        self.ledger
            .limit_bytes
            .store(limit_bytes, Ordering::Release);
    }

    /// Bytes in use.
    pub fn used_bytes(&self) -> usize {
        self.ledger.used_bytes.load(Ordering::Acquire)
    }

    /// The allocator under the limit.
    pub fn inner(&self) -> &A {
        &self.inner
    }

    fn reserve(&self, kind: StorageType, bytes: usize) -> Result<Share, StorageError> {
        let limit_bytes = self.limit_bytes();
        self.ledger
            .used_bytes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|&sum| sum <= limit_bytes)
            })
            .map(|_| Share {
                ledger: Arc::clone(&self.ledger),
                bytes,
            })
            .map_err(|used| StorageError::LimitExceeded {
                kind,
                requested_bytes: bytes,
                available_bytes: limit_bytes.saturating_sub(used),
                limit_bytes,
            })
    }
}

impl<S: Storage, A: StorageAllocator<S>> StorageAllocator<Limited<S>> for Limit<A> {
    fn storage_type(&self) -> StorageType {
        self.inner.storage_type()
    }

    fn alignment_bytes(&self) -> usize {
        self.inner.alignment_bytes()
    }

    fn request(&self, request: Request) -> Result<Uninit<Limited<S>>, StorageError> {
        let share = self.reserve(self.inner.storage_type(), request.size())?;
        let storage = self.inner.request(request)?;
        // SAFETY: the guard reads nothing and covers the same bytes.
        Ok(unsafe { storage.map(|storage| Guarded::new(storage, request.size(), share)) })
    }
}
