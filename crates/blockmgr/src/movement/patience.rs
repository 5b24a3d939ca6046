//! How long a transfer is waited for, and what becomes of one that goes on after that.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use core_view::BufferMut;
use core_view::contract::{ErrorKind, Failure, Transfer};

use super::{Clock, DropReason};
use crate::SequenceHash;

/// Asks the transfers of a call to end. Clones ask for the same end.
#[derive(Debug, Clone, Default)]
pub struct Cancellation(Arc<AtomicBool>);

impl Cancellation {
    /// Asks for the end.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the end was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How long to wait for the transfers of one call.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    clock: Arc<dyn Clock>,
    until: Duration,
    cancellation: Cancellation,
}

/// How waiting ended.
pub(super) enum Waited<T> {
    /// The operation is done.
    Done(Result<T, Failure>),
    /// It was asked to stop, and has not yet.
    Late(DropReason, Transfer<T>),
}

impl Patience {
    pub(super) fn new(
        clock: &Arc<dyn Clock>,
        timeout: Duration,
        cancellation: Cancellation,
    ) -> Self {
        Self {
            until: clock.now().saturating_add(timeout),
            clock: Arc::clone(clock),
            cancellation,
        }
    }

    /// Why there is no patience left, if so.
    pub(super) fn ended(&self) -> Option<DropReason> {
        if self.cancellation.is_cancelled() {
            return Some(DropReason::Cancelled);
        }
        (self.until <= self.clock.now()).then_some(DropReason::TimedOut)
    }

    pub(super) fn wait<T: Send + 'static>(&self, mut transfer: Transfer<T>) -> Waited<T> {
        loop {
            let left = self.until.saturating_sub(self.clock.now());
            transfer = match transfer.wait_for(self.clock.slice(left)) {
                Ok(outcome) => return Waited::Done(outcome),
                Err(transfer) => transfer,
            };
            let Some(reason) = self.ended() else { continue };
            transfer.cancel();
            return match transfer.wait_for(Duration::ZERO) {
                Ok(outcome) => Waited::Done(outcome),
                Err(transfer) => Waited::Late(reason, transfer),
            };
        }
    }

    /// What a failed operation counts as.
    pub(super) fn reason(&self, kind: ErrorKind) -> DropReason {
        match kind {
            ErrorKind::Cancelled | ErrorKind::TimedOut => {
                self.ended().unwrap_or(DropReason::Cancelled)
            }
            ErrorKind::NoSpace => DropReason::TargetFull,
            ErrorKind::NotFound => DropReason::Lost,
            ErrorKind::Corrupt => DropReason::Mismatch,
            _ => DropReason::Failed,
        }
    }
}

/// An operation that was given up and may still be under way, with all that it may still touch.
pub(super) struct Late {
    /// Gives the buffers back once the operation has ended.
    poll: Box<dyn FnMut() -> Option<Vec<BufferMut>> + Send>,
    pub(super) held: Vec<Box<dyn Any + Send>>,
    /// Buffers of the staging area that the operation took.
    pub(super) staged: usize,
    /// Whether nothing may be stored before it has ended.
    pub(super) fences: bool,
    /// Blocks that it may yet store below memory though nobody was promised that: they are to be removed.
    pub(super) stored: Vec<SequenceHash>,
}

impl Late {
    pub(super) fn new<T: Send + 'static>(
        transfer: Transfer<T>,
        buffers: fn(Result<T, Failure>) -> Vec<BufferMut>,
        staged: usize,
    ) -> Self {
        let mut transfer = Some(transfer);
        let poll = move || match transfer.take()?.wait_for(Duration::ZERO) {
            Ok(outcome) => Some(buffers(outcome)),
            Err(pending) => {
                transfer = Some(pending);
                None
            }
        };
        Self {
            poll: Box::new(poll),
            held: Vec::new(),
            staged,
            fences: false,
            stored: Vec::new(),
        }
    }

    /// The buffers, if the operation has ended.
    pub(super) fn poll(&mut self) -> Option<Vec<BufferMut>> {
        (self.poll)()
    }
}
