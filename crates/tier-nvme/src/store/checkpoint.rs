//! Snapshots of the index, and segments that are not needed any more.

use std::sync::atomic::Ordering;

use super::config::CommitStage;
use super::log::{Log, aligned_buffer};
use super::{NvmeError, Shared};
use crate::FileName;
use crate::format::{BlockWriter, CheckpointHeader, IndexRecord, SegmentRecord, segment_name};

/// The two files, of which one is always whole.
pub(super) const CHECKPOINT_NAMES: [&str; 2] = ["CHECKPOINT-A", "CHECKPOINT-B"];

/// Bytes of log that are replayed in about the time that a segment's headers take to read.
const LOG_BYTES_PER_CHECKPOINT: u64 = 256 << 20;

impl Shared {
    /// Whether replaying what is newer than the checkpoint would take long beside writing another one.
    pub(super) fn checkpoint_is_due(&self, log: &Log) -> bool {
        let index_bytes = self.index.len() * IndexRecord::encoded_bytes(64);
        let log_bytes = LOG_BYTES_PER_CHECKPOINT.min(4 * self.segment_bytes);
        log.bytes_since_checkpoint >= log_bytes.max(8 * index_bytes)
    }

    pub(super) fn checkpoint(&self) -> Result<(), NvmeError> {
        self.check_writable()?;
        let mut log = self.log();
        self.check_open()?;
        self.checkpoint_under_lock(&mut log, false)
    }

    fn checkpoint_under_lock(&self, log: &mut Log, clean: bool) -> Result<(), NvmeError> {
        self.check_poison()?;
        let result = self.write_checkpoint(log, clean);
        self.config.observe(CommitStage::Idle);
        result
    }

    /// Both checkpoints, marked as written by a clean close.
    pub(super) fn close(&self) -> Result<(), NvmeError> {
        if self.read_only.is_some() {
            return Ok(());
        }
        let mut log = self.log();
        self.checkpoint_under_lock(&mut log, true)?;
        self.checkpoint_under_lock(&mut log, true)
    }

    /// Writes the index as it is under the log's lock to the older of the two files.
    pub(super) fn write_checkpoint(&self, log: &mut Log, clean: bool) -> Result<(), NvmeError> {
        self.config.observe(CommitStage::Checkpoint);
        let generation = log.generation + 1;
        let file = self.encode_checkpoint(log, generation, clean);
        let target = FileName::new(CHECKPOINT_NAMES[usize::from(log.checkpoint_turn)])?;
        replace_file(self, &target, &file)?;
        log.generation = generation;
        log.checkpoint_turn = !log.checkpoint_turn;
        log.bytes_since_checkpoint = 0;
        self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.retire_segments(log);
        Ok(())
    }

    fn encode_checkpoint(&self, log: &Log, generation: u64, clean: bool) -> Vec<u8> {
        let mut writer = BlockWriter::new(self.store_id, generation);
        let segments = self.segments.all();
        for segment in &segments {
            let used_bytes = segment.used_bytes.load(Ordering::Acquire);
            writer.append(|body| {
                SegmentRecord {
                    segment_id: segment.id,
                    used_bytes,
                }
                .encode(body)
            });
        }
        let mut entry_count = 0;
        self.index.for_each(|key, slot| {
            entry_count += 1;
            let record = IndexRecord {
                segment_id: slot.segment_id,
                offset_bytes: slot.offset_bytes,
                stored_bytes: slot.stored_bytes,
                raw_bytes: slot.raw_bytes,
                sequence: slot.sequence,
                checksum: slot.checksum,
                encoding: slot.encoding,
                key,
            };
            writer.append(|body| record.encode(body));
        });
        writer.finish(|body_bytes| CheckpointHeader {
            clean,
            store_id: self.store_id,
            generation,
            sequence: log.sequence,
            checksum: log.checksum,
            segment_count: segments.len() as u32,
            log_segment_id: log
                .active
                .as_ref()
                .map_or(log.segment_id_max, |segment| segment.id),
            log_offset_bytes: log.offset_bytes,
            entry_count,
            body_bytes,
        })
    }

    /// Removes the segments that were dead at the checkpoint before, and notes those that are now.
    ///
    /// A segment goes only once both checkpoints were written after its last value had died: with
    /// either of them the log after it is complete.
    fn retire_segments(&self, log: &mut Log) {
        for id in std::mem::take(&mut log.retiring) {
            if self
                .segments
                .get(id)
                .is_some_and(|segment| !segment.pins.retire())
            {
                // It is dead all the same, and noted again below.
                continue;
            }
            self.segments.remove(id);
            // A file that stays behind takes space and does no harm; the next open removes it.
            if let Ok(name) = segment_name(id) {
                drop(self.volume.remove(&name));
            }
            self.counters
                .segments_removed
                .fetch_add(1, Ordering::Relaxed);
        }
        let active_id = log.active.as_ref().map(|segment| segment.id);
        log.retiring = self
            .segments
            .all()
            .iter()
            .filter(|segment| Some(segment.id) != active_id)
            .filter(|segment| segment.live_values.load(Ordering::Acquire) == 0)
            .map(|segment| segment.id)
            .collect();
    }
}

/// Writes a whole file under a temporary name and moves it to `target`, durably.
pub(super) fn replace_file(
    shared: &Shared,
    target: &FileName,
    bytes: &[u8],
) -> Result<(), NvmeError> {
    write_new_file(&*shared.volume, target, bytes)
        // After a failed rename or sync nobody knows which file a power loss would leave.
        .inspect_err(|error| {
            if !matches!(error, NvmeError::NoSpace { .. }) {
                shared.poison(error);
            }
        })
}

/// Writes a whole file under a temporary name and moves it to `target`, durably.
pub(super) fn write_new_file(
    volume: &dyn crate::Volume,
    target: &FileName,
    bytes: &[u8],
) -> Result<(), NvmeError> {
    let temporary = FileName::new(format!("{target}{UNFINISHED_SUFFIX}"))?;
    match volume.remove(&temporary) {
        Ok(()) | Err(NvmeError::FileNotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    let file = volume.create(&temporary, bytes.len() as u64)?;
    let mut source = aligned_buffer(bytes.len())?;
    source.copy_from_slice(bytes);
    file.write(0, source).wait()?;
    file.sync().wait()?;
    volume.rename(&temporary, target)?;
    volume.sync_directory()
}

/// What the names of unfinished files end with.
pub(super) const UNFINISHED_SUFFIX: &str = ".new";
