//! One commit, as a machine that is stepped.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use core_view::BufferMut;
use core_view::contract::Transfer;

use super::Shared;
use super::batch::Draft;
use super::config::CommitStage;
use super::index::Slot;
use super::log::{Log, Segment};
use crate::format::{BatchHeader, BatchPlace, EntryKind};
use crate::{NvmeError, VolumeFile};

/// Bytes that go to the device in one operation.
const WRITE_BYTES: usize = 2 << 20;

/// A commit and how far it has come: place, write, sync, publish.
pub(super) struct Commit<'a> {
    shared: &'a Shared,
    log: &'a mut Log,
    phase: Phase,
}

enum Phase {
    Place(Draft),
    Write {
        placed: Placed,
        writes: Vec<Transfer<Vec<BufferMut>>>,
    },
    Sync(Placed),
    Publish(Placed),
    Done,
}

/// A batch whose place in the log is decided.
struct Placed {
    segment: Arc<Segment>,
    file: Arc<dyn VolumeFile>,
    header: BatchHeader,
}

impl<'a> Commit<'a> {
    pub(super) fn new(shared: &'a Shared, log: &'a mut Log, draft: Draft) -> Self {
        Self {
            shared,
            log,
            phase: Phase::Place(draft),
        }
    }

    /// Steps until the commit is done.
    pub(super) fn run(mut self) -> Result<(), NvmeError> {
        while !self.step()? {}
        Ok(())
    }

    /// Does the next phase; `true` once the commit is done.
    ///
    /// A failure while placing changes nothing. One after that leaves it unknown what is on disk, and
    /// poisons the store.
    pub(super) fn step(&mut self) -> Result<bool, NvmeError> {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Place(draft) => self.place(draft)?,
            Phase::Write { placed, writes } => {
                self.finish_writes(writes)?;
                self.shared.config.observe(CommitStage::Sync);
                Phase::Sync(placed)
            }
            Phase::Sync(placed) => {
                self.sync(&*placed.file)
                    .inspect_err(|error| self.shared.poison(error))?;
                Phase::Publish(placed)
            }
            Phase::Publish(placed) => {
                self.publish(placed);
                Phase::Done
            }
            Phase::Done => return Ok(true),
        };
        Ok(matches!(self.phase, Phase::Done))
    }

    fn place(&mut self, draft: Draft) -> Result<Phase, NvmeError> {
        let batch_bytes = draft.batch_bytes().unwrap_or(u64::MAX);
        let (segment, file) = self.log.segment_for(self.shared, batch_bytes)?;
        let place = BatchPlace {
            store_id: self.shared.store_id,
            segment_id: segment.id,
            offset_bytes: self.log.offset_bytes,
        };
        let template = BatchHeader {
            place,
            sequence: self.log.sequence + 1,
            synced_sequence: self.log.sequence,
            previous_checksum: self.log.checksum,
            header_bytes: 0,
            payload_bytes: 0,
            checksum: 0,
            entries: Vec::new(),
        };
        let (header, sources) = draft.lay_out(template)?;
        self.shared.config.observe(CommitStage::Write);
        let writes = submit(&*file, place.offset_bytes, sources);
        Ok(Phase::Write {
            placed: Placed {
                segment,
                file,
                header,
            },
            writes,
        })
    }

    /// Waits for all writes, also when one fails: the log may not move on while any is in flight.
    fn finish_writes(&self, writes: Vec<Transfer<Vec<BufferMut>>>) -> Result<(), NvmeError> {
        let mut result = Ok(());
        for write in writes {
            if let Err(failure) = write.wait() {
                result = Err(NvmeError::from(failure));
            }
        }
        result.inspect_err(|error| self.shared.poison(error))
    }

    fn sync(&self, file: &dyn VolumeFile) -> Result<(), NvmeError> {
        file.sync().wait()?; // mutant: no-fdatasync
        self.shared.counters.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn publish(&mut self, placed: Placed) {
        let Placed {
            segment, header, ..
        } = placed;
        self.shared.config.observe(CommitStage::Publish);
        let batch_bytes = header.batch_bytes();
        self.log.offset_bytes += batch_bytes;
        self.log.sequence = header.sequence;
        self.log.checksum = header.checksum;
        self.shared
            .log_bytes
            .fetch_add(batch_bytes, Ordering::AcqRel);
        segment
            .used_bytes
            .store(self.log.offset_bytes, Ordering::Release);
        self.shared.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.shared
            .counters
            .bytes_written
            .fetch_add(batch_bytes, Ordering::Relaxed);
        let moves = self.shared.apply(header);
        self.shared.counters.moved(moves);
    }
}

/// Starts writing the buffers one after the other, in operations of a good size.
fn submit(
    file: &dyn VolumeFile,
    mut offset_bytes: u64,
    sources: Vec<BufferMut>,
) -> Vec<Transfer<Vec<BufferMut>>> {
    let mut writes = Vec::new();
    let (mut group, mut group_bytes) = (Vec::new(), 0);
    for part in sources
        .into_iter()
        .flat_map(|source| source.split_into(WRITE_BYTES))
    {
        group_bytes += part.len();
        group.push(part);
        if group_bytes >= WRITE_BYTES {
            writes.push(file.write_vectored(offset_bytes, std::mem::take(&mut group)));
            offset_bytes += group_bytes as u64;
            group_bytes = 0;
        }
    }
    if !group.is_empty() {
        writes.push(file.write_vectored(offset_bytes, group));
    }
    writes
}

/// What became of the moves in a batch.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moves {
    pub(super) done: u64,
    /// The key was put or deleted meanwhile.
    pub(super) lost: u64,
}

impl Shared {
    /// Changes the index as a batch says.
    pub(super) fn apply(&self, header: BatchHeader) -> Moves {
        let payload_at = header.place.offset_bytes + u64::from(header.header_bytes);
        let mut moves = Moves::default();
        for entry in header.entries {
            let slot = Slot {
                segment_id: header.place.segment_id,
                offset_bytes: payload_at + entry.value_offset_bytes,
                stored_bytes: entry.stored_bytes,
                raw_bytes: entry.raw_bytes,
                sequence: header.sequence,
                checksum: entry.checksum,
                encoding: entry.encoding,
            };
            let key_bytes = entry.key.len();
            if entry.kind != EntryKind::Delete {
                self.segments.add_live(&slot, key_bytes);
            }
            let before = match entry.kind {
                EntryKind::Put => self.index.insert(entry.key, slot),
                EntryKind::Delete => self.index.remove(&entry.key),
                EntryKind::Move { from } => {
                    let before = self.index.replace(&entry.key, from, slot);
                    moves.done += u64::from(before.is_some());
                    moves.lost += u64::from(before.is_none());
                    // A move that lost leaves its own copy dead.
                    Some(before.unwrap_or(slot))
                }
            };
            if let Some(before) = before {
                self.segments.remove_live(&before, key_bytes);
            }
        }
        moves
    }
}
