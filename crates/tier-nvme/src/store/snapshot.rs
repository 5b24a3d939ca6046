//! Filling the index with what a checkpoint has, while more of it is read.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Scope, ScopedJoinHandle};

use super::Shared;
use super::body::{Body, Records, Unread};
use super::bulk::{THREAD_NAME, lanes};
use super::index::{Filling, SHARD_COUNT, Slot};
use super::scan::ScanMemory;
use crate::format::{FormatError, IndexRecord, SegmentTable};
use crate::threads;

/// Pieces that wait for a thread; with those that are worked on, this bounds the memory.
const PIECES_WAITING_MAX: usize = 1;

impl Shared {
    /// Fills the index, which is empty, with the entries of a checkpoint. What is in it after a failure means
    /// nothing.
    pub(super) fn fill_from_body(
        &self,
        body: &mut Body,
        entry_count: u64,
        memory: &ScanMemory,
    ) -> Result<(), Unread> {
        let keys = usize::try_from(entry_count).unwrap_or(usize::MAX);
        let intake = Intake {
            shared: self,
            segments: &std::sync::Arc::clone(&body.segments),
            // A shard has about as many as any other.
            shard_keys: keys / SHARD_COUNT + keys / SHARD_COUNT / 16,
        };
        let lane_count = lanes(keys).min(memory.lanes_max());
        if lane_count < 2 {
            return intake.take_body(body);
        }
        thread::scope(|scope| {
            let lanes: Vec<_> = (0..lane_count)
                .map_while(|_| Lane::begin(scope, &intake).ok())
                .collect();
            if lanes.is_empty() {
                return intake.take_body(body);
            }
            // One that has ended found something wrong.
            let mut turns = lanes.iter().cycle();
            while let (Some(records), Some(lane)) = (body.next_records()?, turns.next()) {
                if lane.pieces.send(records).is_err() {
                    break;
                }
            }
            lanes.into_iter().try_for_each(Lane::end)?;
            Ok(())
        })
    }
}

struct Lane<'scope> {
    pieces: SyncSender<Records>,
    thread: ScopedJoinHandle<'scope, Result<(), FormatError>>,
}

impl<'scope> Lane<'scope> {
    fn begin(scope: &'scope Scope<'scope, '_>, intake: &'scope Intake<'_>) -> io::Result<Self> {
        let (pieces, waiting) = sync_channel(PIECES_WAITING_MAX);
        let work = move || intake.take_all(&waiting);
        let thread = threads::start(scope, THREAD_NAME, work)?;
        Ok(Self { pieces, thread })
    }

    fn end(self) -> Result<(), FormatError> {
        drop(self.pieces);
        match self.thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Takes records in.
struct Intake<'a> {
    shared: &'a Shared,
    segments: &'a SegmentTable,
    /// Keys for which a shard makes room when it gets its first.
    shard_keys: usize,
}

impl Intake<'_> {
    /// All that is left of it, on this thread.
    fn take_body(&self, body: &mut Body) -> Result<(), Unread> {
        while let Some(records) = body.next_records()? {
            self.take(&records)?;
        }
        Ok(())
    }

    fn take_all(&self, pieces: &Receiver<Records>) -> Result<(), FormatError> {
        pieces.iter().try_for_each(|records| self.take(&records))
    }

    fn take(&self, records: &Records) -> Result<(), FormatError> {
        let index = &self.shared.index;
        let mut rest = records.bytes.as_slice();
        // A checkpoint has one shard behind the other.
        let mut filling: Option<(usize, Filling<'_>)> = None;
        for _ in 0..records.count {
            let record = IndexRecord::decode(&mut rest)?;
            self.segments.check(&record)?;
            let slot = Slot {
                segment_id: record.segment_id,
                offset_bytes: record.offset_bytes,
                stored_bytes: record.stored_bytes,
                raw_bytes: record.raw_bytes,
                sequence: record.sequence,
                checksum: record.checksum,
                encoding: record.encoding,
            };
            let shard = index.shard_of(record.key);
            if let Some((_, done)) = filling.take_if(|(current, _)| *current != shard) {
                index.grow(done.end());
            }
            let (_, filling) = filling.get_or_insert_with(|| {
                let mut filling = index.filling(shard);
                filling.make_room(self.shard_keys);
                (shard, filling)
            });
            if !filling.put(record.key, slot) {
                return Err(FormatError::Damaged("a key is in it twice"));
            }
        }
        if let Some((_, done)) = filling {
            index.grow(done.end());
        }
        Ok(())
    }
}
