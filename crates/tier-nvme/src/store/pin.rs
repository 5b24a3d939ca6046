//! Who needs a segment's bytes to stay as they are.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::log::Segment;
use crate::VolumeLock;

/// Set once the segment is given up; nobody pins it from then on.
const RETIRED: u64 = 1 << 63;

/// Counts the pins of a segment until it is given up.
#[derive(Debug, Default)]
pub(super) struct Pins(AtomicU64);

impl Pins {
    /// Gives the segment up, unless somebody has it pinned. Only then may its file be written again.
    ///
    /// Giving it up again is fine.
    pub(super) fn retire(&self) -> bool {
        match self
            .0
            .compare_exchange(0, RETIRED, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => true,
            Err(state) => state == RETIRED,
        }
    }

    /// Whether somebody has the segment pinned now.
    pub(super) fn is_pinned(&self) -> bool {
        self.0.load(Ordering::Acquire) & !RETIRED > 0
    }

    fn add(&self) -> bool {
        let more = |state| (state & RETIRED == 0).then(|| state + 1);
        self.0
            .try_update(Ordering::AcqRel, Ordering::Acquire, more)
            .is_ok()
    }
}

/// Keeps a segment's file from being removed or written again, and the directory from being another's.
pub(super) struct Pin {
    segment: Arc<Segment>,
    _lock: Arc<dyn VolumeLock>,
}

impl Pin {
    /// Pins `segment`; `None` if it was given up already.
    pub(super) fn new(segment: &Arc<Segment>, lock: Arc<dyn VolumeLock>) -> Option<Self> {
        segment.pins.add().then(|| Self {
            segment: Arc::clone(segment),
            _lock: lock,
        })
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.segment.pins.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin")
            .field("segment_id", &self.segment.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct NoLock;

    impl VolumeLock for NoLock {}

    #[test]
    fn a_pinned_segment_is_not_given_up_and_one_given_up_is_not_pinned() {
        let segment = Arc::new(Segment::new(1, None, 4096));
        let first = Pin::new(&segment, Arc::new(NoLock)).unwrap();
        let second = Pin::new(&segment, Arc::new(NoLock)).unwrap();
        assert!(!segment.pins.retire());
        drop(first);
        assert!(!segment.pins.retire());
        drop(second);
        assert!(segment.pins.retire() && segment.pins.retire());
        assert!(Pin::new(&segment, Arc::new(NoLock)).is_none());
    }
}
