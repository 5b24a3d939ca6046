//! What a log has done.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the log was opened, and where it stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalStats {
    /// Records appended.
    pub records: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Groups written.
    pub groups: u64,
    /// Bytes written for them: headers and padding included.
    pub written_bytes: u64,
    /// Syncs that made groups durable.
    pub syncs: u64,
    /// Appends that waited for memory, or were refused for want of it.
    pub stalls: u64,
    /// Writes and syncs that were tried again, because the engine had no room for them.
    pub retries: u64,
    /// Files made.
    pub files_made: u64,
    /// Files used again.
    pub files_recycled: u64,
    /// Files removed.
    pub files_removed: u64,
    /// Files that could not be made ahead of need, for want of space or by a failure.
    pub files_refused: u64,
    /// Files with records in them.
    pub files: u64,
    /// Files that are ready for more.
    pub files_spare: u64,
    /// Memory in bytes of records on their way.
    pub buffer_bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) records: AtomicU64,
    pub(super) payload_bytes: AtomicU64,
    pub(super) groups: AtomicU64,
    pub(super) written_bytes: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) stalls: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) files_made: AtomicU64,
    pub(super) files_recycled: AtomicU64,
    pub(super) files_removed: AtomicU64,
    pub(super) files_refused: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> WalStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WalStats {
            records: get(&self.records),
            payload_bytes: get(&self.payload_bytes),
            groups: get(&self.groups),
            written_bytes: get(&self.written_bytes),
            syncs: get(&self.syncs),
            stalls: get(&self.stalls),
            retries: get(&self.retries),
            files_made: get(&self.files_made),
            files_recycled: get(&self.files_recycled),
            files_removed: get(&self.files_removed),
            files_refused: get(&self.files_refused),
            ..WalStats::default()
        }
    }
}
