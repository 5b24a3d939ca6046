//! Callers that arrive together share one commit.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::batch::{Draft, WriteBatch};
use super::commit::Commit;
use super::config::CommitStage;
use super::{NvmeError, Shared};
use crate::format::PAGE_BYTES;

/// Bytes that may wait for the commit under way; callers beyond them wait outside.
const QUEUE_BYTES_MAX: usize = 256 << 20;
/// Bytes after which a commit takes no more callers in.
const GROUP_BYTES: usize = 64 << 20;

#[derive(Debug, Default)]
pub(super) struct CommitQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// Whether some thread is committing.
    led: bool,
    next_ticket: u64,
    /// Outcomes of tickets that nobody has picked up yet.
    finished: Vec<(u64, Result<(), NvmeError>)>,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    draft: Draft,
}

impl CommitQueue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, QueueState>) -> MutexGuard<'a, QueueState> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    fn take_outcome(&mut self, ticket: u64) -> Option<Result<(), NvmeError>> {
        let at = self
            .finished
            .iter()
            .position(|(finished, _)| *finished == ticket)?;
        Some(self.finished.swap_remove(at).1)
    }

    /// The callers of the next commit, as many as fit into one batch of `batch_bytes_max`.
    fn next_group(&mut self, batch_bytes_max: u64) -> (Vec<u64>, Draft) {
        let mut group = Draft::default();
        let mut tickets = Vec::new();
        while let Some(next) = self.waiting.front() {
            let fits = group
                .batch_bytes_with(&next.draft)
                .is_some_and(|bytes| bytes <= batch_bytes_max);
            if !tickets.is_empty() && (!fits || group.payload_bytes() >= GROUP_BYTES) {
                break;
            }
            if let Some(next) = self.waiting.pop_front() {
                self.waiting_bytes -= next.draft.payload_bytes();
                tickets.push(next.ticket);
                group.append(next.draft);
            }
        }
        (tickets, group)
    }
}

/// Tells the callers of a commit how it ended, also if it ended in a panic.
struct Leading<'a> {
    shared: &'a Shared,
    tickets: Vec<u64>,
    outcome: Option<Result<(), NvmeError>>,
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(|| {
            // Nobody knows what is on disk.
            let reason = "a commit panicked".to_owned();
            let error = NvmeError::Poisoned { reason };
            self.shared.poison(&error);
            Err(error)
        });
        let mut state = self.shared.queue.lock();
        state.led = false;
        let tickets = std::mem::take(&mut self.tickets).into_iter();
        state
            .finished
            .extend(tickets.map(|ticket| (ticket, outcome.clone())));
        self.shared.queue.changed.notify_all();
    }
}

impl Shared {
    pub(super) fn write_batch(&self, batch: WriteBatch) -> Result<(), NvmeError> {
        self.check_writable()?;
        self.check_poison()?;
        if batch.is_empty() {
            return Ok(());
        }
        let draft = Draft::new(batch, self.alignment, self.config.compression())?;
        let batch_bytes_max = self.batch_bytes_max();
        let batch_bytes = draft.batch_bytes();
        if batch_bytes.is_none_or(|bytes| bytes > batch_bytes_max) {
            return Err(NvmeError::Invalid {
                field: "batch",
                reason: format!(
                    "{} bytes of values do not fit a segment ({batch_bytes_max} bytes); split the batch",
                    draft.payload_bytes()
                ),
            });
        }
        if draft.puts() {
            self.hold_writer()?;
        }
        let memory = self
            .buffers
            .budget()
            .reserve_for_batch(draft.payload_bytes() as u64)?;
        self.enqueue_and_wait(draft, batch_bytes_max)?;
        drop(memory);
        self.after_commit();
        Ok(())
    }

    /// Bytes of the longest batch.
    pub(super) fn batch_bytes_max(&self) -> u64 {
        self.segment_bytes - PAGE_BYTES as u64
    }

    pub(super) fn enqueue_and_wait(
        &self,
        draft: Draft,
        batch_bytes_max: u64,
    ) -> Result<(), NvmeError> {
        let bytes = draft.payload_bytes();
        let mut state = self.queue.lock();
        while state.waiting_bytes > 0 && state.waiting_bytes + bytes > QUEUE_BYTES_MAX {
            state = self.queue.wait(state);
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting_bytes += bytes;
        state.waiting.push_back(Waiting { ticket, draft });
        loop {
            if let Some(outcome) = state.take_outcome(ticket) {
                return outcome;
            }
            if state.led {
                state = self.queue.wait(state);
                continue;
            }
            state.led = true;
            let (tickets, group) = state.next_group(batch_bytes_max);
            drop(state);
            let mut leading = Leading {
                shared: self,
                tickets,
                outcome: None,
            };
            leading.outcome = Some(self.commit(group));
            drop(leading);
            state = self.queue.lock();
        }
    }

    fn commit(&self, draft: Draft) -> Result<(), NvmeError> {
        let mut log = self.log();
        self.check_open()?;
        self.check_poison()?;
        let result = Commit::new(self, &mut log, draft).run();
        self.config.observe(CommitStage::Idle);
        result
    }
}
