//! Callers that arrive together share a commit, and commits overlap: one is written while others are synced.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use core_view::BufferMut;
use core_view::contract::{Completer, Failure};

use super::batch::{Draft, WriteBatch};
use super::commit::Placed;
use super::config::CommitStage;
use super::encoding::CompressionType;
use super::memory::Reservation;
use super::pieces::COPY_BELOW_BYTES;
use super::{NvmeError, Shared};
use crate::format::PAGE_BYTES;

/// Bytes that may wait for the commits under way; callers beyond them wait outside.
const QUEUE_BYTES_MAX: u64 = 256 << 20;
/// Bytes after which a commit takes no more callers in.
const GROUP_BYTES: usize = 64 << 20;
/// Batches that may be written or being written without being synced: what recovery checks byte by byte.
pub(super) const UNSYNCED_BATCHES_MAX: usize = 4;

/// Batches on their way, from callers to acknowledgement.
#[derive(Debug, Default)]
pub(super) struct CommitQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
    /// Sequence of the newest batch that is known to be synced.
    synced_sequence: AtomicU64,
}

#[derive(Debug, Default)]
struct QueueState {
    /// Whether the disk was full when a segment was needed: then what adds does not share a batch with what
    /// gives space back.
    short: bool,
    waiting: VecDeque<Waiting>,
    waiting_bytes: u64,
    /// Batches whose writes are done, in order.
    written: VecDeque<Written>,
    /// Whether some thread is writing a batch.
    writing: bool,
    /// Whether some thread is syncing and publishing batches.
    syncing: bool,
    /// Batches that have a place and are not published.
    unsynced: usize,
    /// Threads that want no commit to be under way.
    pauses: usize,
    /// A batch was not made durable: what came after it does not count, whatever becomes of it.
    broken: bool,
    next_ticket: u64,
    /// Outcomes of tickets that nobody has picked up yet.
    finished: Vec<(u64, Result<(), NvmeError>)>,
    statistics: QueueStatistics,
}

/// What the queue has done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct QueueStatistics {
    /// Batches that were placed while the one before was not synced.
    pub(super) batches_overlapped: u64,
    /// Batches that were synced together with the one before.
    pub(super) syncs_shared: u64,
    /// Callers that had to wait because the queue was full.
    pub(super) waits: u64,
}

/// Whom to tell.
#[derive(Debug)]
enum Caller {
    /// Somebody who waits, and works meanwhile.
    Ticket,
    /// Somebody who has a transfer.
    Transfer(Completer<()>),
}

/// Changes of one caller.
#[derive(Debug)]
struct Waiting {
    ticket: u64,
    caller: Caller,
    draft: Draft,
    memory: Reservation,
}

/// The callers of one batch.
#[derive(Debug, Default)]
struct Callers {
    members: Vec<(u64, Caller)>,
    memory: Vec<Reservation>,
}

/// A batch that waits for its sync.
struct Written {
    placed: Placed,
    callers: Callers,
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Written").finish_non_exhaustive()
    }
}

/// What there is to do.
enum Task {
    Write(Callers, Draft),
    Sync(VecDeque<Written>),
}

/// Which stage to choose where both can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefer {
    /// Whoever waits for it is told soonest.
    Sync,
    /// As many batches as may be are under way at once.
    Write,
}

impl CommitQueue {
    /// Nothing under way, after the batch of this sequence.
    pub(super) fn after(synced_sequence: u64) -> Self {
        Self {
            synced_sequence: AtomicU64::new(synced_sequence),
            ..Self::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, QueueState>) -> MutexGuard<'a, QueueState> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn synced_sequence(&self) -> u64 {
        self.synced_sequence.load(Ordering::Acquire)
    }

    pub(super) fn set_synced_sequence(&self, sequence: u64) {
        self.synced_sequence.store(sequence, Ordering::Release);
    }

    pub(super) fn statistics(&self) -> QueueStatistics {
        self.lock().statistics
    }

    /// Whether the disk was full when a segment was needed, and may be so still.
    pub(super) fn is_short(&self) -> bool {
        self.lock().short
    }

    pub(super) fn set_short(&self, short: bool) {
        self.lock().short = short;
    }

    /// Wakes whoever waits for something to do.
    pub(super) fn wake_all(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Gives callers their outcome, and their memory back.
    fn tell(&self, callers: Callers, outcome: &Result<(), NvmeError>) {
        let mut transfers = Vec::new();
        drop(callers.memory);
        let mut state = self.lock();
        for (ticket, caller) in callers.members {
            match caller {
                Caller::Ticket => state.finished.push((ticket, outcome.clone())),
                Caller::Transfer(completer) => transfers.push(completer),
            }
        }
        drop(state);
        self.changed.notify_all();
        for completer in transfers {
            completer.complete(outcome.clone().map_err(failure));
        }
    }
}

pub(super) fn failure(error: NvmeError) -> Failure {
    Failure::from(core_view::contract::ContractError::from(error))
}

impl QueueState {
    fn take_outcome(&mut self, ticket: u64) -> Option<Result<(), NvmeError>> {
        let at = self
            .finished
            .iter()
            .position(|(finished, _)| *finished == ticket)?;
        Some(self.finished.swap_remove(at).1)
    }

    fn can_sync(&self) -> bool {
        !self.syncing && !self.written.is_empty()
    }

    fn can_write(&self) -> bool {
        !self.writing
            && self.pauses == 0
            && !self.waiting.is_empty()
            && self.unsynced < UNSYNCED_BATCHES_MAX
    }

    /// A stage to do, with the right to do it taken.
    fn next_task(&mut self, batch_bytes_max: u64, prefer: Prefer) -> Option<Task> {
        let can_write = self.can_write();
        if self.can_sync() && !(can_write && prefer == Prefer::Write) {
            return Some(self.begin_sync());
        }
        can_write.then(|| self.begin_write(batch_bytes_max))
    }

    /// A stage that brings the batch of `ticket` on. Others are left to those who wait for them: nobody's
    /// outcome is late because he works for somebody else.
    fn next_task_for(&mut self, ticket: u64, batch_bytes_max: u64) -> Option<Task> {
        let first_waiting = self.waiting.front().map_or(u64::MAX, |next| next.ticket);
        if ticket >= first_waiting {
            if self.can_write() {
                return Some(self.begin_write(batch_bytes_max));
            }
            // The batches in front are somebody's, unless all of theirs went away.
            return self.can_sync().then(|| self.begin_sync());
        }
        self.can_sync().then(|| self.begin_sync())
    }

    fn begin_sync(&mut self) -> Task {
        self.syncing = true;
        Task::Sync(std::mem::take(&mut self.written))
    }

    /// Takes the callers of the next batch, as many as fit into one of `batch_bytes_max`.
    fn begin_write(&mut self, batch_bytes_max: u64) -> Task {
        self.writing = true;
        self.statistics.batches_overlapped += u64::from(self.unsynced > 0);
        self.unsynced += 1;
        let mut group = Draft::default();
        let mut callers = Callers::default();
        while let Some(next) = self.waiting.front() {
            let fits = group
                .batch_bytes_with(&next.draft)
                .is_some_and(|bytes| bytes <= batch_bytes_max);
            // On a full disk, what gives space back gets in where the rest does not.
            let is_other = self.short && next.draft.adds() != group.adds();
            let is_full = !fits || is_other || group.payload_bytes() >= GROUP_BYTES;
            if !callers.members.is_empty() && is_full {
                break;
            }
            if let Some(next) = self.waiting.pop_front() {
                self.waiting_bytes -= next.memory.bytes();
                callers.members.push((next.ticket, next.caller));
                callers.memory.push(next.memory);
                group.append(next.draft);
            }
        }
        Task::Write(callers, group)
    }
}

/// The right to write a batch; gives it back, also if that ended in a panic.
struct Writing<'a> {
    shared: &'a Shared,
    callers: Callers,
}

impl Writing<'_> {
    fn run(mut self, draft: Draft) {
        let outcome = self.shared.write_stage(draft);
        let callers = std::mem::take(&mut self.callers);
        match outcome {
            Ok(placed) => {
                let mut state = self.shared.queue.lock();
                state.written.push_back(Written { placed, callers });
            }
            Err(error) => {
                let mut state = self.shared.queue.lock();
                state.unsynced -= 1;
                drop(state);
                self.shared.queue.tell(callers, &Err(error));
            }
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let callers = std::mem::take(&mut self.callers);
        let panicked = !callers.members.is_empty();
        let outcome = panicked.then(|| self.shared.poison_by_panic());
        let mut state = self.shared.queue.lock();
        state.writing = false;
        state.unsynced -= usize::from(panicked);
        drop(state);
        match outcome {
            Some(error) => self.shared.queue.tell(callers, &Err(error)),
            None => self.shared.queue.changed.notify_all(),
        }
    }
}

/// The right to sync and publish; gives it back, also if that ended in a panic.
struct Syncing<'a> {
    shared: &'a Shared,
    batches: VecDeque<Written>,
    /// Callers of the batch that is being worked on.
    current: Option<Callers>,
}

impl Syncing<'_> {
    fn run(mut self) {
        let mut is_synced = false;
        while let Some(Written { placed, callers }) = self.batches.pop_front() {
            self.current = Some(callers);
            let outcome = self.commit(placed, &mut is_synced);
            let callers = self.current.take().unwrap_or_default();
            let mut state = self.shared.queue.lock();
            state.unsynced -= 1;
            state.broken |= outcome.is_err();
            drop(state);
            self.shared.queue.tell(callers, &outcome);
        }
    }

    /// Syncs a batch, unless a sync before did, and publishes it.
    fn commit(&self, placed: Placed, is_synced: &mut bool) -> Result<(), NvmeError> {
        if self.shared.queue.lock().broken {
            self.shared.check_poison()?;
        }
        if *is_synced {
            self.shared.queue.lock().statistics.syncs_shared += 1;
        } else {
            // All of these batches are written: one sync is enough for those in one segment.
            self.shared.sync_stage(&placed)?;
        }
        let next = self.batches.front();
        *is_synced = next.is_some_and(|next| next.placed.shares_segment(&placed));
        self.shared.publish_stage(placed);
        Ok(())
    }
}

impl Drop for Syncing<'_> {
    fn drop(&mut self) {
        let panicked = self.current.take().map(|callers| {
            let error = self.shared.poison_by_panic();
            (callers, error)
        });
        let mut state = self.shared.queue.lock();
        state.syncing = false;
        if panicked.is_some() {
            state.unsynced -= 1;
            state.broken = true;
        }
        // What was not looked at fails when its turn comes.
        while let Some(written) = self.batches.pop_back() {
            state.written.push_front(written);
        }
        drop(state);
        match panicked {
            Some((callers, error)) => self.shared.queue.tell(callers, &Err(error)),
            None => self.shared.queue.changed.notify_all(),
        }
    }
}

impl Shared {
    fn poison_by_panic(&self) -> NvmeError {
        // Nobody knows what is on disk.
        let reason = "a commit panicked".to_owned();
        let error = NvmeError::Poisoned { reason };
        self.poison(&error);
        error
    }

    /// Bytes of the longest batch.
    pub(super) fn batch_bytes_max(&self) -> u64 {
        self.segment_bytes - PAGE_BYTES as u64
    }

    /// A batch as a draft that can be committed; `None` if it changes nothing. It may wait for compaction, and
    /// so for others: who calls it holds none of the memory of batches.
    pub(super) fn draft(&self, batch: WriteBatch) -> Result<Option<Draft>, NvmeError> {
        self.check_writes()?;
        if batch.is_empty() {
            return Ok(None);
        }
        let draft = self.new_draft(batch)?;
        if draft.puts() {
            self.hold_writer()?;
        } else if self.is_pressed() {
            // Compaction must not be too late for what is left.
            self.make_room()?;
        }
        Ok(Some(draft))
    }

    fn check_writes(&self) -> Result<(), NvmeError> {
        self.check_open()?;
        self.check_writable()?;
        self.check_poison()
    }

    fn new_draft(&self, batch: WriteBatch) -> Result<Draft, NvmeError> {
        let mut draft = Draft::new(batch, self.alignment)?;
        if self.config.compression() == CompressionType::None {
            self.check_fits(&draft)?;
        }
        self.reserve_index(&mut draft)?;
        Ok(draft)
    }

    fn check_fits(&self, draft: &Draft) -> Result<(), NvmeError> {
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
        Ok(())
    }

    pub(super) fn write_batch(&self, batch: WriteBatch) -> Result<(), NvmeError> {
        let removed_keys = batch.removed_keys();
        let Some(draft) = self.draft(batch)? else {
            return Ok(());
        };
        match (self.commit(draft), removed_keys) {
            (Err(NvmeError::NoSpace { .. }), Some(keys)) => self.remove_when_full(&keys),
            (outcome, _) => outcome,
        }
    }

    /// Removes keys where there was no space for it at first.
    fn remove_when_full(&self, keys: &[Vec<u8>]) -> Result<(), NvmeError> {
        let draft = || {
            let keys = keys.iter().map(Vec::as_slice);
            self.new_draft(keys.fold(WriteBatch::new(), WriteBatch::delete))
        };
        // They may have shared a batch with what did not fit; they do not again.
        match self.commit(draft()?) {
            Err(NvmeError::NoSpace { .. }) => {
                self.make_room()?;
                self.commit(draft()?)
            }
            outcome => outcome,
        }
    }

    /// Commits one value that is copied once, into memory that goes to the device where it is long enough.
    pub(super) fn write_copy(&self, key: &[u8], data: &[u8]) -> Result<(), NvmeError> {
        self.check_writes()?;
        self.hold_writer()?;
        // With the header, and a copy of the last page if it is not full.
        let draft_bytes = Draft::moved_memory_bytes(key.len(), data.len() as u64);
        let compression = self.config.compression();
        let scratch_bytes = Draft::scratch_bytes_for(data.len(), compression, &self.buffers);
        let memory = self.admit(draft_bytes + 3 * PAGE_BYTES as u64 + scratch_bytes)?;
        let value = if data.len() < COPY_BELOW_BYTES {
            BufferMut::from_vec(data.to_vec())
        } else {
            self.paged_copy(data)?
        };
        let draft = self.new_draft(WriteBatch::new().put(key, value))?;
        let (draft, memory) = self.compressed(draft, memory)?;
        self.commit_admitted(draft, memory)
    }

    /// A copy in whole pages of lent memory, which was reserved.
    fn paged_copy(&self, data: &[u8]) -> Result<BufferMut, NvmeError> {
        let whole_bytes = data.len().next_multiple_of(PAGE_BYTES);
        let mut value = self.buffers.lend_reserved(whole_bytes)?;
        value[..data.len()].copy_from_slice(data);
        drop(value.split_off(data.len()));
        Ok(value)
    }

    /// Commits a draft, with others if there are any.
    pub(super) fn commit(&self, draft: Draft) -> Result<(), NvmeError> {
        let (draft, memory) = self.let_in(draft)?;
        self.commit_admitted(draft, memory)
    }

    /// Takes memory for a draft, and compresses its values in it.
    fn let_in(&self, draft: Draft) -> Result<(Draft, Reservation), NvmeError> {
        let scratch_bytes = draft.scratch_bytes(self.config.compression(), &self.buffers);
        let memory = self.admit(draft.memory_bytes() + scratch_bytes)?;
        self.compressed(draft, memory)
    }

    /// Compresses the values of a draft, and gives back what it does not need of its memory.
    fn compressed(
        &self,
        mut draft: Draft,
        mut memory: Reservation,
    ) -> Result<(Draft, Reservation), NvmeError> {
        let compression = self.config.compression();
        if compression != CompressionType::None {
            draft.compress(compression, self.alignment, &self.buffers)?;
            self.check_fits(&draft)?;
        }
        memory.shrink(memory.bytes().saturating_sub(draft.memory_bytes()));
        Ok((draft, memory))
    }

    /// As [`commit`](Self::commit), for a draft whose memory was taken.
    pub(super) fn commit_admitted(
        &self,
        draft: Draft,
        memory: Reservation,
    ) -> Result<(), NvmeError> {
        let ticket = self.enqueue(draft, memory, Caller::Ticket);
        let mut state = self.queue.lock();
        loop {
            if let Some(outcome) = state.take_outcome(ticket) {
                return outcome;
            }
            state = match state.next_task_for(ticket, self.batch_bytes_max()) {
                Some(task) => {
                    drop(state);
                    self.run(task);
                    self.queue.lock()
                }
                None => self.queue.wait(state),
            };
        }
    }

    /// Adds a draft to those that wait; its outcome goes to `completer`.
    pub(super) fn submit(&self, draft: Draft, completer: Completer<()>) {
        match self.let_in(draft) {
            Ok((draft, memory)) => {
                self.enqueue(draft, memory, Caller::Transfer(completer));
                if self.check_open().is_err() {
                    self.refuse_waiting();
                }
            }
            Err(error) => completer.complete(Err(failure(error))),
        }
    }

    fn enqueue(&self, draft: Draft, memory: Reservation, caller: Caller) -> u64 {
        let mut state = self.queue.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting_bytes += memory.bytes();
        state.waiting.push_back(Waiting {
            ticket,
            caller,
            draft,
            memory,
        });
        drop(state);
        self.queue.changed.notify_all();
        ticket
    }

    /// Tells those who wait that the store is closed, which it is.
    pub(super) fn refuse_waiting(&self) {
        while self.step(Prefer::Sync) {}
    }

    /// Takes memory for a draft, and waits while too much is in front of it, working meanwhile.
    pub(super) fn admit(&self, bytes: u64) -> Result<Reservation, NvmeError> {
        let mut has_waited = false;
        let mut state = self.queue.lock();
        while state.waiting_bytes > 0 && state.waiting_bytes + bytes > QUEUE_BYTES_MAX {
            if !std::mem::replace(&mut has_waited, true) {
                state.statistics.waits += 1;
            }
            state = match state.next_task(self.batch_bytes_max(), Prefer::Sync) {
                Some(task) => {
                    drop(state);
                    self.run(task);
                    self.queue.lock()
                }
                None => self.queue.wait(state),
            };
        }
        drop(state);
        // What waits may have nobody else to work for it.
        let budget = self.buffers.budget();
        budget.reserve_for_batch(bytes, || self.step(Prefer::Sync))
    }

    /// Does a stage, if there is one to do that nobody does.
    fn step(&self, prefer: Prefer) -> bool {
        let task = self.queue.lock().next_task(self.batch_bytes_max(), prefer);
        match task {
            Some(task) => {
                self.run(task);
                true
            }
            None => false,
        }
    }

    /// As [`step`](Self::step), with as many batches under way as may be.
    pub(super) fn step_overlapping(&self) -> bool {
        self.step(Prefer::Write)
    }

    /// Does a stage, or waits until there may be one; not longer than `timeout`, nor once `stopping`.
    pub(super) fn step_or_wait(&self, timeout: Option<Duration>, stopping: Option<&AtomicBool>) {
        let mut state = self.queue.lock();
        if stopping.is_some_and(|stopping| stopping.load(Ordering::Acquire)) {
            return;
        }
        if let Some(task) = state.next_task(self.batch_bytes_max(), Prefer::Sync) {
            drop(state);
            self.run(task);
            return;
        }
        match timeout {
            Some(timeout) => drop(self.queue.changed.wait_timeout(state, timeout)),
            None => drop(self.queue.wait(state)),
        }
    }

    fn run(&self, task: Task) {
        match task {
            Task::Write(callers, draft) => {
                let writing = Writing {
                    shared: self,
                    callers,
                };
                writing.run(draft);
            }
            Task::Sync(batches) => {
                let syncing = Syncing {
                    shared: self,
                    batches,
                    current: None,
                };
                syncing.run();
                self.config.observe(CommitStage::Idle);
                self.after_commit();
            }
        }
    }

    /// Waits until no commit is under way, and lets none begin until the result is dropped.
    pub(super) fn pause(&self) -> Paused<'_> {
        let mut state = self.queue.lock();
        state.pauses += 1;
        while state.writing || state.syncing || !state.written.is_empty() {
            state = if state.can_sync() {
                let task = state.begin_sync();
                drop(state);
                self.run_alone(task);
                self.queue.lock()
            } else {
                self.queue.wait(state)
            };
        }
        state.pauses -= 1;
        state.writing = true;
        state.syncing = true;
        Paused { shared: self }
    }

    /// Without what is due after a commit.
    fn run_alone(&self, task: Task) {
        if let Task::Sync(batches) = task {
            let syncing = Syncing {
                shared: self,
                batches,
                current: None,
            };
            syncing.run();
        }
    }
}

/// No commit is under way.
pub(super) struct Paused<'a> {
    shared: &'a Shared,
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.queue.lock();
        state.writing = false;
        state.syncing = false;
        drop(state);
        self.shared.queue.changed.notify_all();
    }
}
