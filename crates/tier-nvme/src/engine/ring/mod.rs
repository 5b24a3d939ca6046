//! The engine of io_uring: one ring per thread.

mod driver;
mod inbox;
mod lane;
mod setup;
mod slot;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use core_view::contract::ErrorKind;

use super::depth::Depth;
use super::{Counters, Engine, EngineStatistics, Operation, ReadLane};
use driver::Driver;
use inbox::Inbox;
use lane::IdleRings;

/// Rings, each with a thread that submits, sleeps in the kernel and hands out outcomes.
#[derive(Debug)]
pub(crate) struct IoUring {
    shared: Arc<Shared>,
    lanes: Vec<Lane>,
    next_lane: AtomicUsize,
    io_depth: u32,
}

#[derive(Debug)]
struct Shared {
    depth: Depth,
    counters: Counters,
    /// Rings for threads that read by themselves.
    rings: IdleRings,
}

#[derive(Debug)]
struct Lane {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
}

impl IoUring {
    /// Starts `threads` rings for at most `io_depth` outstanding operations together.
    ///
    /// The error says why the kernel refuses.
    pub(crate) fn start(io_depth: u32, threads: u32) -> Result<Self, String> {
        let mut engine = Self {
            shared: Arc::new(Shared {
                depth: Depth::new(io_depth),
                counters: Counters::default(),
                rings: IdleRings::default(),
            }),
            lanes: Vec::new(),
            next_lane: AtomicUsize::new(0),
            io_depth,
        };
        for number in 0..threads.max(1) {
            match start_lane(&engine.shared, io_depth, number) {
                Ok(lane) => engine.lanes.push(lane),
                Err(refusal) if engine.lanes.is_empty() => return Err(refusal),
                Err(_) => break,
            }
        }
        Ok(engine)
    }

    /// Leaves an operation at one of the rings; gives it back if that ring has stopped.
    fn dispatch(&self, operation: Operation) -> Result<(), Operation> {
        let number = self.next_lane.fetch_add(1, Ordering::Relaxed) % self.lanes.len().max(1);
        match self.lanes.get(number) {
            Some(lane) => lane.inbox.push(operation),
            None => Err(operation),
        }
    }

    fn refuse(&self, operation: Operation, kind: ErrorKind, reason: &str) {
        let error = operation.refusal(kind, reason);
        operation.finish(Err(error), &self.shared.counters);
    }
}

/// Starts a thread that makes its ring itself: the kernel takes submissions from the maker alone.
fn start_lane(shared: &Arc<Shared>, io_depth: u32, number: u32) -> Result<Lane, String> {
    let inbox = Inbox::new().map_err(|error| format!("no eventfd can be had: {error}"))?;
    let inbox = Arc::new(inbox);
    let (ready, started) = mpsc::channel();
    let run = {
        let (shared, inbox) = (Arc::clone(shared), Arc::clone(&inbox));
        move || match setup::ring(io_depth) {
            Ok(ring) => {
                shared.depth.adopt_thread();
                let mut driver = Driver::new(ring, inbox, shared);
                if ready.send(Ok(())).is_ok() {
                    driver.run();
                }
            }
            Err(refusal) => {
                // Without a receiver nobody wants the ring.
                let _ = ready.send(Err(refusal));
            }
        }
    };
    let thread = thread::Builder::new()
        .name(format!("stepwell-ring-{number}"))
        .spawn(run)
        .map_err(|error| format!("no thread can be started for the ring: {error}"))?;
    match started.recv() {
        Ok(Ok(())) => Ok(Lane {
            inbox,
            thread: Some(thread),
        }),
        Ok(Err(refusal)) => Err(refusal),
        Err(_) => Err("the thread of the ring ended at once".to_owned()),
    }
}

impl Engine for IoUring {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn submit(&self, operation: Operation) {
        if self.shared.depth.acquire().is_err() {
            let reason = "twice io_depth operations are running";
            self.refuse(operation, ErrorKind::Busy, reason);
        } else if let Err(operation) = self.dispatch(operation) {
            self.shared.depth.release();
            let reason = "the ring has stopped; reopen the volume";
            self.refuse(operation, ErrorKind::Io, reason);
        }
    }

    fn lane(&self) -> Option<Box<dyn ReadLane>> {
        IdleRings::borrow(&self.shared, self.io_depth)
    }

    fn statistics(&self) -> EngineStatistics {
        self.shared.depth.report(self.shared.counters.snapshot())
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

impl Drop for IoUring {
    fn drop(&mut self) {
        for lane in &self.lanes {
            lane.inbox.close();
        }
        if self.shared.depth.is_own_thread() {
            return;
        }
        for lane in &mut self.lanes {
            if let Some(thread) = lane.thread.take() {
                // A thread that panicked has told its transfers by dropping their completers.
                let _ = thread.join();
            }
        }
    }
}
