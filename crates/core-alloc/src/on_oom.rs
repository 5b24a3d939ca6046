//! A chance to make room when memory runs out.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Request, Storage, StorageAllocator, StorageError, StorageType, Uninit};

/// What a callback of [`OnOom`] is told.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct OutOfMemory<'a> {
    /// Bytes asked for.
    pub requested_bytes: usize,
    /// How often this request has failed by now, counted from 1.
    pub attempt: u32,
    /// Why it failed.
    pub error: &'a StorageError,
}

/// What a callback of [`OnOom`] decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Room was made: ask the allocator again.
    Retry,
    /// Report the failure.
    GiveUp,
}

/// Calls back when a request finds no memory, and asks again if the callback made room.
///
/// Only a lack of memory is retried ([`StorageError::is_out_of_memory`]), and at most as often as
/// configured, so that a callback that keeps promising room can't hang the caller.
///
/// ```
/// use core_alloc::{Limit, OnOom, StorageAllocator, SystemAllocator, Verdict};
/// use std::sync::{Arc, Mutex};
///
/// let limit = Arc::new(Limit::new(SystemAllocator, 1000));
/// let cache = Arc::new(Mutex::new(vec![limit.allocate(800)?]));
/// let evicted = Arc::clone(&cache);
/// let allocator = OnOom::new(limit, 1, move |_| {
///     evicted.lock().map_or(Verdict::GiveUp, |mut cache| {
///         cache.clear();
///         Verdict::Retry
///     })
/// });
/// assert!(allocator.allocate(500).is_ok());
/// # Ok::<(), core_alloc::StorageError>(())
/// ```
pub struct OnOom<A, F> {
    inner: A,
    callback: F,
    retries_max: u32,
    retries: AtomicU64,
    failures: AtomicU64,
}

impl<A: fmt::Debug, F> fmt::Debug for OnOom<A, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnOom")
            .field("inner", &self.inner)
            .field("retries_max", &self.retries_max)
            .field("retries", &self.retries)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

impl<A, F: Fn(OutOfMemory<'_>) -> Verdict + Send + Sync> OnOom<A, F> {
    /// Asks `inner` up to `retries_max` times more when it has no memory and `callback` says so.
    pub fn new(inner: A, retries_max: u32, callback: F) -> Self {
        Self {
            inner,
            callback,
            retries_max,
            retries: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// How often the allocator was asked again.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Acquire)
    }

    /// Requests that failed for lack of memory in spite of the callback.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// The allocator inside.
    pub fn inner(&self) -> &A {
        &self.inner
    }
}

impl<S, A, F> StorageAllocator<S> for OnOom<A, F>
where
    S: Storage,
    A: StorageAllocator<S>,
    F: Fn(OutOfMemory<'_>) -> Verdict + Send + Sync,
{
    fn storage_type(&self) -> StorageType {
        self.inner.storage_type()
    }

    fn alignment_bytes(&self) -> usize {
        self.inner.alignment_bytes()
    }

    fn request(&self, request: Request) -> Result<Uninit<S>, StorageError> {
        let mut attempt = 0u32;
        loop {
            let error = match self.inner.request(request) {
                Err(error) if error.is_out_of_memory() => error,
                other => return other,
            };
            attempt = attempt.saturating_add(1);
            let verdict = (self.callback)(OutOfMemory {
                requested_bytes: request.size(),
                attempt,
                error: &error,
            });
            if verdict == Verdict::GiveUp || attempt > self.retries_max {
                self.failures.fetch_add(1, Ordering::AcqRel);
                return Err(error);
            }
            self.retries.fetch_add(1, Ordering::AcqRel);
        }
    }
}
