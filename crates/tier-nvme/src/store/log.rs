//! The segments, and the place where the next batch goes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use core_view::BufferMut;

use super::Shared;
use super::config::CommitStage;
use super::index::Slot;
use super::pin::Pins;
use crate::format::PAGE_BYTES;
use crate::{NvmeError, VolumeFile};

/// Zeroed memory that starts on a page.
pub(super) fn aligned_buffer(len_bytes: usize) -> Result<BufferMut, NvmeError> {
    BufferMut::zeroed(len_bytes, PAGE_BYTES).map_err(|error| NvmeError::Transfer(error.into()))
}

/// A segment of the log.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: u64,
    /// Absent if the file could not be opened: its values can't be read, everything else can.
    pub(super) file: Option<Arc<dyn VolumeFile>>,
    /// Where the last batch ends.
    pub(super) used_bytes: AtomicU64,
    /// Values that the index points at.
    pub(super) live_values: AtomicU64,
    /// Bytes of them, as stored.
    pub(super) live_bytes: AtomicU64,
    /// Bytes of them before compression.
    pub(super) live_raw_bytes: AtomicU64,
    /// Bytes of the log that they would take if they were written again.
    pub(super) live_log_bytes: AtomicU64,
    /// Who needs the file as it is; it is removed or used again only after `retire`.
    pub(super) pins: Pins,
}

impl Segment {
    pub(super) fn new(id: u64, file: Option<Arc<dyn VolumeFile>>, used_bytes: u64) -> Self {
        Self {
            id,
            file,
            used_bytes: AtomicU64::new(used_bytes),
            live_values: AtomicU64::new(0),
            live_bytes: AtomicU64::new(0),
            live_raw_bytes: AtomicU64::new(0),
            live_log_bytes: AtomicU64::new(0),
            pins: Pins::default(),
        }
    }

    /// The counters of live values, each with its part of `tally`.
    fn live_counters(&self, tally: &Tally) -> [(&AtomicU64, u64); 4] {
        [
            (&self.live_values, tally.values),
            (&self.live_bytes, tally.stored_bytes),
            (&self.live_raw_bytes, tally.raw_bytes),
            (&self.live_log_bytes, tally.log_bytes),
        ]
    }
}

/// All segments by id.
#[derive(Debug, Default)]
pub(super) struct Segments {
    by_id: RwLock<BTreeMap<u64, Arc<Segment>>>,
    /// Sum over the segments.
    live_log_bytes: AtomicU64,
}

impl Segments {
    pub(super) fn get(&self, id: u64) -> Option<Arc<Segment>> {
        self.by_id
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }

    pub(super) fn insert(&self, segment: Arc<Segment>) {
        self.by_id
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(segment.id, segment);
    }

    pub(super) fn remove(&self, id: u64) -> Option<Arc<Segment>> {
        self.by_id
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id)
    }

    /// Whether the log has gone on behind this segment.
    pub(super) fn is_sealed(&self, id: u64) -> bool {
        self.by_id
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .range(id.saturating_add(1)..)
            .any(|(_, later)| later.used_bytes.load(Ordering::Acquire) > PAGE_BYTES as u64)
    }

    pub(super) fn clear(&self) {
        self.by_id
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    pub(super) fn all(&self) -> Vec<Arc<Segment>> {
        self.by_id
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Number of segments.
    pub(super) fn count(&self) -> u64 {
        let by_id = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        by_id.len() as u64
    }

    /// Bytes of the log that all live values would take if they were written again.
    pub(super) fn live_log_bytes(&self) -> u64 {
        self.live_log_bytes.load(Ordering::Relaxed)
    }

    /// Sets what [`live_log_bytes`](Self::live_log_bytes) tells.
    pub(super) fn set_live_log_bytes(&self, bytes: u64) {
        self.live_log_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Counts values of a segment as live.
    pub(super) fn add_tally(&self, segment_id: u64, tally: &Tally) {
        if let Some(segment) = self.get(segment_id) {
            for (counter, count) in segment.live_counters(tally) {
                counter.fetch_add(count, Ordering::Relaxed);
            }
            self.live_log_bytes
                .fetch_add(tally.log_bytes, Ordering::Relaxed);
        }
    }

    /// Counts values of a segment as dead.
    pub(super) fn remove_tally(&self, segment_id: u64, tally: &Tally) {
        if let Some(segment) = self.get(segment_id) {
            for (counter, count) in segment.live_counters(tally) {
                counter.fetch_sub(count, Ordering::Relaxed);
            }
            self.live_log_bytes
                .fetch_sub(tally.log_bytes, Ordering::Relaxed);
        }
    }
}

/// Values of one segment, counted before they are added to it or taken off.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    values: u64,
    stored_bytes: u64,
    raw_bytes: u64,
    log_bytes: u64,
}

impl Tally {
    /// Counts one more.
    pub(super) fn count(&mut self, slot: &Slot, key_bytes: usize) {
        self.values += 1;
        self.stored_bytes += slot.stored_bytes;
        self.raw_bytes += slot.raw_bytes;
        self.log_bytes += slot.log_bytes(key_bytes);
    }
}

/// Values that died, of which those of one segment are mostly met together.
pub(super) struct Dead<'a> {
    segments: &'a Segments,
    segment_id: u64,
    tally: Tally,
}

impl<'a> Dead<'a> {
    pub(super) fn new(segments: &'a Segments) -> Self {
        Self {
            segments,
            segment_id: 0,
            tally: Tally::default(),
        }
    }

    /// Counts one more.
    pub(super) fn count(&mut self, slot: &Slot, key_bytes: usize) {
        if self.segment_id != slot.segment_id {
            self.settle();
            self.segment_id = slot.segment_id;
        }
        self.tally.count(slot, key_bytes);
    }

    fn settle(&mut self) {
        let tally = std::mem::take(&mut self.tally);
        if tally.values > 0 {
            self.segments.remove_tally(self.segment_id, &tally);
        }
    }
}

impl Drop for Dead<'_> {
    fn drop(&mut self) {
        self.settle();
    }
}

/// The end of the log; whoever holds it commits.
#[derive(Debug)]
pub(super) struct Log {
    /// The segment that is written, once there is one.
    pub(super) active: Option<Arc<Segment>>,
    /// Where the next batch goes in it.
    pub(super) offset_bytes: u64,
    /// Sequence of the newest batch.
    pub(super) sequence: u64,
    /// Its checksum field.
    pub(super) checksum: u32,
    /// Highest segment id ever used.
    pub(super) segment_id_max: u64,
    /// Whether the segment that is written was kept back for what gives space back.
    pub(super) is_reserve: bool,
}

/// A place between two batches of the log: everything before it is in the index.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    /// Sequence of the batch before.
    pub(super) sequence: u64,
    /// Its checksum field.
    pub(super) checksum: u32,
    pub(super) segment_id: u64,
    pub(super) offset_bytes: u64,
}

impl Log {
    /// Where what is published ends.
    pub(super) fn position(&self) -> Position {
        let active_id = self.active.as_ref().map(|segment| segment.id);
        Position {
            sequence: self.sequence,
            checksum: self.checksum,
            segment_id: active_id.unwrap_or(self.segment_id_max),
            offset_bytes: self.offset_bytes,
        }
    }

    /// The segment into which a batch of `batch_bytes` goes; the next one is made if it has to be.
    pub(super) fn segment_for(
        &mut self,
        shared: &Shared,
        batch_bytes: u64,
        frees_space: bool,
    ) -> Result<(Arc<Segment>, Arc<dyn VolumeFile>), NvmeError> {
        if let Some(segment) = &self.active {
            let end = self.offset_bytes.checked_add(batch_bytes);
            let may = frees_space || !self.is_reserve || shared.reserve.has_segment();
            let fits = may && end.is_some_and(|end| end <= shared.segment_bytes);
            if let (true, Some(file)) = (fits, &segment.file) {
                return Ok((Arc::clone(segment), Arc::clone(file)));
            }
        }
        shared.config.observe(CommitStage::Segment);
        let (segment, is_reserve) = shared.next_segment(self, frees_space)?;
        self.is_reserve = is_reserve;
        let file = segment.file.clone().ok_or(NvmeError::Closed)?;
        shared.segments.insert(Arc::clone(&segment));
        self.active = Some(Arc::clone(&segment));
        self.offset_bytes = PAGE_BYTES as u64;
        Ok((segment, file))
    }
}

/// Writes one page.
pub(super) fn write_page(
    file: &dyn VolumeFile,
    offset_bytes: u64,
    page: &[u8],
) -> Result<(), NvmeError> {
    let mut source = aligned_buffer(page.len().next_multiple_of(PAGE_BYTES))?;
    source[..page.len()].copy_from_slice(page);
    file.write(offset_bytes, source).wait()?;
    Ok(())
}
