//! A record of each allocation, failure and release.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::{
    Guard, Guarded, Request, Storage, StorageAllocator, StorageError, StorageType, Uninit,
};

/// Storage whose release is recorded by a [`Trace`].
pub type Traced<S> = Guarded<S, Mark>;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TraceAction {
    /// Storage was handed out.
    Allocated,
    /// A request failed.
    Failed,
    /// Storage was given back.
    Released,
}

/// One line of a [`Trace`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceEvent {
    /// What happened.
    pub action: TraceAction,
    /// The number of the request, counted from 1; a release has the number of its allocation.
    pub request: u64,
    /// Kind of storage.
    pub kind: StorageType,
    /// Size in bytes.
    pub size_bytes: usize,
    /// Nanoseconds since the trace was made.
    pub elapsed_ns: u64,
}

/// The bounded memory of a [`Trace`].
#[derive(Debug)]
struct Ring {
    events: VecDeque<TraceEvent>,
    capacity: usize,
}

enum Sink {
    Ring(Mutex<Ring>),
    Callback(Box<dyn Fn(&TraceEvent) + Send + Sync>),
}

struct Recorder {
    sink: Sink,
    start: Instant,
    requests: AtomicU64,
    lost: AtomicU64,
}

impl Recorder {
    fn record(&self, action: TraceAction, request: u64, kind: StorageType, size_bytes: usize) {
        let event = TraceEvent {
            action,
            request,
            kind,
            size_bytes,
            elapsed_ns: u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX),
        };
        let kept = match &self.sink {
            Sink::Ring(ring) => ring
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(event),
            // A release is recorded from a drop, which must not unwind.
            Sink::Callback(callback) => catch_unwind(AssertUnwindSafe(|| callback(&event))).is_ok(),
        };
        if !kept {
            self.lost.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Ring {
    /// Adds an event; says whether that lost none.
    fn push(&mut self, event: TraceEvent) -> bool {
        let mut lossless = true;
        while self.events.len() >= self.capacity {
            lossless = false;
            if self.events.pop_front().is_none() {
                return false;
            }
        }
        self.events.push_back(event);
        lossless
    }
}

/// The end of a traced storage; dropping it records the release.
pub struct Mark {
    recorder: Arc<Recorder>,
    request: u64,
    kind: StorageType,
    size_bytes: usize,
}

impl<S> Guard<S> for Mark {}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mark")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.recorder.record(
            TraceAction::Released,
            self.request,
            self.kind,
            self.size_bytes,
        );
    }
}

/// Records each allocation, failure and release: into a ring of bounded size, or to a callback.
///
/// ```
/// use core_alloc::{StorageAllocator, Trace, TraceAction, SystemAllocator};
///
/// let trace = Trace::with_ring(SystemAllocator, 100);
/// drop(trace.allocate(64)?);
/// let actions: Vec<_> = trace.events().iter().map(|event| event.action).collect();
/// assert_eq!(actions, [TraceAction::Allocated, TraceAction::Released]);
/// # Ok::<(), core_alloc::StorageError>(())
/// ```
pub struct Trace<A> {
    inner: A,
    recorder: Arc<Recorder>,
}

impl<A: fmt::Debug> fmt::Debug for Trace<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<A> Trace<A> {
    fn new(inner: A, sink: Sink) -> Self {
        Self {
            inner,
            recorder: Arc::new(Recorder {
                sink,
                start: Instant::now(),
                requests: AtomicU64::new(0),
                lost: AtomicU64::new(0),
            }),
        }
    }

    /// Keeps the last `capacity` events.
    pub fn with_ring(inner: A, capacity: usize) -> Self {
        let events = VecDeque::new();
        Self::new(inner, Sink::Ring(Mutex::new(Ring { events, capacity })))
    }

    /// Calls `callback` for each event, on the thread where it happens. A callback that panics is
    /// counted in [`Trace::lost`]; the panic goes no further.
    pub fn with_callback(inner: A, callback: impl Fn(&TraceEvent) + Send + Sync + 'static) -> Self {
        Self::new(inner, Sink::Callback(Box::new(callback)))
    }

    /// The events in the ring, oldest first; none with a callback.
    pub fn events(&self) -> Vec<TraceEvent> {
        match &self.recorder.sink {
            Sink::Ring(ring) => {
                let ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
                ring.events.iter().copied().collect()
            }
            Sink::Callback(_) => Vec::new(),
        }
    }

    /// Events that fell out of the ring or whose callback panicked.
    pub fn lost(&self) -> u64 {
        self.recorder.lost.load(Ordering::Acquire)
    }

    /// The allocator that is traced.
    pub fn inner(&self) -> &A {
        &self.inner
    }
}

impl<S: Storage, A: StorageAllocator<S>> StorageAllocator<Traced<S>> for Trace<A> {
    fn storage_type(&self) -> StorageType {
        self.inner.storage_type()
    }

    fn alignment_bytes(&self) -> usize {
        self.inner.alignment_bytes()
    }

    fn request(&self, request: Request) -> Result<Uninit<Traced<S>>, StorageError> {
        let number = self.recorder.requests.fetch_add(1, Ordering::AcqRel) + 1;
        let (record, wanted) = (&self.recorder, request.size());
        let storage = self.inner.request(request).inspect_err(|_| {
            record.record(
                TraceAction::Failed,
                number,
                self.inner.storage_type(),
                wanted,
            );
        })?;
        let (kind, size_bytes) = (storage.storage_type(), storage.size());
        record.record(TraceAction::Allocated, number, kind, size_bytes);
        let mark = Mark {
            recorder: Arc::clone(record),
            request: number,
            kind,
            size_bytes,
        };
        // SAFETY: the guard reads nothing and covers the same bytes.
        Ok(unsafe { storage.map(|storage| Guarded::new(storage, size_bytes, mark)) })
    }
}
