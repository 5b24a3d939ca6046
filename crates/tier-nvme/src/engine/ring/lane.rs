//! A ring that the reading thread drives itself.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use core_view::BufferMut;
use core_view::contract::{ErrorKind, Failure};
use io_uring::IoUring;
use io_uring::types::{SubmitArgs, Timespec};

use super::Shared;
use super::setup;
use super::slot::Slot;
use crate::engine::operation::Next;
use crate::engine::{Engine, Operation, ReadLane};

/// Rings that are kept for the next reader; more readers at once use the engine's threads.
const RINGS_MAX: usize = 16;

/// How long a broken ring is asked for what it still has.
const BROKEN_PATIENCE: Duration = Duration::from_secs(5);

type Ended = (u64, Result<BufferMut, Failure>);

/// The rings of an engine that nobody uses at the moment.
#[derive(Default)]
pub(super) struct IdleRings {
    state: Mutex<Rings>,
}

impl fmt::Debug for IdleRings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdleRings")
            .field("made", &lock(self).made)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Rings {
    idle: Vec<IoUring>,
    made: usize,
    /// Set once the kernel has refused one.
    refused: bool,
}

impl IdleRings {
    /// A ring for one reader, if another may be had.
    pub(super) fn borrow(shared: &Arc<Shared>, io_depth: u32) -> Option<Box<dyn ReadLane>> {
        let mut rings = lock(&shared.rings);
        if let Some(ring) = rings.idle.pop() {
            drop(rings);
            return Some(Lane::lend(ring, shared, io_depth));
        }
        if rings.made == RINGS_MAX || rings.refused {
            return None;
        }
        rings.made += 1;
        drop(rings);
        let ring = setup::shared_ring(io_depth);
        if ring.is_err() {
            let mut rings = lock(&shared.rings);
            rings.made -= 1;
            rings.refused = true;
        }
        Some(Lane::lend(ring.ok()?, shared, io_depth))
    }
}

fn lock(rings: &IdleRings) -> std::sync::MutexGuard<'_, Rings> {
    rings.state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A borrowed ring.
struct Lane {
    ring: Option<ReaderRing>,
    shared: Arc<Shared>,
}

impl Lane {
    fn lend(ring: IoUring, shared: &Arc<Shared>, io_depth: u32) -> Box<dyn ReadLane> {
        Box::new(Self {
            ring: Some(ReaderRing::new(ring, io_depth)),
            shared: Arc::clone(shared),
        })
    }
}

impl ReadLane for Lane {
    fn is_of(&self, engine: &dyn Engine) -> bool {
        std::ptr::eq(engine.counters(), &raw const self.shared.counters)
    }

    fn push(&mut self, tag: u64, operation: Operation) {
        if let Some(ring) = &mut self.ring {
            ring.waiting.push_back((tag, operation));
        }
    }

    fn next(&mut self) -> Option<Ended> {
        self.ring.as_mut()?.next(&self.shared)
    }
}

impl Drop for Lane {
    /// Waits for what the kernel has, and gives the ring to the next reader.
    fn drop(&mut self) {
        let Some(mut ring) = self.ring.take() else {
            return;
        };
        ring.waiting.clear();
        while ring.next(&self.shared).is_some() {}
        let mut rings = lock(&self.shared.rings);
        match ring.into_ring() {
            Some(ring) => rings.idle.push(ring),
            None => rings.made -= 1,
        }
    }
}

/// A ring, and the reads in it.
struct ReaderRing {
    ring: IoUring,
    waiting: VecDeque<(u64, Operation)>,
    /// At most `slots_max`, made as they are needed.
    slots: Slots,
    slots_max: usize,
    free: Vec<usize>,
    resting: Vec<(Instant, usize)>,
    ended: VecDeque<Ended>,
    completions: Vec<(u64, i32)>,
    /// In the kernel, or in the submission queue.
    started: usize,
    /// In the submission queue.
    unsubmitted: usize,
    broken: Option<String>,
}

impl ReaderRing {
    fn new(ring: IoUring, io_depth: u32) -> Self {
        let slots_max = (ring.params().sq_entries().min(io_depth) as usize).max(1);
        Self {
            ring,
            waiting: VecDeque::new(),
            slots: Slots::default(),
            slots_max,
            free: Vec::new(),
            resting: Vec::new(),
            ended: VecDeque::new(),
            completions: Vec::new(),
            started: 0,
            unsubmitted: 0,
            broken: None,
        }
    }

    fn next(&mut self, shared: &Shared) -> Option<Ended> {
        loop {
            self.reap(shared);
            self.start_waiting(shared);
            self.start_rested();
            if self.ended.is_empty() && self.started == 0 && self.resting.is_empty() {
                return None;
            }
            // The kernel gets the next reads before the outcomes at hand are looked at, a few at a time.
            let is_due = self.ended.is_empty() || self.unsubmitted * 8 >= self.slots_max;
            if is_due && let Err(error) = self.enter(self.ended.is_empty()) {
                self.give_up(&error, shared);
            }
            if let Some(ended) = self.ended.pop_front() {
                return Some(ended);
            }
        }
    }

    /// Gives places to reads that have none yet.
    fn start_waiting(&mut self, shared: &Shared) {
        while let Some(number) = self.free_place() {
            let Some((tag, operation)) = self.waiting.pop_front() else {
                self.free.push(number);
                return;
            };
            if let Some(reason) = &self.broken {
                self.free.push(number);
                let error = operation.refusal(ErrorKind::Io, reason);
                let outcome = operation.finish_read(Err(error), &shared.counters);
                self.ended.push_back((tag, outcome));
            } else if let Some(place) = self.slots.0.get_mut(number) {
                *place = Some((tag, Slot::new(operation)));
                self.start(number);
            }
        }
    }

    fn free_place(&mut self) -> Option<usize> {
        self.free.pop().or_else(|| {
            let number = self.slots.0.len();
            (number < self.slots_max).then(|| self.slots.0.push(None))?;
            Some(number)
        })
    }

    /// The ring, for the next reader, unless the kernel refuses to go on with it.
    fn into_ring(self) -> Option<IoUring> {
        self.broken.is_none().then_some(self.ring)
    }

    /// Makes the calls again that the kernel had put off, where their time has come.
    fn start_rested(&mut self) {
        let now = Instant::now();
        while let Some(index) = self.resting.iter().position(|(at, _)| *at <= now) {
            let (_, number) = self.resting.swap_remove(index);
            self.start(number);
        }
    }

    fn start(&mut self, number: usize) {
        let Some((_, slot)) = self.slots.0.get_mut(number).and_then(Option::as_mut) else {
            return;
        };
        let entry = slot.entry().user_data(number as u64);
        slot.in_kernel = true;
        self.started += 1;
        self.unsubmitted += 1;
        loop {
            let mut queue = self.ring.submission();
            // SAFETY: what the entry points to is owned by a slot and is neither moved nor freed before
            // its completion is reaped; `Drop` leaks what is not.
            let pushed = unsafe { queue.push(&entry) };
            drop(queue);
            if pushed.is_ok() {
                return;
            }
            // The queue has a place for each slot: room is a submission away.
            let _ = self.ring.submit();
            self.unsubmitted = 0;
        }
    }

    /// Submits what is queued; if `sleep`, waits until something completes or is due.
    fn enter(&mut self, sleep: bool) -> io::Result<()> {
        let due = self.resting.iter().map(|(at, _)| *at).min();
        let outcome = match (sleep && self.started > 0, due) {
            (false, None) if self.unsubmitted == 0 => return Ok(()),
            (true, None) => self.ring.submit_and_wait(1),
            (true, Some(due)) => {
                let timeout = Timespec::from(due.saturating_duration_since(Instant::now()));
                let arguments = SubmitArgs::new().timespec(&timeout);
                self.ring.submitter().submit_with_args(1, &arguments)
            }
            (false, Some(due)) if sleep => {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                return Ok(());
            }
            (false, _) => self.ring.submit(),
        };
        match outcome {
            Ok(_) => {
                self.unsubmitted = 0;
                Ok(())
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::ETIME) => Ok(()),
                Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => {
                    // The kernel is short of something: completions have to be taken first.
                    thread::sleep(Duration::from_micros(100));
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    fn reap(&mut self, shared: &Shared) {
        let mut completions = mem::take(&mut self.completions);
        for entry in self.ring.completion() {
            completions.push((entry.user_data(), entry.result()));
        }
        for &(number, result) in &completions {
            self.complete(number as usize, result, shared);
        }
        completions.clear();
        self.completions = completions;
    }

    fn complete(&mut self, number: usize, result: i32, shared: &Shared) {
        let Some(place) = self.slots.0.get_mut(number) else {
            return;
        };
        let Some((_, slot)) = place else { return };
        self.started -= 1;
        let outcome = match slot.complete(result, &shared.counters) {
            Next::Again => return self.start(number),
            Next::Later(backoff) => {
                self.resting.push((Instant::now() + backoff, number));
                return;
            }
            Next::Done => Ok(()),
            Next::Failed(error) => Err(error),
        };
        if let Some((tag, slot)) = place.take() {
            self.free.push(number);
            let outcome = slot.operation.finish_read(outcome, &shared.counters);
            self.ended.push_back((tag, outcome));
        }
    }

    /// Ends a ring that the kernel refuses to go on with: all its reads fail, and the memory of those that
    /// the kernel may still have is leaked.
    fn give_up(&mut self, error: &io::Error, shared: &Shared) {
        self.broken = Some(format!(
            "the ring of this thread has stopped ({error}); try again"
        ));
        let until = Instant::now() + BROKEN_PATIENCE;
        self.reap(shared);
        while self.started > self.unsubmitted && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
            self.reap(shared);
        }
        self.resting.clear();
        for (number, place) in self.slots.0.iter_mut().enumerate() {
            let Some((tag, slot)) = place.take() else {
                continue;
            };
            self.free.push(number);
            let reason = "the ring stopped with the operation in it; try again";
            let error = slot.operation.refusal(ErrorKind::Io, reason);
            let outcome = if slot.in_kernel {
                slot.abandon(error.clone(), &shared.counters);
                Err(Failure::from(error))
            } else {
                slot.operation.finish_read(Err(error), &shared.counters)
            };
            self.ended.push_back((tag, outcome));
        }
        self.started = 0;
        self.unsubmitted = 0;
    }
}

/// The places of reads.
#[derive(Default)]
struct Slots(Vec<Option<(u64, Slot)>>);

impl Drop for Slots {
    /// Leaks whatever the kernel may still write to; where the lane was dropped that is nothing.
    fn drop(&mut self) {
        for (_, slot) in mem::take(&mut self.0).into_iter().flatten() {
            if slot.in_kernel {
                mem::forget(slot);
            }
        }
    }
}
