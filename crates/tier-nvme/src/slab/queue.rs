//! What is under way, and what waits to be committed.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use core_view::BufferMut;
use core_view::contract::{BlockKey, BlockMeta, Completer, ContractError, Failure, Transfer};

use super::slots::SlotId;
use crate::NvmeError;

/// Blocks that a caller stores together.
#[derive(Debug)]
pub(super) struct PutJob {
    pub(super) items: Vec<PutItem>,
    pub(super) completer: Completer<Vec<Result<BufferMut, Failure>>>,
    pub(super) bytes: u64,
    /// Payloads that may be on their way still.
    pub(super) flight: Option<Flight>,
}

/// Payloads on their way to their slots.
#[derive(Debug)]
pub(super) struct Flight {
    /// The items of each write.
    pub(super) items: Vec<Vec<usize>>,
    pub(super) writes: Transfer<Vec<Result<Vec<BufferMut>, Failure>>>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct PutItem {
    pub(super) key: BlockKey,
    pub(super) meta: BlockMeta,
    /// Absent while it is being written, and of a copy never.
    pub(super) payload: Option<BufferMut>,
    pub(super) payload_bytes: u32,
    pub(super) checksum: u32,
    pub(super) state: ItemState,
}

#[derive(Debug)]
pub(super) enum ItemState {
    /// Without a slot yet.
    Waiting,
    /// In a slot, of which nobody knows yet.
    Placed(SlotId),
    Failed(ContractError),
}

impl PutJob {
    /// Fails what has not failed before.
    pub(super) fn fail(&mut self, error: &ContractError) {
        for item in &mut self.items {
            if !matches!(item.state, ItemState::Failed(_)) {
                item.state = ItemState::Failed(error.clone());
            }
        }
    }

    /// Tells the caller.
    pub(super) fn finish(self) {
        let outcome = self.items.into_iter().map(|item| match item.state {
            ItemState::Failed(error) => {
                Err(Failure::new(error, item.payload.into_iter().collect()))
            }
            ItemState::Waiting | ItemState::Placed(_) => item
                .payload
                .ok_or_else(|| NvmeError::Closed.into())
                .map_err(|error: ContractError| error.into()),
        });
        self.completer.complete(Ok(outcome.collect()));
    }
}

/// Blocks that a caller removes together.
#[derive(Debug)]
pub(super) struct RemoveJob {
    pub(super) keys: Vec<BlockKey>,
    pub(super) removed: Vec<bool>,
    pub(super) error: Option<ContractError>,
    pub(super) completer: Completer<Vec<bool>>,
}

impl RemoveJob {
    /// Tells the caller.
    pub(super) fn finish(self) {
        self.completer.complete(match self.error {
            Some(error) => Err(error.into()),
            None => Ok(self.removed),
        });
    }
}

/// What waits to be committed.
#[derive(Debug)]
pub(super) enum Ready {
    /// Payloads are written, or on their way.
    Put(PutJob),
    Remove(RemoveJob),
}

/// The next thing to do.
pub(super) enum Work {
    Commit(Vec<Ready>),
    /// Puts for which there was no slot.
    Place(PutJob),
    /// Nothing at the moment.
    Nothing,
    /// Nothing any more.
    Over,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Ready>,
    starved: VecDeque<PutJob>,
    /// Whether nothing has happened since the first of the starved could not be placed.
    starved_rests: bool,
    /// Puts that were let in and whose payloads are not on their way yet.
    submitting: usize,
    bytes: u64,
    closing: bool,
}

impl State {
    /// Whether a commit should begin. Removals alone wait for puts that were let in, to share their
    /// sync; not where a put waits for a slot, which they may free.
    fn has_commit(&self) -> bool {
        let is_put = |ready: &Ready| matches!(ready, Ready::Put(_));
        let nothing_follows = self.submitting == 0 || !self.starved.is_empty() || self.closing;
        !self.ready.is_empty() && (nothing_follows || self.ready.iter().any(is_put))
    }
}

/// Jobs on their way from the callers to their commit.
#[derive(Default)]
pub(super) struct JobQueue {
    state: Mutex<State>,
    changed: Condvar,
}

/// Jobs that share a commit at most.
const GROUP_JOBS: usize = 4096;

impl JobQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a put of so many bytes in, if there is room; whether it may take slots before others.
    pub(super) fn enter(&self, bytes: u64, bytes_max: u64) -> Result<Option<bool>, NvmeError> {
        let mut state = self.lock();
        if state.closing {
            return Err(NvmeError::Closed);
        }
        if state.bytes > 0 && state.bytes.saturating_add(bytes) > bytes_max {
            return Ok(None);
        }
        state.bytes = state.bytes.saturating_add(bytes);
        state.submitting += 1;
        Ok(Some(state.starved.is_empty()))
    }

    /// A put that was let in has no slots.
    pub(super) fn starve(&self, job: PutJob) {
        let mut state = self.lock();
        state.submitting -= 1;
        state.starved.push_back(job);
        state.starved_rests = false;
        self.changed.notify_all();
    }

    /// A put that was being placed has to wait; `false` if there is nothing to wait for.
    pub(super) fn rest(&self, job: PutJob, others: bool) -> Result<(), PutJob> {
        let mut state = self.lock();
        if state.submitting <= 1 && state.ready.is_empty() && !others {
            return Err(job);
        }
        state.submitting -= 1;
        state.starved.push_front(job);
        state.starved_rests = state.ready.is_empty();
        Ok(())
    }

    /// The payloads of a put are on their way, or failed.
    pub(super) fn submitted(&self, job: PutJob) {
        let mut state = self.lock();
        state.submitting -= 1;
        state.starved_rests = false;
        state.ready.push_back(Ready::Put(job));
        self.changed.notify_all();
    }

    /// Lets a removal in.
    pub(super) fn push_remove(&self, job: RemoveJob) -> Result<(), RemoveJob> {
        let mut state = self.lock();
        if state.closing {
            return Err(job);
        }
        state.starved_rests = false;
        state.ready.push_back(Ready::Remove(job));
        self.changed.notify_all();
        Ok(())
    }

    /// What is to be done next.
    pub(super) fn next(&self) -> Work {
        let mut state = self.lock();
        if state.has_commit() {
            let count = state.ready.len().min(GROUP_JOBS);
            return Work::Commit(state.ready.drain(..count).collect());
        }
        if !state.starved_rests
            && let Some(job) = state.starved.pop_front()
        {
            state.submitting += 1;
            return Work::Place(job);
        }
        if state.closing && state.submitting == 0 && state.starved.is_empty() {
            return Work::Over;
        }
        Work::Nothing
    }

    /// Payload bytes that left the queue.
    pub(super) fn leave(&self, bytes: u64) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
        state.starved_rests = false;
    }

    /// Something happened that may help whoever waits for a slot.
    pub(super) fn stir(&self) {
        self.lock().starved_rests = false;
        self.changed.notify_all();
    }

    /// Lets nobody in any more.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
    }

    /// Waits until there may be something to do.
    pub(super) fn wait(&self, timeout: Option<Duration>) {
        let state = self.lock();
        let is_quiet = |state: &mut State| {
            let over = state.closing && state.submitting == 0 && state.starved.is_empty();
            let placeable = !state.starved_rests && !state.starved.is_empty();
            !state.has_commit() && !placeable && !over
        };
        match timeout {
            Some(timeout) => drop(self.changed.wait_timeout_while(state, timeout, is_quiet)),
            None => drop(self.changed.wait_while(state, is_quiet)),
        }
    }
}
