//! The caller's part of a put: checks, slots, and the payloads on their way.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use core_view::BufferMut;
use core_view::contract::{BlockKey, BlockPut, ContractError, ErrorKind, Failure, Transfer};

use foldhash::fast::RandomState;

use super::Shared;
use super::queue::{Flight, ItemState, PutItem, PutJob, Ready, RemoveJob};
use super::slots::SlotId;
use crate::format::{PAGE_BYTES, crc32c};
use crate::{NvmeError, VolumeFile};

/// Most bytes of one write; a longer block is written by one write all the same.
const WRITE_BYTES: usize = 2 << 20;
/// Bytes of a job's first write, for which the device waits while checksums are made. Each later one may be twice as long.
const FIRST_WRITE_BYTES: usize = 256 << 10;
/// Most buffers of one write.
const WRITE_BUFFERS: usize = 512;

type PutOutcome = Vec<Result<BufferMut, Failure>>;

/// Neighbouring slots that are written together.
struct Run {
    file: Arc<dyn VolumeFile>,
    offset_bytes: u64,
    buffers: Vec<BufferMut>,
    items: Vec<usize>,
    bytes: usize,
    next: SlotId,
}

/// The writes of a job: those that are on their way, and the one that may grow still.
struct Writes {
    /// The segment that was written to last.
    segment: Option<(u32, Arc<dyn VolumeFile>)>,
    run_bytes_max: usize,
    run: Option<Run>,
    items: Vec<Vec<usize>>,
    transfers: Vec<Transfer<Vec<BufferMut>>>,
}

impl Writes {
    fn new() -> Self {
        Self {
            segment: None,
            run_bytes_max: FIRST_WRITE_BYTES,
            run: None,
            items: Vec::new(),
            transfers: Vec::new(),
        }
    }

    /// The file of a segment; neighbours are mostly of one.
    fn file_of(&mut self, shared: &Shared, id: u32) -> Option<Arc<dyn VolumeFile>> {
        if self.segment.as_ref().is_none_or(|(last, _)| *last != id) {
            let segment = shared.slots.get(id)?;
            self.segment = Some((id, segment.file.clone()?));
        }
        self.segment.as_ref().map(|(_, file)| Arc::clone(file))
    }

    fn submit(&mut self, shared: &Shared) {
        if let Some(run) = self.run.take() {
            let write =
                shared.contain(|| Ok(run.file.write_vectored(run.offset_bytes, run.buffers)));
            let write = write
                .unwrap_or_else(|error| Transfer::ready(Err(ContractError::from(error).into())));
            self.items.push(run.items);
            self.transfers.push(write);
            self.run_bytes_max = WRITE_BYTES.min(2 * self.run_bytes_max);
        }
    }
}

/// An error of one block.
pub(super) fn block_error(
    kind: ErrorKind,
    operation: &'static str,
    key: BlockKey,
    reason: &str,
) -> ContractError {
    ContractError::new(kind, operation).detail(format!("block {key}: {reason}"))
}

impl Shared {
    pub(super) fn put(self: &Arc<Self>, puts: Vec<BlockPut>) -> Transfer<PutOutcome> {
        let (transfer, completer) = self.transfer();
        if let Err(error) = self.check_changeable() {
            let payloads = puts.into_iter().map(|put| put.payload).collect();
            completer.complete(Err(Failure::new(error.into(), payloads)));
            return transfer;
        }
        let items = self.check_puts(puts);
        let waiting = |item: &&PutItem| matches!(item.state, ItemState::Waiting);
        let bytes = items
            .iter()
            .filter(waiting)
            .map(|item| self.queued_bytes(item))
            .sum();
        let count = items.iter().filter(waiting).count();
        let job = PutJob {
            items,
            completer,
            bytes,
            flight: None,
        };
        if count == 0 {
            job.finish();
            return transfer;
        }
        match self.queue.enter(bytes, self.config.queue_bytes()) {
            Err(error) => refuse(job, &error.into()),
            Ok(None) => {
                self.counters.busy.fetch_add(1, Ordering::Relaxed);
                let error = ContractError::new(ErrorKind::Busy, "put blocks").detail(format!(
                    "{bytes} bytes would be more than {} under way; wait for some of them",
                    self.config.queue_bytes()
                ));
                refuse(job, &error);
            }
            Ok(Some(first)) => match first.then(|| self.slots.take(count)).flatten() {
                Some(slots) => self.write_payloads(job, slots),
                None => self.queue.starve(job),
            },
        }
        transfer
    }

    pub(super) fn remove(self: &Arc<Self>, keys: &[BlockKey]) -> Transfer<Vec<bool>> {
        let (transfer, completer) = self.transfer();
        if let Err(error) = self.check_changeable() {
            completer.complete(Err(ContractError::from(error).into()));
            return transfer;
        }
        let job = RemoveJob {
            keys: keys.to_vec(),
            removed: Vec::with_capacity(keys.len()),
            error: None,
            completer,
        };
        if let Err(mut job) = self.queue.push_remove(job) {
            job.error = Some(NvmeError::Closed.into());
            job.finish();
        }
        transfer
    }

    fn check_puts(&self, puts: Vec<BlockPut>) -> Vec<PutItem> {
        const OPERATION: &str = "put block";
        let mut seen = HashSet::with_capacity_and_hasher(puts.len(), RandomState::default());
        let max = self.geometry.block_bytes;
        let check = |put: BlockPut| {
            let len = put.payload.len();
            let refused = |reason: &str| {
                ItemState::Failed(block_error(
                    ErrorKind::InvalidInput,
                    OPERATION,
                    put.key,
                    reason,
                ))
            };
            let state = if !seen.insert(put.key) {
                refused("it appears twice in the batch; split the batch")
            } else if len == 0 || len as u64 > max {
                refused(&format!("{len} bytes of payload; 1 to {max} are allowed"))
            } else {
                ItemState::Waiting
            };
            let is_waiting = matches!(state, ItemState::Waiting);
            PutItem {
                key: put.key,
                meta: put.meta,
                payload_bytes: if is_waiting { len as u32 } else { 0 },
                checksum: 0,
                payload: Some(put.payload),
                state,
            }
        };
        puts.into_iter().map(check).collect()
    }

    /// Submits the payloads of a job; those for which there is no slot fail.
    pub(super) fn write_payloads(self: &Arc<Self>, mut job: PutJob, slots: Vec<SlotId>) {
        let mut slots = slots.into_iter();
        let mut writes = Writes::new();
        let mut unused = Vec::new();
        for (i, item) in job.items.iter_mut().enumerate() {
            if !matches!(item.state, ItemState::Waiting) {
                continue;
            }
            let Some(id) = slots.next() else {
                self.counters.no_space.fetch_add(1, Ordering::Relaxed);
                item.state = ItemState::Failed(self.no_space(item.key));
                continue;
            };
            match self.add_to_writes(&mut writes, i, item, id) {
                Ok(()) => item.state = ItemState::Placed(id),
                Err(error) => {
                    unused.push(id);
                    item.state = ItemState::Failed(error);
                }
            }
        }
        writes.submit(self);
        unused.extend(slots);
        self.slots.release(unused);
        let Writes {
            items, transfers, ..
        } = writes;
        job.flight = Some(Flight {
            items,
            writes: Transfer::join(transfers),
        });
        self.queue.submitted(job);
    }

    /// Waits for the payloads of puts; whether any of them could not be written.
    pub(super) fn land(&self, group: &mut [Ready]) -> bool {
        let mut has_failed = false;
        for ready in group {
            let Ready::Put(job) = ready else { continue };
            let Some(Flight { items, writes }) = job.flight.take() else {
                continue;
            };
            let landed = self.contain(|| Ok(writes.wait()));
            match landed.unwrap_or_else(|error| Err(ContractError::from(error).into())) {
                Ok(outcomes) => {
                    for (items, outcome) in items.into_iter().zip(outcomes) {
                        has_failed |= outcome.is_err();
                        take_back(job, &items, outcome);
                    }
                }
                Err(failure) => {
                    has_failed = true;
                    job.fail(failure.error());
                }
            }
        }
        has_failed
    }

    fn add_to_writes(
        &self,
        writes: &mut Writes,
        i: usize,
        item: &mut PutItem,
        id: SlotId,
    ) -> Result<(), ContractError> {
        let Some(file) = writes.file_of(self, id.segment_id) else {
            let reason = "its segment is gone";
            return Err(block_error(ErrorKind::Io, "put block", item.key, reason));
        };
        let Some(payload) = item.payload.take() else {
            return Err(NvmeError::Closed.into());
        };
        // While this is computed, what was submitted before is on its way.
        item.checksum = crc32c(&payload);
        let buffer = if self.moves_as_it_is(&payload) {
            payload
        } else {
            self.counters.copies.fetch_add(1, Ordering::Relaxed);
            let copy = self.copy_of(&payload);
            item.payload = Some(payload);
            copy?
        };
        let len = buffer.len();
        let next = SlotId {
            slot: id.slot + 1,
            ..id
        };
        // Behind a buffer that does not fill its slot, the next slot is not where the buffer ends.
        let slot_bytes = self.geometry.slot_bytes();
        if let Some(run) = &mut writes.run
            && run.next == id
            && run.bytes as u64 == slot_bytes * run.items.len() as u64
            && run.bytes + len <= writes.run_bytes_max
            && run.items.len() < WRITE_BUFFERS
        {
            run.buffers.push(buffer);
            run.items.push(i);
            run.bytes += len;
            run.next = next;
            return Ok(());
        }
        writes.submit(self);
        writes.run = Some(Run {
            file,
            offset_bytes: self.geometry.slot_offset_bytes(id.slot),
            buffers: vec![buffer],
            items: vec![i],
            bytes: len,
            next,
        });
        Ok(())
    }

    /// Bytes of memory that a block takes until it is stored: its payload, and a copy where that can't go to the device.
    fn queued_bytes(&self, item: &PutItem) -> u64 {
        let payload_bytes = u64::from(item.payload_bytes);
        match &item.payload {
            Some(payload) if !self.moves_as_it_is(payload) => {
                payload_bytes + payload_bytes.next_multiple_of(self.unit_bytes() as u64)
            }
            _ => payload_bytes,
        }
    }

    /// Whether a buffer goes to and from the device as it is.
    pub(super) fn moves_as_it_is(&self, buffer: &BufferMut) -> bool {
        buffer.len().is_multiple_of(self.unit_bytes())
            && buffer.is_aligned_to(self.alignment.memory_bytes)
    }

    fn copy_of(&self, payload: &BufferMut) -> Result<BufferMut, ContractError> {
        let len = payload.len().next_multiple_of(self.unit_bytes());
        let mut copy = BufferMut::zeroed(len, PAGE_BYTES.max(self.alignment.memory_bytes))?;
        if let Some(front) = copy.get_mut(..payload.len()) {
            front.copy_from_slice(payload);
        }
        Ok(copy)
    }

    fn no_space(&self, key: BlockKey) -> ContractError {
        let reason = if self.slots.usable_count() < self.segments_max {
            format!(
                "no slot is free, and the disk has no room for another segment of {} bytes; remove blocks, or make room",
                self.geometry.segment_bytes
            )
        } else {
            format!(
                "no slot is free within {} bytes; remove blocks, or open the slab with a larger capacity",
                self.config.capacity_bytes()
            )
        };
        block_error(ErrorKind::NoSpace, "put block", key, &reason)
    }
}

fn refuse(job: PutJob, error: &ContractError) {
    let payloads = job.items.into_iter().filter_map(|item| item.payload);
    let failure = Failure::new(error.clone(), payloads.collect());
    job.completer.complete(Err(failure));
}

/// Gives the buffers of a run back to their items.
fn take_back(job: &mut PutJob, items: &[usize], outcome: Result<Vec<BufferMut>, Failure>) {
    let (buffers, error) = match outcome {
        Ok(buffers) => (buffers, None),
        Err(failure) => {
            let (error, buffers) = failure.into_parts();
            (buffers.reclaim(), Some(error))
        }
    };
    let mut buffers = buffers.into_iter();
    for &i in items {
        let Some(item) = job.items.get_mut(i) else {
            continue;
        };
        let buffer = buffers.next();
        // What was copied has kept its own.
        if item.payload.is_none() {
            item.payload = buffer;
        }
        if let Some(error) = &error {
            // The slot is not used again before the slab is opened again: its sectors may be bad.
            item.state = ItemState::Failed(error.clone());
        }
    }
}
