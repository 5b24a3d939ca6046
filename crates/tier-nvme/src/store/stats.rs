//! Counts and sizes.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Shared;
use super::cache::CacheStats;
use super::commit::Moves;
use super::memory::MemoryStats;
use super::prefetch::PrefetchStats;
use crate::VolumeReport;

/// What the store counts as it works.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) batches: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) bytes_read: AtomicU64,
    pub(super) maps: AtomicU64,
    pub(super) bytes_mapped: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) checkpoints_failed: AtomicU64,
    pub(super) segments_made: AtomicU64,
    pub(super) segments_recycled: AtomicU64,
    pub(super) segments_prepared: AtomicU64,
    pub(super) segments_removed: AtomicU64,
    pub(super) values_moved: AtomicU64,
    pub(super) moves_lost: AtomicU64,
    pub(super) bytes_moved: AtomicU64,
    pub(super) moves_refused: AtomicU64,
    pub(super) compactions_begun: AtomicU64,
    pub(super) compactions_finished: AtomicU64,
    pub(super) segments_pinned: AtomicU64,
    pub(super) writers_held: AtomicU64,
    pub(super) reserves_used: AtomicU64,
    pub(super) space_exceeded: AtomicU64,
    pub(super) background_failures: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self, bytes: usize) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn moved(&self, moves: Moves) {
        self.values_moved.fetch_add(moves.done, Ordering::Relaxed);
        self.moves_lost.fetch_add(moves.lost, Ordering::Relaxed);
    }

    pub(super) fn mapped(&self, bytes: usize) {
        self.maps.fetch_add(1, Ordering::Relaxed);
        self.bytes_mapped.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn checkpoint_failed(&self) {
        self.checkpoints_failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts and sizes of a store; the counts begin when it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Keys.
    pub keys: u64,
    /// Bytes of their values, as stored.
    pub live_bytes: u64,
    /// Bytes of their values before compression.
    pub live_raw_bytes: u64,
    /// Bytes that the log takes, dead values and headers included.
    pub used_bytes: u64,
    /// Bytes reserved on the volume for segments.
    pub reserved_bytes: u64,
    /// Bytes beside them, in segments that are ready for what comes.
    pub spare_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Batches committed; callers that arrived together share one.
    pub batches: u64,
    /// Bytes of the batches committed.
    pub bytes_written: u64,
    /// Syncs of commits.
    pub syncs: u64,
    /// Values read.
    pub reads: u64,
    /// Bytes of the values read.
    pub bytes_read: u64,
    /// Values mapped.
    pub maps: u64,
    /// Bytes of the values mapped.
    pub bytes_mapped: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Checkpoints due that could not be written; the log is complete without.
    pub checkpoints_failed: u64,
    /// Segments made.
    pub segments_made: u64,
    /// Those of them that were made in the files of segments that were given up.
    pub segments_recycled: u64,
    /// Those of them that were made before they were needed.
    pub segments_prepared: u64,
    /// Segments removed.
    pub segments_removed: u64,
    /// Values that compaction moved.
    pub values_moved: u64,
    /// Values that were put or deleted while compaction moved them, so that the move was in vain.
    pub moves_lost: u64,
    /// Values that compaction left where they are because the memory limit left no room to move them.
    pub moves_refused: u64,
    /// Batches that were written while the one before was not synced yet.
    pub batches_overlapped: u64,
    /// Batches that needed no sync of their own.
    pub syncs_shared: u64,
    /// Callers that waited because too much was in front of them.
    pub queue_waits: u64,
    /// Memory, by what it is taken for.
    pub memory: MemoryStats,
    /// Bytes that those values took.
    pub bytes_moved: u64,
    /// Compactions begun.
    pub compactions_begun: u64,
    /// Compactions that came to their end.
    pub compactions_finished: u64,
    /// Times that a segment was not compacted because a map of it was in use.
    pub segments_pinned: u64,
    /// Writers that had to wait because dead values took more space than they may.
    pub writers_held: u64,
    /// Files kept back for a full disk that were used.
    pub reserves_used: u64,
    /// Bytes kept back now, beside those reserved for segments.
    pub reserve_bytes: u64,
    /// Writers that were let through all the same, because nothing could be done about it.
    pub space_exceeded: u64,
    /// Times that the thread in the background could not do its work.
    pub background_failures: u64,
    /// Bytes of the log that the live values would take, with their keys, if they were written again.
    pub live_log_bytes: u64,
    /// Reading ahead.
    pub prefetch: PrefetchStats,
    /// The cache of values read.
    pub cache: CacheStats,
    /// How the volume does its work.
    pub volume: VolumeReport,
}

impl StoreStats {
    /// Bytes of the log that hold nothing live: dead values, old headers, and ends of pages.
    pub fn dead_bytes(&self) -> u64 {
        self.used_bytes.saturating_sub(self.live_log_bytes)
    }

    /// Bytes reserved on the volume for each byte that is live; 0 for an empty store.
    pub fn space_amplification(&self) -> f64 {
        if self.live_log_bytes == 0 {
            return 0.0;
        }
        self.reserved_bytes as f64 / self.live_log_bytes as f64
    }
}

impl Shared {
    pub(super) fn stats(&self) -> StoreStats {
        let segments = self.segments.all();
        let queue = self.queue.statistics();
        let sum = |count: fn(&super::log::Segment) -> u64| segments.iter().map(|s| count(s)).sum();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreStats {
            keys: self.index.len(),
            live_raw_bytes: sum(|segment| segment.live_raw_bytes.load(Ordering::Relaxed)),
            live_bytes: sum(|segment| segment.live_bytes.load(Ordering::Relaxed)),
            used_bytes: sum(|segment| segment.used_bytes.load(Ordering::Relaxed)),
            reserved_bytes: self.segment_bytes * segments.len() as u64,
            spare_bytes: self.segment_bytes * self.spares.count(),
            segments: segments.len() as u64,
            batches: load(&self.counters.batches),
            bytes_written: load(&self.counters.bytes_written),
            syncs: load(&self.counters.syncs),
            reads: load(&self.counters.reads),
            bytes_read: load(&self.counters.bytes_read),
            maps: load(&self.counters.maps),
            bytes_mapped: load(&self.counters.bytes_mapped),
            checkpoints: load(&self.counters.checkpoints),
            checkpoints_failed: load(&self.counters.checkpoints_failed),
            segments_made: load(&self.counters.segments_made),
            segments_recycled: load(&self.counters.segments_recycled),
            segments_prepared: load(&self.counters.segments_prepared),
            segments_removed: load(&self.counters.segments_removed),
            values_moved: load(&self.counters.values_moved),
            moves_lost: load(&self.counters.moves_lost),
            moves_refused: load(&self.counters.moves_refused),
            batches_overlapped: queue.batches_overlapped,
            syncs_shared: queue.syncs_shared,
            queue_waits: queue.waits,
            prefetch: self.prefetcher.stats(),
            cache: self.cache.stats(),
            memory: self.buffers.budget().stats(),
            bytes_moved: load(&self.counters.bytes_moved),
            compactions_begun: load(&self.counters.compactions_begun),
            compactions_finished: load(&self.counters.compactions_finished),
            segments_pinned: load(&self.counters.segments_pinned),
            reserves_used: load(&self.counters.reserves_used),
            reserve_bytes: self.reserve.bytes(),
            writers_held: load(&self.counters.writers_held),
            space_exceeded: load(&self.counters.space_exceeded),
            background_failures: load(&self.counters.background_failures),
            live_log_bytes: self.segments.live_log_bytes(),
            volume: self.volume.report(),
        }
    }
}
