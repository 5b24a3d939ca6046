//! Moving live values out of segments that are mostly dead.
//!
//! Values move by batches of the log like any other, whose entries count only if the value is still where
//! it was ([`EntryKind::Move`](crate::format::EntryKind)): writers go on meanwhile, and win. A segment is given
//! back like one that died by itself, after both checkpoints.

mod report;
mod share;
mod space;
mod victim;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::maintenance::{Pace, Work};
use super::{NvmeError, Shared};
use crate::format::FEATURE_MOVES;
pub use report::CompactionReport;
pub(super) use space::Lull;
use victim::{Load, Victim};

/// Bytes that one batch of a compaction moves at most, where a segment is that large.
const MOVE_BYTES: u64 = 8 << 20;

/// When a compaction has done enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// Nothing more is to be gained.
    All,
    /// The space that dead values take is well below what they may.
    Ease,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Again,
    NotBefore(Duration),
    /// A checkpoint has to be written before it goes on.
    Checkpoint,
    Done,
}

/// A compaction and how far it has come: choose a segment, collect, move, and at last two checkpoints.
#[derive(Debug)]
pub(super) struct Compaction {
    goal: Goal,
    /// Segments made later are left alone: no value moves twice.
    last_segment_id: u64,
    /// Segments that were looked at.
    done: BTreeSet<u64>,
    not_before: Duration,
    phase: Phase,
    /// Segments removed when a move had to wait for space.
    short_at: Option<u64>,
    report: CompactionReport,
    begun: Counts,
    begun_occupied_bytes: u64,
}

#[derive(Debug)]
enum Phase {
    Choose,
    Collect(Box<Victim>),
    Move(Box<Victim>, Load),
    Checkpoints(u32),
}

/// The store's counters when the compaction began.
#[derive(Debug, Clone, Copy)]
struct Counts {
    moved: u64,
    lost: u64,
    removed: u64,
}

impl Counts {
    fn of(shared: &Shared) -> Self {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            moved: load(&shared.counters.values_moved),
            lost: load(&shared.counters.moves_lost),
            removed: load(&shared.counters.segments_removed),
        }
    }
}

impl Compaction {
    pub(super) fn new(shared: &Shared, goal: Goal) -> Self {
        shared
            .counters
            .compactions_begun
            .fetch_add(1, Ordering::Relaxed);
        Self {
            goal,
            last_segment_id: shared.log().position().segment_id,
            done: BTreeSet::new(),
            not_before: Duration::ZERO,
            phase: Phase::Choose,
            short_at: None,
            report: CompactionReport::default(),
            begun: Counts::of(shared),
            begun_occupied_bytes: shared.occupied_bytes(),
        }
    }

    /// What was done so far.
    pub(super) fn report(&self, shared: &Shared) -> CompactionReport {
        let now = Counts::of(shared);
        CompactionReport {
            values_moved: now.moved - self.begun.moved,
            moves_lost: now.lost - self.begun.lost,
            segments_removed: now.removed - self.begun.removed,
            ..self.report.clone()
        }
    }

    /// A checkpoint was written.
    pub(super) fn checkpoint_done(&mut self) {
        if let Phase::Checkpoints(left) = &mut self.phase {
            *left = left.saturating_sub(1);
        }
    }

    /// Does the next piece of work.
    pub(super) fn step(
        &mut self,
        shared: &Shared,
        work: &mut Work,
        pace: Pace,
    ) -> Result<Outcome, NvmeError> {
        match std::mem::replace(&mut self.phase, Phase::Choose) {
            Phase::Choose => {
                self.phase = match self.choose(shared, work) {
                    Some(victim) => Phase::Collect(Box::new(victim)),
                    None if self.dead_segments(shared) > 0 => Phase::Checkpoints(2),
                    None => Phase::Checkpoints(0),
                };
            }
            Phase::Collect(mut victim) => {
                if let Pace::At(now) = pace
                    && now < self.not_before
                {
                    self.phase = Phase::Collect(victim);
                    return Ok(Outcome::NotBefore(self.not_before));
                }
                let bytes_max = MOVE_BYTES.min(shared.segment_bytes / 4);
                let load = victim.collect(shared, bytes_max, &mut self.report.damage)?;
                if load.draft.is_empty() {
                    self.finish(shared, work, &victim);
                } else {
                    self.phase = Phase::Move(victim, load);
                }
            }
            Phase::Move(victim, load) => {
                self.phase = match self.move_values(shared, load, pace) {
                    Ok(()) => Phase::Collect(victim),
                    Err(error) => self.give_back_first(shared, &victim, error)?,
                };
            }
            Phase::Checkpoints(0)
                if self
                    .short_at
                    .is_some_and(|at| at < Counts::of(shared).removed) =>
            {
                self.short_at = None;
            }
            Phase::Checkpoints(0) => {
                self.end(shared);
                return Ok(Outcome::Done);
            }
            Phase::Checkpoints(left) => {
                self.phase = Phase::Checkpoints(left);
                return Ok(Outcome::Checkpoint);
            }
        }
        Ok(Outcome::Again)
    }

    fn move_values(&mut self, shared: &Shared, load: Load, pace: Pace) -> Result<(), NvmeError> {
        shared.require_feature(FEATURE_MOVES)?;
        let bytes = load.draft.payload_bytes() as u64;
        // Its memory is what was set aside: it waits for nobody's.
        shared.commit_admitted(load.draft, load.extra)?;
        self.report.bytes_moved += bytes;
        shared
            .counters
            .bytes_moved
            .fetch_add(bytes, Ordering::Relaxed);
        if let (Pace::At(now), Some(rate)) = (pace, shared.config.compaction_bytes_per_second()) {
            let pause = bytes.saturating_mul(1_000_000_000) / rate.max(1);
            self.not_before = now.saturating_add(Duration::from_nanos(pause));
        }
        Ok(())
    }

    /// On a full disk: what died so far gives space, and then the segment's turn comes again.
    fn give_back_first(
        &mut self,
        shared: &Shared,
        victim: &Victim,
        error: NvmeError,
    ) -> Result<Phase, NvmeError> {
        let is_full = matches!(error, NvmeError::NoSpace { .. });
        if !is_full || self.dead_segments(shared) == 0 {
            return Err(error);
        }
        self.done.remove(&victim.segment().id);
        self.short_at = Some(Counts::of(shared).removed);
        Ok(Phase::Checkpoints(2))
    }

    /// All of a segment that could be moved was.
    fn finish(&mut self, shared: &Shared, work: &mut Work, victim: &Victim) {
        let segment = victim.segment();
        self.report.values_too_long += victim.too_long;
        shared
            .counters
            .moves_refused
            .fetch_add(victim.too_long, Ordering::Relaxed);
        if segment.live_values.load(Ordering::Acquire) == 0 {
            self.report.segments_compacted += 1;
        } else if victim.too_long == 0 {
            work.stuck.push(segment.id);
        }
    }

    fn end(&self, shared: &Shared) {
        shared
            .counters
            .compactions_finished
            .fetch_add(1, Ordering::Relaxed);
        // Segments that went are no measure: what was moved out of them may have filled as many.
        if shared.occupied_bytes() >= self.begun_occupied_bytes {
            shared.lull.begin(shared);
        }
    }
}
