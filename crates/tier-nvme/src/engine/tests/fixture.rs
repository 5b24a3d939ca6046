//! Engines, files and buffers for the tests.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use core_view::{Access, BufferMut, BufferOwner};

use crate::engine::attempt::Disturbance;
use crate::engine::interference::Interference;
use crate::engine::{Engine, OpenFile, Operation, ThreadPool};
use crate::{Alignment, FileName};

/// Both engines with one thread, or the pool alone where the kernel refuses the ring.
pub(super) fn engines(io_depth: u32) -> Vec<Arc<dyn Engine>> {
    let pool: Arc<dyn Engine> = Arc::new(ThreadPool::start(io_depth, 1).unwrap());
    std::iter::once(pool).chain(ring(io_depth)).collect()
}

#[cfg(feature = "io-uring")]
fn ring(io_depth: u32) -> Option<Arc<dyn Engine>> {
    match crate::engine::ring::IoUring::start(io_depth, 1) {
        Ok(ring) => Some(Arc::new(ring)),
        Err(refusal) => {
            println!("skipped: io_uring: {refusal}");
            None
        }
    }
}

#[cfg(not(feature = "io-uring"))]
fn ring(_io_depth: u32) -> Option<Arc<dyn Engine>> {
    None
}

/// A handle as volumes make it.
pub(super) fn open_file(
    file: File,
    unit_bytes: usize,
    interference: Option<Arc<dyn Interference>>,
) -> Arc<OpenFile> {
    Arc::new(OpenFile {
        file,
        name: FileName::new("test").unwrap(),
        path: "test".to_owned(),
        alignment: Alignment {
            memory_bytes: 1,
            offset_bytes: unit_bytes,
        },
        interference,
    })
}

/// Does to each call what is next on its list, and nothing once that is empty.
#[derive(Debug, Default)]
pub(super) struct Script {
    plan: Mutex<VecDeque<Disturbance>>,
    /// What to do when the list is empty.
    pub(super) otherwise: Option<Disturbance>,
    pub(super) calls: AtomicUsize,
    /// Where in the file the calls began.
    pub(super) offsets_bytes: Mutex<Vec<u64>>,
}

impl Script {
    pub(super) fn new(plan: &[Disturbance]) -> Arc<Self> {
        Arc::new(Self {
            plan: Mutex::new(plan.iter().copied().collect()),
            ..Self::default()
        })
    }

    pub(super) fn always(disturbance: Disturbance) -> Arc<Self> {
        Arc::new(Self {
            otherwise: Some(disturbance),
            ..Self::default()
        })
    }
}

impl Interference for Script {
    fn before_call(&self, operation: &Operation) -> Disturbance {
        self.calls.fetch_add(1, Ordering::AcqRel);
        let mut offsets_bytes = self.offsets_bytes.lock().unwrap();
        offsets_bytes.push(operation.position_bytes());
        let next = self.plan.lock().unwrap().pop_front();
        next.or(self.otherwise).unwrap_or(Disturbance::None)
    }
}

/// Holds all calls until it is opened.
#[derive(Debug, Default)]
pub(super) struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    arrived: AtomicUsize,
}

impl Gate {
    pub(super) fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    pub(super) fn wait_for_arrival(&self) {
        wait_until("a call arrives", || {
            self.arrived.load(Ordering::Acquire) > 0
        });
    }
}

impl Interference for Gate {
    fn before_call(&self, _operation: &Operation) -> Disturbance {
        self.arrived.fetch_add(1, Ordering::AcqRel);
        let open = self.open.lock().unwrap();
        // A test that fails must not hang in the drop of its engine.
        let patience = Duration::from_secs(30);
        let waited = self
            .opened
            .wait_timeout_while(open, patience, |open| !*open);
        drop(waited.unwrap());
        Disturbance::None
    }
}

/// Counts when its memory is freed.
struct CountedOwner {
    freed: Arc<AtomicUsize>,
    _memory: BufferMut,
}

impl Drop for CountedOwner {
    fn drop(&mut self) {
        self.freed.fetch_add(1, Ordering::AcqRel);
    }
}

// SAFETY: the buffer inside keeps its memory in place, and nothing reaches it but the holders.
unsafe impl BufferOwner for CountedOwner {
    fn access(&self) -> Access {
        Access::ReadWrite
    }
}

/// A buffer that adds one to `freed` when its memory is freed.
pub(super) fn counted(len_bytes: usize, freed: &Arc<AtomicUsize>) -> BufferMut {
    let mut memory = BufferMut::zeroed(len_bytes, 4096).unwrap();
    let pointer = std::ptr::NonNull::new(memory.as_mut_ptr()).unwrap();
    let owner = Arc::new(CountedOwner {
        freed: Arc::clone(freed),
        _memory: memory,
    });
    // SAFETY: the owner keeps the memory, and does not touch it before it is dropped.
    unsafe { BufferMut::from_owner(pointer, len_bytes, owner) }
}

pub(super) fn pattern(len_bytes: usize) -> Vec<u8> {
    (0..len_bytes).map(|i| (i * 31 + i / 251) as u8).collect()
}

pub(super) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
