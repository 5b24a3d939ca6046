//! What is done beside reads and writes: checkpoints, compaction, and giving segments back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::checkpoint::{CHECKPOINT_NAMES, CheckpointWrite};
use super::compaction::{Compaction, CompactionReport, Goal, Outcome};
use super::config::CommitStage;
use super::recovery::blank_behind;
use super::{NvmeError, Shared};
use crate::FileName;

/// Bytes of log that are replayed in about the time that a segment's headers take to read.
const LOG_BYTES_PER_CHECKPOINT: u64 = 256 << 20;

/// What one step of background work came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackgroundStep {
    /// Nothing is to be done.
    Idle,
    /// There is more to do at once.
    Again,
    /// There is more to do, from this time on: the work is held to its rate.
    NotBefore(Duration),
}

/// How fast the work may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// As configured, this being the time.
    At(Duration),
    /// As fast as it can: somebody waits for it.
    Full,
}

/// The work under way; whoever holds it does the next step.
#[derive(Debug, Default)]
pub(super) struct Maintenance {
    state: Mutex<Work>,
    /// Whether something has begun and is not done.
    active: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct Work {
    /// Generation of the newest checkpoint.
    pub(super) generation: u64,
    /// Which file the next checkpoint replaces: the older one's.
    pub(super) turn: bool,
    /// Segments that were dead at the newest checkpoint: they go after the next.
    pub(super) retiring: Vec<u64>,
    checkpoint: Option<CheckpointWrite>,
    pub(super) compaction: Option<Compaction>,
    /// Segments that can't be emptied because something in them is damaged.
    pub(super) stuck: Vec<u64>,
}

impl Maintenance {
    pub(super) fn new(generation: u64, turn: bool) -> Self {
        let work = Work {
            generation,
            turn,
            ..Work::default()
        };
        Self {
            state: Mutex::new(work),
            active: AtomicBool::new(false),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Work> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` while somebody else is at work.
    fn try_lock(&self) -> Option<MutexGuard<'_, Work>> {
        match self.state.try_lock() {
            Ok(work) => Some(work),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }
}

impl Work {
    /// Does the next step of what is under way, or begins what is due.
    pub(super) fn step(
        &mut self,
        shared: &Shared,
        pace: Pace,
    ) -> Result<BackgroundStep, NvmeError> {
        shared.check_open()?;
        shared.check_poison()?;
        let step = self.step_unguarded(shared, pace);
        let active = self.checkpoint.is_some() || self.compaction.is_some();
        shared.maintenance.active.store(active, Ordering::Release);
        step
    }

    fn step_unguarded(&mut self, shared: &Shared, pace: Pace) -> Result<BackgroundStep, NvmeError> {
        if shared.preparation_is_due() {
            shared.prepare_segment();
            return Ok(BackgroundStep::Again);
        }
        if self.checkpoint.is_some() {
            self.step_checkpoint(shared)?;
            return Ok(BackgroundStep::Again);
        }
        if shared.reserve_is_due() {
            shared.make_reserve()?;
        }
        if shared.checkpoint_is_due() {
            self.begin_checkpoint(shared, false)?;
            return Ok(BackgroundStep::Again);
        }
        let begun = self.compaction.take();
        let Some(mut compaction) = begun.or_else(|| Compaction::if_due(shared, self)) else {
            return Ok(BackgroundStep::Idle);
        };
        // A failure ends the compaction: what it moved has moved.
        let outcome = compaction.step(shared, self, pace)?;
        Ok(match outcome {
            Outcome::Again => {
                self.compaction = Some(compaction);
                BackgroundStep::Again
            }
            Outcome::NotBefore(time) => {
                self.compaction = Some(compaction);
                BackgroundStep::NotBefore(time)
            }
            Outcome::Checkpoint => {
                self.compaction = Some(compaction);
                self.begin_checkpoint(shared, false)?;
                BackgroundStep::Again
            }
            Outcome::Done => BackgroundStep::Again,
        })
    }

    fn begin_checkpoint(&mut self, shared: &Shared, clean: bool) -> Result<(), NvmeError> {
        shared.config.observe(CommitStage::Checkpoint);
        let target = FileName::new(CHECKPOINT_NAMES[usize::from(self.turn)])?;
        let generation = self.generation + 1;
        let mut begun = CheckpointWrite::begin(shared, generation, target.clone(), clean);
        if matches!(begun, Err(NvmeError::NoSpace { .. })) && shared.remove_spares() {
            begun = CheckpointWrite::begin(shared, generation, target, clean);
        }
        self.checkpoint = Some(begun.inspect_err(|error| shared.checkpoint_failed(error))?);
        Ok(())
    }

    fn step_checkpoint(&mut self, shared: &Shared) -> Result<(), NvmeError> {
        let Some(mut checkpoint) = self.checkpoint.take() else {
            return Ok(());
        };
        let done = checkpoint
            .step(shared)
            .inspect_err(|error| shared.checkpoint_failed(error))?;
        if !done {
            self.checkpoint = Some(checkpoint);
            return Ok(());
        }
        self.generation += 1;
        self.turn = !self.turn;
        shared
            .log_bytes
            .fetch_sub(checkpoint.log_bytes, Ordering::AcqRel);
        shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.retire_segments(shared, checkpoint.dead);
        shared.config.observe(CommitStage::Idle);
        if let Some(compaction) = &mut self.compaction {
            compaction.checkpoint_done();
        }
        Ok(())
    }

    /// A checkpoint from its beginning to its end.
    fn write_checkpoint(&mut self, shared: &Shared, clean: bool) -> Result<(), NvmeError> {
        self.begin_checkpoint(shared, clean)?;
        while self.checkpoint.is_some() {
            self.step_checkpoint(shared)?;
        }
        Ok(())
    }
}

impl Shared {
    /// Whether replaying what is newer than the checkpoint would take long beside writing another one.
    fn checkpoint_is_due(&self) -> bool {
        let log_bytes = LOG_BYTES_PER_CHECKPOINT.min(4 * self.segment_bytes);
        let grown_bytes = self.log_bytes.load(Ordering::Acquire);
        grown_bytes >= log_bytes && grown_bytes >= 8 * self.index.record_bytes()
    }

    fn checkpoint_failed(&self, error: &NvmeError) {
        self.counters.checkpoint_failed();
        // It costs the next open some time, and nothing else; the next try comes when more was written.
        self.log_bytes.store(0, Ordering::Release);
        self.config.observe(CommitStage::Idle);
        // After a failed rename or sync nobody knows which file a power loss would leave.
        let is_harmless = matches!(
            error,
            NvmeError::NoSpace { .. } | NvmeError::MemoryLimit { .. }
        );
        if !is_harmless {
            self.poison(error);
        }
    }

    /// A checkpoint of what is there now.
    pub(super) fn checkpoint(&self) -> Result<(), NvmeError> {
        self.check_writable()?;
        let mut work = self.maintenance.lock();
        self.check_open()?;
        self.check_poison()?;
        // One under way began before what the caller has in mind.
        while work.checkpoint.is_some() {
            work.step_checkpoint(self)?;
        }
        work.write_checkpoint(self, false)
    }

    /// Moves what lives out of every segment where that gains something, and gives the segments back.
    pub(super) fn compact(&self) -> Result<CompactionReport, NvmeError> {
        self.check_writable()?;
        let mut work = self.maintenance.lock();
        self.check_open()?;
        self.check_poison()?;
        work.stuck.clear();
        work.compaction = Some(Compaction::new(self, Goal::All));
        loop {
            // The last step writes nothing.
            let report = work
                .compaction
                .as_ref()
                .map(|compaction| compaction.report(self));
            work.step(self, Pace::Full)?;
            if let (None, Some(report)) = (&work.compaction, report) {
                // Who asks for a compaction wants the space.
                self.remove_spares();
                return Ok(report);
            }
        }
    }

    /// As [`Shared::compact`], done by the steps of the background.
    pub(super) fn begin_compaction(&self) -> Result<(), NvmeError> {
        self.check_writable()?;
        let mut work = self.maintenance.lock();
        self.check_open()?;
        work.stuck.clear();
        work.compaction = Some(Compaction::new(self, Goal::All));
        self.maintenance.active.store(true, Ordering::Release);
        drop(work);
        self.background.wake();
        Ok(())
    }

    pub(super) fn step_background(&self, now: Duration) -> Result<BackgroundStep, NvmeError> {
        self.check_writable()?;
        self.maintenance.lock().step(self, Pace::At(now))
    }

    /// After a commit: wakes the thread that does what is due, or does a step of it where there is none.
    pub(super) fn after_commit(&self) {
        if !self.maintenance.active.load(Ordering::Acquire)
            && !self.checkpoint_is_due()
            && !self.compaction_is_due()
            && !self.reserve_is_due()
            && !self.preparation_is_due()
        {
            return;
        }
        if self.background.is_running() {
            self.background.wake();
        } else if let Some(mut work) = self.maintenance.try_lock() {
            // What fails here is counted, and none of the caller's business: his batch is durable.
            let mut step = work.step(self, Pace::Full);
            while self.is_pressed() && matches!(step, Ok(BackgroundStep::Again)) {
                step = work.step(self, Pace::Full);
            }
        }
    }

    /// Whether the next deletes and moves have only what is left of the segment that was kept back.
    pub(super) fn is_pressed(&self) -> bool {
        self.queue.is_short() && !self.reserve.has_segment()
    }

    /// On a full disk: gives back what can be given back.
    pub(super) fn make_room(&self) -> Result<(), NvmeError> {
        let mut work = self.maintenance.lock();
        if work.compaction.is_none() {
            work.compaction = Some(Compaction::new(self, Goal::All));
        }
        loop {
            match work.step(self, Pace::Full) {
                Ok(BackgroundStep::Again) => {}
                Ok(_) | Err(NvmeError::NoSpace { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps a writer back while dead values take more than they may, as long as there is something to be
    /// done about it.
    pub(super) fn hold_writer(&self) -> Result<(), NvmeError> {
        if !self.space_is_exceeded() {
            return Ok(());
        }
        self.counters.writers_held.fetch_add(1, Ordering::Relaxed);
        // Segments that went are no measure: what was moved out of them may have filled as many.
        let mut occupied_before = self.occupied_bytes();
        while self.space_is_exceeded() {
            let mut work = self.maintenance.lock();
            let step = match work.step(self, Pace::Full) {
                Ok(step) => step,
                // What keeps the work from being done is counted there, and need not keep the writer.
                Err(_) => {
                    self.check_open()?;
                    self.check_poison()?;
                    BackgroundStep::Idle
                }
            };
            let is_over = work.compaction.is_none() && work.checkpoint.is_none();
            drop(work);
            let occupied = self.occupied_bytes();
            if step == BackgroundStep::Idle || (is_over && occupied >= occupied_before) {
                // Somebody else's steps may have helped meanwhile.
                let is_exceeded = u64::from(self.space_is_exceeded());
                self.counters
                    .space_exceeded
                    .fetch_add(is_exceeded, Ordering::Relaxed);
                break;
            }
            if is_over {
                occupied_before = occupied;
            }
        }
        Ok(())
    }

    /// Both checkpoints, marked as written by a clean close.
    pub(super) fn close(&self) -> Result<(), NvmeError> {
        self.background.stop();
        if self.read_only.is_some() {
            return Ok(());
        }
        let mut work = self.maintenance.lock();
        (work.checkpoint, work.compaction) = (None, None);
        self.check_poison()?;
        let log = self.log();
        let active = log.active.as_ref();
        if let Some(file) = active.and_then(|segment| segment.file.as_ref()) {
            // No checkpoint is being written.
            let part_bytes = self.buffers.budget().checkpoint_bytes() as usize / 2;
            blank_behind(&**file, log.offset_bytes, &self.buffers, part_bytes);
        }
        drop(log);
        work.write_checkpoint(self, true)?;
        work.write_checkpoint(self, true)?;
        self.remove_spares();
        Ok(())
    }
}
