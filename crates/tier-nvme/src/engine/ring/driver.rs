//! The thread of a ring.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use core_view::contract::{ContractError, ErrorKind};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};

use super::Shared;
use super::inbox::{Inbox, Outlook};
use super::slot::Slot;
use crate::engine::Operation;
use crate::engine::operation::Next;

/// The entry that wakes the thread; no slot has this number.
const WAKE: u64 = u64::MAX;

/// How long a broken ring is asked for what it still has.
const BROKEN_PATIENCE: Duration = Duration::from_secs(5);

/// A ring and the operations in it.
pub(super) struct Driver {
    ring: IoUring,
    inbox: Arc<Inbox>,
    shared: Arc<Shared>,
    waiting: VecDeque<Operation>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    resting: Vec<(Instant, usize)>,
    completions: Vec<(u64, i32)>,
    /// Where the kernel puts what it reads from the wake handle.
    wake_target: Box<[u8; 8]>,
    wake_armed: bool,
    in_kernel: usize,
}

impl Driver {
    pub(super) fn new(ring: IoUring, inbox: Arc<Inbox>, shared: Arc<Shared>) -> Self {
        let slots = (ring.params().sq_entries() as usize - 1).max(1);
        Self {
            ring,
            inbox,
            shared,
            waiting: VecDeque::new(),
            slots: (0..slots).map(|_| None).collect(),
            free: (0..slots).rev().collect(),
            resting: Vec::new(),
            completions: Vec::with_capacity(slots),
            wake_target: Box::new([0; 8]),
            wake_armed: false,
            in_kernel: 0,
        }
    }

    /// Works until the engine is closing and nothing is left.
    pub(super) fn run(&mut self) {
        loop {
            let closing = self.inbox.take(&mut self.waiting);
            self.start_waiting();
            self.start_rested();
            if closing && self.is_idle() {
                break;
            }
            self.arm_wake();
            let quiet = self.inbox.announce_sleep(closing) == Outlook::Quiet;
            if let Err(error) = self.enter(quiet) {
                self.give_up(&error);
                return;
            }
            self.reap();
        }
        self.disarm_wake();
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.resting.is_empty() && self.in_kernel == 0
    }

    /// Gives places to operations that have none yet.
    fn start_waiting(&mut self) {
        while let Some(number) = self.free.pop() {
            let Some(operation) = self.waiting.pop_front() else {
                self.free.push(number);
                return;
            };
            if operation.should_stop() {
                self.free.push(number);
                let error = operation.cancelled();
                self.finish(operation, Err(error));
            } else if let Some(place) = self.slots.get_mut(number) {
                *place = Some(Slot::new(operation));
                self.start(number);
            }
        }
    }

    /// Makes the calls again that the kernel had put off, where their time has come.
    fn start_rested(&mut self) {
        let now = Instant::now();
        while let Some(index) = self.resting.iter().position(|(at, _)| *at <= now) {
            let (_, number) = self.resting.swap_remove(index);
            self.start(number);
        }
    }

    /// Puts the next call of a slot into the submission queue.
    fn start(&mut self, number: usize) {
        let Some(slot) = self.slots.get_mut(number).and_then(Option::as_mut) else {
            return;
        };
        let entry = slot.entry().user_data(number as u64);
        slot.in_kernel = true;
        self.in_kernel += 1;
        self.push(&entry);
    }

    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            let mut queue = self.ring.submission();
            // SAFETY: what the entry points to is owned by a slot (or is the wake target) and is
            // neither moved nor freed before its completion is reaped; `Drop` leaks what is not.
            let pushed = unsafe { queue.push(entry) };
            drop(queue);
            if pushed.is_ok() {
                return;
            }
            // The queue has a place for each slot and the wake entry: room is a submission away.
            let _ = self.ring.submit();
        }
    }

    fn arm_wake(&mut self) {
        if self.wake_armed {
            return;
        }
        self.wake_armed = true;
        let handle = Fd(self.inbox.wake_handle());
        let target = self.wake_target.as_mut_ptr();
        let entry = opcode::Read::new(handle, target, 8).build().user_data(WAKE);
        self.push(&entry);
    }

    /// Takes the read of the wake handle back out of the kernel.
    fn disarm_wake(&mut self) {
        while self.wake_armed {
            self.inbox.wake();
            if self.enter(true).is_err() {
                return;
            }
            self.reap();
        }
    }

    /// Submits what is queued; if `sleep`, waits until something completes or is due.
    fn enter(&mut self, sleep: bool) -> io::Result<()> {
        let due = self.resting.iter().map(|(at, _)| *at).min();
        let outcome = match (sleep, due) {
            (false, _) => self.ring.submit(),
            (true, None) => self.ring.submit_and_wait(1),
            (true, Some(due)) => {
                let left = due.saturating_duration_since(Instant::now());
                let timeout = Timespec::from(left);
                let arguments = SubmitArgs::new().timespec(&timeout);
                self.ring.submitter().submit_with_args(1, &arguments)
            }
        };
        match outcome {
            Ok(_) => Ok(()),
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

    /// Takes what is complete and hands outcomes out.
    fn reap(&mut self) {
        let mut completions = mem::take(&mut self.completions);
        for entry in self.ring.completion() {
            completions.push((entry.user_data(), entry.result()));
        }
        for &(user_data, result) in &completions {
            if user_data == WAKE {
                self.wake_armed = false;
            } else if let Ok(number) = usize::try_from(user_data) {
                self.complete(number, result);
            }
        }
        completions.clear();
        self.completions = completions;
    }

    fn complete(&mut self, number: usize, result: i32) {
        let Some(place) = self.slots.get_mut(number) else {
            return;
        };
        let Some(slot) = place else { return };
        self.in_kernel -= 1;
        let outcome = match slot.complete(result, &self.shared.counters) {
            Next::Again => return self.start(number),
            Next::Later(backoff) => {
                self.resting.push((Instant::now() + backoff, number));
                return;
            }
            Next::Done => Ok(()),
            Next::Failed(error) => Err(error),
        };
        if let Some(slot) = place.take() {
            self.free.push(number);
            self.finish(slot.operation, outcome);
        }
    }

    /// First the place in the depth, so that who learns of the outcome can submit again.
    fn finish(&self, operation: Operation, outcome: Result<(), ContractError>) {
        self.shared.depth.release();
        operation.finish(outcome, &self.shared.counters);
    }

    /// Ends a ring that the kernel refuses to go on with; what it still has is left to `Drop`.
    fn give_up(&mut self, error: &io::Error) {
        let until = Instant::now() + BROKEN_PATIENCE;
        while self.in_kernel > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
            self.reap();
        }
        self.refuse_waiting(&format!(
            "the ring has stopped ({error}); reopen the volume"
        ));
    }

    fn refuse_waiting(&mut self, reason: &str) {
        self.inbox.stop(&mut self.waiting);
        while let Some(operation) = self.waiting.pop_front() {
            let error = operation.refusal(ErrorKind::Io, reason);
            self.finish(operation, Err(error));
        }
    }
}

impl Drop for Driver {
    /// Leaks whatever the kernel may still write to; in a run that ended well that is nothing.
    fn drop(&mut self) {
        self.refuse_waiting("the ring has stopped; reopen the volume");
        for slot in mem::take(&mut self.slots).into_iter().flatten() {
            let reason = "the ring stopped with the operation in it; reopen the volume";
            let error = slot.operation.refusal(ErrorKind::Io, reason);
            if slot.in_kernel {
                self.shared.depth.release();
                slot.abandon(error, &self.shared.counters);
            } else {
                self.finish(slot.operation, Err(error));
            }
        }
        if self.wake_armed {
            Box::leak(mem::replace(&mut self.wake_target, Box::new([0; 8])));
            mem::forget(Arc::clone(&self.inbox));
        }
    }
}
