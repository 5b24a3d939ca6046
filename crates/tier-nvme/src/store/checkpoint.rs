//! Snapshots of the index, written beside writers.
//!
//! A snapshot belongs to a place in the log, which is fixed when it begins. What is published while it is
//! written may or may not be in it: a value that is newer than the place is left out, and the log behind
//! the place is replayed over it, which sets each key that changed meanwhile to what it is. Only a move
//! would not come right by that, since it asks where its key was: no value is moved while a checkpoint is
//! written.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use core_view::BufferMut;
use core_view::contract::Transfer;

use super::index::SHARD_COUNT;
use super::log::{Position, write_page};
use super::memory::{MemoryKind, Reservation};
use super::{NvmeError, Shared};
use crate::format::{
    BLOCK_BYTES_MAX, BlockWriter, CheckpointHeader, IndexRecord, PAGE_BYTES, SegmentRecord,
    checkpoint_file_bytes,
};
use crate::{FileName, VolumeFile};

/// The two files, of which one is always whole.
pub(super) const CHECKPOINT_NAMES: [&str; 2] = ["CHECKPOINT-A", "CHECKPOINT-B"];

/// What the names of unfinished files end with.
pub(super) const UNFINISHED_SUFFIX: &str = ".new";

/// Shards of the index that one step writes at most.
const SHARDS_PER_STEP: usize = SHARD_COUNT / 16;
/// Bytes that one operation writes.
const WRITE_BYTES_MIN: usize = 32 << 10;
const WRITE_BYTES_MAX: usize = 1 << 20;
/// Operations in flight.
const WRITES_MAX: usize = 4;
/// Bytes of a block that is being put together, of one that is put behind it, and of the pages that are taken from there,
/// whatever the length of the operations.
const BLOCKS_BYTES: usize = 3 * (BLOCK_BYTES_MAX + 2 * PAGE_BYTES);
/// The part of the memory that a shard's records may take twice over: one of so many. What they are longer is
/// taken beside it.
const SHARD_PART: usize = 24;

/// How the memory of a checkpoint is divided.
#[derive(Debug)]
struct Plan {
    write_bytes: usize,
    shard_bytes: usize,
}

impl Plan {
    fn new(memory_bytes: u64) -> Self {
        let memory_bytes = memory_bytes as usize;
        let rest_bytes = memory_bytes.saturating_sub(BLOCKS_BYTES);
        let write_bytes = (rest_bytes / (WRITES_MAX + 2)).clamp(WRITE_BYTES_MIN, WRITE_BYTES_MAX);
        Self {
            write_bytes: write_bytes - write_bytes % PAGE_BYTES,
            shard_bytes: memory_bytes / SHARD_PART,
        }
    }
}

/// A checkpoint and how far it has come: place, body, header, sync, rename, sync of the directory.
#[derive(Debug)]
pub(super) struct CheckpointWrite {
    /// Without what is known only at the end: sizes and counts.
    header: CheckpointHeader,
    /// Bytes of the log since the checkpoint before, when this one began.
    pub(super) log_bytes: u64,
    /// Segments of the log before the place in which nothing was live when this one began.
    pub(super) dead: Vec<u64>,
    target: FileName,
    temporary: FileName,
    file: Arc<dyn VolumeFile>,
    file_bytes: u64,
    written_bytes: u64,
    writes: VecDeque<Transfer<BufferMut>>,
    plan: Plan,
    /// What the longest shard takes beside the plan.
    extra: Reservation,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Body {
        writer: BlockWriter,
        next_shard: usize,
    },
    Header,
    Sync,
    Rename,
    SyncDirectory,
    Done,
}

impl CheckpointWrite {
    /// Fixes the place in the log, and makes the file with room for all that may come.
    ///
    /// # Errors
    /// [`NvmeError::NoSpace`], with nothing changed; or the device's failure.
    pub(super) fn begin(
        shared: &Shared,
        generation: u64,
        target: FileName,
        clean: bool,
    ) -> Result<Self, NvmeError> {
        let (position, log_bytes, segments, dead) = shared.log_as_it_is();
        // The log ends behind a batch that failed, and the index does not have it.
        shared.check_poison()?;
        let mut writer = BlockWriter::new(shared.store_id, generation);
        let segment_count = segments.len() as u32;
        for segment in &segments {
            writer.append(|body| segment.encode(body));
        }
        let body_bytes_max =
            shared.index.record_bytes() + segments.len() as u64 * SegmentRecord::BYTES as u64;
        let file_bytes = checkpoint_file_bytes(body_bytes_max).unwrap_or(u64::MAX);
        let temporary = FileName::new(format!("{target}{UNFINISHED_SUFFIX}"))?;
        let file = make_file(shared, &temporary, file_bytes)?;
        let budget = shared.buffers.budget();
        Ok(Self {
            header: CheckpointHeader {
                clean,
                store_id: shared.store_id,
                generation,
                sequence: position.sequence,
                checksum: position.checksum,
                segment_count,
                log_segment_id: position.segment_id,
                log_offset_bytes: position.offset_bytes,
                entry_count: 0,
                body_bytes: 0,
                synced_sequence: position.sequence,
            },
            log_bytes,
            dead,
            target,
            temporary,
            file,
            file_bytes,
            written_bytes: 0,
            writes: VecDeque::new(),
            plan: Plan::new(budget.checkpoint_bytes()),
            extra: budget.try_reserve(MemoryKind::Checkpoint, 0)?,
            phase: Phase::Body {
                writer,
                next_shard: 0,
            },
        })
    }

    /// Does the next piece of work; `true` once the checkpoint is the newest one.
    pub(super) fn step(&mut self, shared: &Shared) -> Result<bool, NvmeError> {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Body { writer, next_shard } => self.write_shards(shared, writer, next_shard)?,
            Phase::Header => {
                // Without what the body leaves out, it is no state that ever was.
                self.header.synced_sequence = shared.queue.synced_sequence();
                write_page(&*self.file, 0, &self.header.encode())?;
                Phase::Sync
            }
            Phase::Sync => {
                self.file.sync().wait()?; // mutant: no-checkpoint-sync
                Phase::Rename
            }
            Phase::Rename => {
                shared.volume.rename(&self.temporary, &self.target)?;
                Phase::SyncDirectory
            }
            Phase::SyncDirectory => {
                shared.volume.sync_directory()?;
                Phase::Done
            }
            Phase::Done => Phase::Done,
        };
        Ok(matches!(self.phase, Phase::Done))
    }

    fn write_shards(
        &mut self,
        shared: &Shared,
        mut writer: BlockWriter,
        mut next_shard: usize,
    ) -> Result<Phase, NvmeError> {
        let last_shard = (next_shard + SHARDS_PER_STEP).min(SHARD_COUNT);
        while next_shard < last_shard && writer.ready_bytes() < self.plan.write_bytes {
            self.hold_shard(shared, next_shard)?;
            self.encode_shard(shared, &mut writer, next_shard);
            next_shard += 1;
        }
        if next_shard < SHARD_COUNT {
            if writer.ready_bytes() >= self.plan.write_bytes {
                self.submit(shared, writer.take_pages())?;
            }
            return Ok(Phase::Body { writer, next_shard });
        }
        let (rest, body_bytes) = writer.end();
        self.header.body_bytes = body_bytes;
        self.submit(shared, rest)?;
        while let Some(write) = self.writes.pop_front() {
            write.wait()?;
        }
        Ok(Phase::Header)
    }

    /// Takes memory for the records of a shard, if they are longer than most.
    ///
    /// They are put together as a whole, because a key that is removed meanwhile would change the places of others.
    fn hold_shard(&mut self, shared: &Shared, shard: usize) -> Result<(), NvmeError> {
        let (newest, mut bytes) = (self.header.sequence, 0);
        shared.index.for_each_in(shard, |key, slot| {
            if slot.sequence <= newest {
                bytes += IndexRecord::encoded_bytes(key.len());
            }
        });
        let more_bytes = 2 * bytes.saturating_sub(self.plan.shard_bytes as u64);
        match more_bytes.checked_sub(self.extra.bytes()) {
            None | Some(0) => Ok(()),
            Some(more) => self.extra.grow(more),
        }
    }

    fn encode_shard(&mut self, shared: &Shared, writer: &mut BlockWriter, shard: usize) {
        let (newest, mut count) = (self.header.sequence, 0);
        shared.index.for_each_in(shard, |key, slot| {
            if slot.sequence > newest {
                // mutant: checkpoint-takes-newer
                return; // The replay brings it.
            }
            count += 1;
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
        self.header.entry_count += count;
    }

    /// Starts writing pages behind those before, and waits where too many are on their way.
    fn submit(&mut self, shared: &Shared, pages: Vec<u8>) -> Result<(), NvmeError> {
        for pages in pages.chunks(self.plan.write_bytes) {
            if self.written_bytes + pages.len() as u64 > self.file_bytes {
                return Err(NvmeError::Invalid {
                    field: "checkpoint",
                    reason: format!("it is longer than the {} bytes foreseen", self.file_bytes),
                });
            }
            if self.writes.len() >= WRITES_MAX
                && let Some(write) = self.writes.pop_front()
            {
                write.wait()?;
            }
            let mut source = shared.buffers.lend_reserved(pages.len())?;
            source.copy_from_slice(pages);
            self.writes
                .push_back(self.file.write(self.written_bytes, source));
            self.written_bytes += pages.len() as u64;
        }
        Ok(())
    }
}

impl Shared {
    /// Where the log ends and how long it has grown, its segments, and those of them that hold nothing.
    fn log_as_it_is(&self) -> (Position, u64, Vec<SegmentRecord>, Vec<u64>) {
        let log = self.log();
        let position = log.position();
        let (mut records, mut dead) = (Vec::new(), Vec::new());
        for segment in self.segments.all() {
            let is_last = segment.id == position.segment_id;
            // One that is ready for what comes is not in the log yet.
            if segment.id > position.segment_id {
                break;
            }
            let used_bytes = segment.used_bytes.load(Ordering::Acquire);
            records.push(SegmentRecord {
                segment_id: segment.id,
                used_bytes: if is_last {
                    position.offset_bytes
                } else {
                    used_bytes
                },
            });
            if !is_last && segment.live_values.load(Ordering::Acquire) == 0 {
                dead.push(segment.id);
            }
        }
        (
            position,
            self.log_bytes.load(Ordering::Acquire),
            records,
            dead,
        )
    }
}

/// Makes an unfinished file, in place of one that was left behind.
fn make_file(
    shared: &Shared,
    name: &FileName,
    len_bytes: u64,
) -> Result<Arc<dyn VolumeFile>, NvmeError> {
    remove_if_there(&*shared.volume, name)?;
    shared.volume.create(name, len_bytes).or_else(|error| {
        let reserve = match error {
            NvmeError::NoSpace { .. } => shared.reserve.take_checkpoint(shared, name, len_bytes)?,
            _ => None,
        };
        reserve.ok_or_else(|| error.on(&*shared.volume))
    })
}

pub(super) fn remove_if_there(
    volume: &dyn crate::Volume,
    name: &FileName,
) -> Result<(), NvmeError> {
    match volume.remove(name) {
        Ok(()) | Err(NvmeError::FileNotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes a whole file under a temporary name and moves it to `target`, durably.
pub(super) fn write_new_file(
    volume: &dyn crate::Volume,
    target: &FileName,
    bytes: &[u8],
) -> Result<(), NvmeError> {
    let temporary = FileName::new(format!("{target}{UNFINISHED_SUFFIX}"))?;
    remove_if_there(volume, &temporary)?;
    let file = volume.create(&temporary, bytes.len() as u64)?;
    write_page(&*file, 0, bytes)?;
    file.sync().wait()?;
    volume.rename(&temporary, target)?;
    volume.sync_directory()
}
