//! Giving segments back in which nothing lives any more.

use std::sync::atomic::Ordering;

use super::Shared;
use super::maintenance::Work;

impl Work {
    /// After a checkpoint: gives up the segments that were dead when the checkpoint before began, and notes
    /// those that were when this one did.
    ///
    /// A segment goes only once both checkpoints began after its last value had died: with either of them
    /// the log after it is complete.
    pub(super) fn retire_segments(&mut self, shared: &Shared, dead: Vec<u64>) {
        let mut gave_back = false;
        // No writer takes what comes free before the reserve has had its part.
        let _log = (!shared.reserve.is_whole()).then(|| shared.end_of_log());
        for id in std::mem::replace(&mut self.retiring, dead) {
            let pinned = shared
                .segments
                .get(id)
                .is_some_and(|segment| !segment.pins.retire());
            if pinned {
                // It is dead all the same, and was noted again.
                continue;
            }
            gave_back = true;
            self.retiring.retain(|noted| *noted != id);
            if let Some(segment) = shared.segments.remove(id) {
                shared.give_up(segment);
            }
            shared
                .counters
                .segments_removed
                .fetch_add(1, Ordering::Relaxed);
        }
        if gave_back {
            // What is kept back comes first; a failure there costs nothing but the reserve.
            drop(shared.fill_reserve());
            shared.queue.set_short(false);
        }
    }
}
