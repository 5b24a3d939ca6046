//! The stages of a commit: place and write, sync, publish.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use super::batch::{Draft, Layout};
use super::config::CommitStage;
use super::index::Slot;
use super::log::{Dead, Segment, Tally};
use super::memory::Reservation;
use super::pieces::{PieceWriter, tell_runs};
use crate::format::{BatchHeader, BatchPlace, Entry, EntryKind};
use crate::{NvmeError, VolumeFile};

/// A batch that is written and not synced.
pub(super) struct Placed {
    segment: Arc<Segment>,
    file: Arc<dyn VolumeFile>,
    header: BatchHeader,
    index_memory: Option<Reservation>,
}

impl Placed {
    /// Whether one sync is enough for both.
    pub(super) fn shares_segment(&self, other: &Self) -> bool {
        self.segment.id == other.segment.id
    }
}

impl Shared {
    /// Decides where a batch goes and writes it there.
    ///
    /// A failure before the first write changes nothing. One after that leaves it unknown what is on disk, and
    /// poisons the store.
    pub(super) fn write_stage(&self, mut draft: Draft) -> Result<Placed, NvmeError> {
        self.check_open()?;
        self.check_poison()?;
        let batch_bytes = draft.batch_bytes().unwrap_or(u64::MAX);
        let frees_space = !draft.adds();
        let index_memory = draft.take_index_memory();
        let mut layout = draft.lay_out(BatchHeader {
            place: BatchPlace {
                store_id: self.store_id,
                segment_id: 0,
                offset_bytes: 0,
            },
            sequence: 0,
            synced_sequence: 0,
            previous_checksum: 0,
            header_bytes: 0,
            payload_bytes: 0,
            checksum: 0,
            life: self.life,
            entries: Vec::new(),
        });
        let mut front = self.buffers.lend_reserved(layout.front_bytes())?;
        layout.pack(&mut front);
        let (segment, file) = self.place(&mut layout.header, batch_bytes, frees_space)?;
        self.config.observe(CommitStage::Write);
        self.write_pieces(&*file, &mut layout, front)
            .inspect_err(|error| self.poison(error))?;
        self.end_of_log().checksum = layout.header.checksum;
        Ok(Placed {
            segment,
            file,
            header: layout.header,
            index_memory,
        })
    }

    /// Takes the next place of the log for a batch.
    fn place(
        &self,
        header: &mut BatchHeader,
        batch_bytes: u64,
        frees_space: bool,
    ) -> Result<(Arc<Segment>, Arc<dyn VolumeFile>), NvmeError> {
        let mut log = self.end_of_log();
        let (segment, file) = log.segment_for(self, batch_bytes, frees_space)?;
        header.place.segment_id = segment.id;
        header.place.offset_bytes = log.offset_bytes;
        header.sequence = log.sequence + 1;
        header.previous_checksum = log.checksum;
        log.sequence += 1;
        log.offset_bytes += batch_bytes;
        Ok((segment, file))
    }

    /// Writes the values and then the header, which names their checksums, and waits for all of it.
    fn write_pieces(
        &self,
        file: &dyn VolumeFile,
        layout: &mut Layout,
        mut front: core_view::BufferMut,
    ) -> Result<(), NvmeError> {
        let place = (layout.header.place.offset_bytes, layout.front_bytes());
        let memory_bytes = self.alignment.memory_bytes;
        let values = std::mem::take(&mut layout.paged);
        let (as_they_are, copied_bytes) = tell_runs(&values, memory_bytes);
        let mut pieces = PieceWriter::new(file, &self.buffers, place, copied_bytes);
        for ((number, value), as_it_is) in values.into_iter().zip(as_they_are) {
            let known = layout.known.get(number).copied().flatten();
            match pieces.add(value, as_it_is, known) {
                Ok(checksum) => layout.header.entries[number].checksum = checksum,
                Err(error) => {
                    // Nothing may be on its way when the caller learns of it.
                    drop(pieces.wait_for_all());
                    return Err(error);
                }
            }
        }
        layout.header.synced_sequence = self.queue.synced_sequence();
        layout.seal(&mut front);
        pieces.finish(front)
    }

    /// Makes a batch durable, with all before it in the same segment.
    pub(super) fn sync_stage(&self, placed: &Placed) -> Result<(), NvmeError> {
        self.config.observe(CommitStage::Sync);
        self.sync(&*placed.file)
            .inspect_err(|error| self.poison(error))
    }

    fn sync(&self, file: &dyn VolumeFile) -> Result<(), NvmeError> {
        file.sync().wait()?; // mutant: no-fdatasync
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Makes a durable batch visible.
    pub(super) fn publish_stage(&self, placed: Placed) {
        let Placed {
            segment,
            header,
            index_memory,
            ..
        } = placed;
        self.config.observe(CommitStage::Publish);
        let batch_bytes = header.batch_bytes();
        let end = header.place.offset_bytes + batch_bytes;
        self.log_bytes.fetch_add(batch_bytes, Ordering::AcqRel);
        segment.used_bytes.store(end, Ordering::Release);
        self.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.counters
            .bytes_written
            .fetch_add(batch_bytes, Ordering::Relaxed);
        self.queue.set_synced_sequence(header.sequence);
        let moves = self.apply(header);
        self.settle_index(index_memory);
        self.counters.moved(moves);
    }
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
        let place = header.place;
        let payload_at = place.offset_bytes + u64::from(header.header_bytes);
        let sequence = header.sequence;
        let slot_of = |entry: &Entry| Slot {
            segment_id: place.segment_id,
            offset_bytes: payload_at + entry.value_offset_bytes,
            stored_bytes: entry.stored_bytes,
            raw_bytes: entry.raw_bytes,
            sequence,
            checksum: entry.checksum,
            encoding: entry.encoding,
        };
        let adds = |entry: &&Entry| entry.kind != EntryKind::Delete;
        let mut added = Tally::default();
        for entry in header.entries.iter().filter(adds) {
            added.count(&slot_of(entry), entry.key.len());
        }
        // Before any of them can be found: a segment without live values may be retired.
        self.segments.add_tally(place.segment_id, &added);
        let mut dead = Dead::new(&self.segments);
        let mut moves = Moves::default();
        for entry in header.entries {
            let slot = slot_of(&entry);
            let key_bytes = entry.key.len();
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
                dead.count(&before, key_bytes);
                self.cache.remove(&before);
            }
        }
        moves
    }
}
