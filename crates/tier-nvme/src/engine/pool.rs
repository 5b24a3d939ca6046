//! The engine of positioned reads and writes on a pool of threads.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use core_view::contract::ErrorKind;

use super::depth::Depth;
use super::{Counters, Engine, EngineStatistics, Operation, run_attempts};

/// Threads that carry out one operation each.
#[derive(Debug)]
pub(crate) struct ThreadPool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    depth: Depth,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Queue {
    operations: VecDeque<Operation>,
    idle_threads: usize,
    closing: bool,
}

impl ThreadPool {
    /// Starts `threads` threads for at most `io_depth` outstanding operations.
    ///
    /// Fewer threads than asked for are good enough, none is an error.
    pub(crate) fn start(io_depth: u32, threads: u32) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            work: Condvar::new(),
            depth: Depth::new(io_depth),
            counters: Counters::default(),
        });
        let mut started = Vec::new();
        for number in 0..threads.max(1) {
            let shared = Arc::clone(&shared);
            let thread = thread::Builder::new().name(format!("stepwell-io-{number}"));
            match thread.spawn(move || shared.run()) {
                Ok(handle) => started.push(handle),
                Err(error) if started.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(Self {
            shared,
            threads: started,
        })
    }
}

impl Engine for ThreadPool {
    fn name(&self) -> &'static str {
        "thread pool"
    }

    fn submit(&self, operation: Operation) {
        if self.shared.depth.acquire().is_err() {
            let error = operation.refusal(ErrorKind::Busy, "twice io_depth operations are running");
            operation.finish(Err(error), &self.shared.counters);
            return;
        }
        let mut queue = self.shared.lock();
        queue.operations.push_back(operation);
        let wake = queue.idle_threads > 0;
        drop(queue);
        if wake {
            self.shared.work.notify_one();
        }
    }

    fn statistics(&self) -> EngineStatistics {
        self.shared.depth.report(self.shared.counters.snapshot())
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.work.notify_all();
        if self.shared.depth.is_own_thread() {
            return;
        }
        for thread in self.threads.drain(..) {
            // A thread that panicked has told its transfers by dropping their completers.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        self.depth.adopt_thread();
        while let Some(mut operation) = self.next() {
            let outcome = if operation.should_stop() {
                Err(operation.cancelled())
            } else {
                run_attempts(&mut operation, &self.counters)
            };
            // First the place, so that who learns of the outcome can submit again.
            self.depth.release();
            operation.finish(outcome, &self.counters);
        }
    }

    /// The next operation; `None` once the pool is closing and nothing is left.
    fn next(&self) -> Option<Operation> {
        let mut queue = self.lock();
        loop {
            if let Some(operation) = queue.operations.pop_front() {
                return Some(operation);
            }
            if queue.closing {
                return None;
            }
            queue.idle_threads += 1;
            queue = self
                .work
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
            queue.idle_threads -= 1;
        }
    }
}
