//! How much space dead values may take, and which segment to empty next.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::Shared;
use super::super::log::Segment;
use super::super::maintenance::Work;
use super::share::Share;
use super::{Compaction, Goal, MOVE_BYTES, Victim};
use crate::format::PAGE_BYTES;

/// Segments that are not counted: the one that is written, and what is on its way out.
const SPARE_SEGMENTS: u64 = 4;

/// When there was nothing to gain; it is not worth looking again before something changed.
#[derive(Debug)]
pub(in super::super) struct Lull {
    segments_made: AtomicU64,
    live_log_bytes: AtomicU64,
}

impl Default for Lull {
    fn default() -> Self {
        Self {
            segments_made: AtomicU64::new(u64::MAX),
            live_log_bytes: AtomicU64::new(0),
        }
    }
}

impl Lull {
    pub(super) fn begin(&self, shared: &Shared) {
        let made = shared.counters.segments_made.load(Ordering::Relaxed);
        let live_log_bytes = shared.segments.live_log_bytes();
        self.live_log_bytes.store(live_log_bytes, Ordering::Relaxed);
        self.segments_made.store(made, Ordering::Relaxed);
    }

    fn lasts(&self, shared: &Shared) -> bool {
        let made = shared.counters.segments_made.load(Ordering::Relaxed);
        let before = self.live_log_bytes.load(Ordering::Relaxed);
        self.segments_made.load(Ordering::Relaxed) == made
            && shared.segments.live_log_bytes() + shared.segment_bytes / 2 > before
    }
}

impl Shared {
    /// Bytes that segments may take if `amplification` times what is live is allowed.
    fn allowed_bytes(&self, amplification: f64) -> u64 {
        let live = self.segments.live_log_bytes() as f64;
        (live * amplification) as u64 + SPARE_SEGMENTS * self.segment_bytes
    }

    pub(in super::super) fn occupied_bytes(&self) -> u64 {
        self.segments.count() * self.segment_bytes
    }

    /// A part of the way from no amplification to the most that is allowed.
    fn amplification_at(&self, part: f64) -> f64 {
        1.0 + (self.config.space_amplification_max() - 1.0) * part
    }

    /// Whether segments take more than they may, so that writers have to wait.
    pub(in super::super) fn space_is_exceeded(&self) -> bool {
        self.occupied_bytes() > self.allowed_bytes(self.config.space_amplification_max())
    }

    /// Whether it is time to compact, ahead of the limit.
    pub(in super::super) fn compaction_is_due(&self) -> bool {
        (self.occupied_bytes() > self.allowed_bytes(self.amplification_at(0.75))
            || self.queue.is_short())
            && !self.lull.lasts(self)
    }

    /// Bytes of the log that `segment` would give back: the dead ones less what the live ones take anew.
    fn gain_bytes(&self, segment: &Segment) -> u64 {
        let live = segment.live_log_bytes.load(Ordering::Acquire);
        // Each batch ends its header and its packed values with a page that is not full. Two in a row are
        // longer than one may be, and one may be as short as a value.
        let share = Share::of(self.buffers.budget().compaction_bytes());
        let batch_bytes = MOVE_BYTES
            .min(self.segment_bytes / 4)
            .min(share.values_bytes / 2);
        let values = segment.live_values.load(Ordering::Acquire);
        let batches = values.min(1 + 2 * live / batch_bytes.max(1));
        let used = segment.used_bytes.load(Ordering::Acquire);
        // The first page is the segment's own header.
        used.saturating_sub(live + (1 + 2 * batches) * PAGE_BYTES as u64)
    }
}

impl Compaction {
    /// A compaction, if it is time for one and it gains something.
    pub(in super::super) fn if_due(shared: &Shared, work: &Work) -> Option<Self> {
        if !shared.compaction_is_due() {
            return None;
        }
        let goal = if shared.queue.is_short() {
            Goal::All
        } else {
            Goal::Ease
        };
        let mut compaction = Self::new(shared, goal);
        if compaction.dead_segments(shared) == 0 && compaction.next_segment(shared, work).is_none()
        {
            compaction.end(shared);
            return None;
        }
        Some(compaction)
    }

    /// Segments that two checkpoints would give back.
    pub(super) fn dead_segments(&self, shared: &Shared) -> u64 {
        let segments = shared.segments.all();
        let is_dead = |segment: &&std::sync::Arc<Segment>| {
            segment.id < self.last_segment_id && segment.live_values.load(Ordering::Acquire) == 0
        };
        segments.iter().filter(is_dead).count() as u64
    }

    /// The segment that gives most space back for the fewest bytes moved.
    pub(super) fn choose(&mut self, shared: &Shared, work: &Work) -> Option<Victim> {
        if self.goal == Goal::Ease {
            let freed = self.dead_segments(shared) * shared.segment_bytes;
            let occupied = shared.occupied_bytes().saturating_sub(freed);
            if occupied <= shared.allowed_bytes(shared.amplification_at(0.5)) {
                return None;
            }
        }
        let segment = self.next_segment(shared, work)?;
        self.done.insert(segment.id);
        Victim::new(shared, segment)
    }

    fn next_segment(&mut self, shared: &Shared, work: &Work) -> Option<std::sync::Arc<Segment>> {
        let gain_min = match self.goal {
            Goal::All => shared.segment_bytes / 32,
            Goal::Ease => shared.segment_bytes / 8,
        };
        let mut candidates = Vec::new();
        for segment in shared.segments.all() {
            if segment.id >= self.last_segment_id
                || segment.file.is_none()
                || segment.live_values.load(Ordering::Acquire) == 0
                || self.done.contains(&segment.id)
                || work.stuck.contains(&segment.id)
                || shared.gain_bytes(&segment) < gain_min.max(1)
            {
                continue;
            }
            if segment.pins.is_pinned() {
                self.done.insert(segment.id);
                self.report.segments_pinned += 1;
                shared
                    .counters
                    .segments_pinned
                    .fetch_add(1, Ordering::Relaxed);
                continue;
            }
            candidates.push(segment);
        }
        candidates
            .into_iter()
            .min_by_key(|segment| segment.live_log_bytes.load(Ordering::Acquire))
    }
}
