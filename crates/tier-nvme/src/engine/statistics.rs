//! What an engine has done.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::progress::Tally;

/// What the engine of a volume has done since it was started.
///
/// Fallbacks and bounds show here: a short transfer that was continued, a call that had to be made
/// again, a submitter that waited because `io_depth` operations were outstanding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct EngineStatistics {
    /// Reads that succeeded.
    pub reads: u64,
    /// Bytes of the reads that succeeded.
    pub read_bytes: u64,
    /// Writes that succeeded, vectored ones too.
    pub writes: u64,
    /// Bytes of the writes that succeeded.
    pub written_bytes: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Operations that failed, those that were cancelled included.
    pub failures: u64,
    /// Operations that were asked to stop before the kernel had them.
    pub cancelled: u64,
    /// Transfers that the kernel ended early and that were continued.
    pub short_transfers: u64,
    /// Calls made again after EINTR, EAGAIN or EBUSY.
    pub retries: u64,
    /// Submissions that waited because `io_depth` operations were outstanding.
    pub depth_waits: u64,
    /// Submissions refused because twice `io_depth` operations were outstanding.
    pub depth_refusals: u64,
    /// Most operations that were outstanding at once.
    pub outstanding_max: u64,
    /// Completion callbacks that panicked; the engine went on.
    pub callback_panics: u64,
}

/// The counters behind [`EngineStatistics`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    syncs: AtomicU64,
    failures: AtomicU64,
    cancelled: AtomicU64,
    short_transfers: AtomicU64,
    retries: AtomicU64,
    callback_panics: AtomicU64,
}

impl Tally for Counters {
    fn count_short(&self) {
        add(&self.short_transfers, 1);
    }

    fn count_retry(&self) {
        add(&self.retries, 1);
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counters {
    pub(crate) fn count_read(&self, len_bytes: usize) {
        add(&self.reads, 1);
        add(&self.read_bytes, len_bytes as u64);
    }

    pub(crate) fn count_write(&self, len_bytes: usize) {
        add(&self.writes, 1);
        add(&self.written_bytes, len_bytes as u64);
    }

    pub(crate) fn count_sync(&self) {
        add(&self.syncs, 1);
    }

    pub(crate) fn count_failure(&self) {
        add(&self.failures, 1);
    }

    pub(crate) fn count_cancelled(&self) {
        add(&self.cancelled, 1);
    }

    pub(crate) fn count_panic(&self) {
        add(&self.callback_panics, 1);
    }

    /// The counts so far, without those of the depth.
    pub(crate) fn snapshot(&self) -> EngineStatistics {
        EngineStatistics {
            reads: get(&self.reads),
            read_bytes: get(&self.read_bytes),
            writes: get(&self.writes),
            written_bytes: get(&self.written_bytes),
            syncs: get(&self.syncs),
            failures: get(&self.failures),
            cancelled: get(&self.cancelled),
            short_transfers: get(&self.short_transfers),
            retries: get(&self.retries),
            callback_panics: get(&self.callback_panics),
            ..EngineStatistics::default()
        }
    }
}
