//! What a slab has done and holds.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Shared;
use crate::VolumeReport;

/// Counts since the slab was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) puts: AtomicU64,
    pub(super) put_bytes: AtomicU64,
    pub(super) gets: AtomicU64,
    pub(super) got_bytes: AtomicU64,
    pub(super) removes: AtomicU64,
    pub(super) records: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) tables_written: AtomicU64,
    pub(super) segments_made: AtomicU64,
    pub(super) copies: AtomicU64,
    pub(super) busy: AtomicU64,
    pub(super) no_space: AtomicU64,
    pub(super) corrupt: AtomicU64,
    pub(super) panics: AtomicU64,
}

/// What a slab holds, and what it has done since it was opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SlabStats {
    /// Blocks stored.
    pub blocks: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Slots in the segments there are.
    pub slots: u64,
    /// Slots of them that are free.
    pub slots_free: u64,
    /// Slots that the capacity allows.
    pub slots_max: u64,
    /// Segments there are.
    pub segments: u64,
    /// Bytes of a segment. A slab keeps the size that it was made with.
    pub segment_bytes: u64,
    /// Slots of a segment.
    pub segment_slots: u64,
    /// Bytes on disk: segments, tables and superblock.
    pub disk_bytes: u64,
    /// Blocks put.
    pub puts: u64,
    /// Bytes of them.
    pub put_bytes: u64,
    /// Blocks fetched.
    pub gets: u64,
    /// Bytes of them.
    pub got_bytes: u64,
    /// Blocks removed.
    pub removes: u64,
    /// Commits: records written to a log.
    pub records: u64,
    /// Syncs of segments.
    pub syncs: u64,
    /// Times that the tables were written.
    pub tables_written: u64,
    /// Segments made.
    pub segments_made: u64,
    /// Payloads and targets that were copied, because their address or length was not aligned.
    pub copies: u64,
    /// Puts refused because too much was under way.
    pub busy: u64,
    /// Blocks refused because the slab was full.
    pub no_space: u64,
    /// Fetches whose bytes were not the ones stored.
    pub corrupt: u64,
    /// Panics of the volume, or of what a caller chained to a transfer.
    pub panics: u64,
    /// Why changes are refused, after a failure.
    pub poisoned: Option<String>,
    /// How the volume does its work.
    pub volume: VolumeReport,
}

impl Shared {
    pub(super) fn stats(&self) -> SlabStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let usage = self.table.usage();
        let segments = self.slots.count();
        let slots_each = self.geometry.slots();
        SlabStats {
            blocks: usage.blocks,
            payload_bytes: usage.payload_bytes,
            slots: segments * slots_each,
            slots_free: self.slots.free_count(),
            slots_max: self.segments_max * slots_each,
            segments,
            segment_bytes: self.geometry.segment_bytes,
            segment_slots: slots_each,
            disk_bytes: segments * self.geometry.segment_bytes + 2 * self.table_bytes() + 8192,
            puts: count(&counters.puts),
            put_bytes: count(&counters.put_bytes),
            gets: count(&counters.gets),
            got_bytes: count(&counters.got_bytes),
            removes: count(&counters.removes),
            records: count(&counters.records),
            syncs: count(&counters.syncs),
            tables_written: count(&counters.tables_written),
            segments_made: count(&counters.segments_made),
            copies: count(&counters.copies),
            busy: count(&counters.busy),
            no_space: count(&counters.no_space),
            corrupt: count(&counters.corrupt),
            panics: count(&counters.panics),
            poisoned: self.poison_reason(),
            volume: self.volume.report(),
        }
    }
}
