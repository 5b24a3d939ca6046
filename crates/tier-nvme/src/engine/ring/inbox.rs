//! Where submitters leave operations for the thread of a ring.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::engine::Operation;

/// Operations on their way to a ring; the depth bounds how many there are.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    operations: VecDeque<Operation>,
    asleep: bool,
    closing: bool,
    stopped: bool,
}

/// What the thread of a ring may do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    /// There is work, or the engine is closing: look again.
    Busy,
    /// There is none; who submits next wakes the thread.
    Quiet,
}

impl Inbox {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            state: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC)?,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle that becomes readable when the thread is to wake.
    pub(super) fn wake_handle(&self) -> RawFd {
        self.wake.as_raw_fd()
    }

    /// Leaves an operation; gives it back once the ring has stopped.
    pub(super) fn push(&self, operation: Operation) -> Result<(), Operation> {
        let mut state = self.lock();
        if state.stopped {
            return Err(operation);
        }
        state.operations.push_back(operation);
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.wake();
        }
        Ok(())
    }

    /// Moves all operations to `target`; returns whether the engine is closing.
    pub(super) fn take(&self, target: &mut VecDeque<Operation>) -> bool {
        let mut state = self.lock();
        state.asleep = false;
        target.append(&mut state.operations);
        state.closing
    }

    /// Announces that the thread is about to sleep, unless there is something to do.
    pub(super) fn announce_sleep(&self, closing_known: bool) -> Outlook {
        let mut state = self.lock();
        if !state.operations.is_empty() || state.closing != closing_known {
            return Outlook::Busy;
        }
        state.asleep = true;
        Outlook::Quiet
    }

    /// Asks the thread to finish and end.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.wake();
    }

    /// Takes no more operations; those that are there are moved to `target`.
    pub(super) fn stop(&self, target: &mut VecDeque<Operation>) {
        let mut state = self.lock();
        state.stopped = true;
        target.append(&mut state.operations);
    }

    /// Wakes the thread out of the kernel.
    pub(super) fn wake(&self) {
        // It can fail only when the counter is at its end, and then the thread is awake.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}
