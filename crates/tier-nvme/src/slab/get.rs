//! Fetching blocks, never unchecked.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use core_view::BufferMut;
use core_view::contract::{
    Block, BlockGet, BlockKey, BlockMeta, ContractError, ErrorKind, Failure, Transfer,
};

use super::Shared;
use super::put::block_error;
use super::slots::{Pin, SlotId};
use crate::format::slab::BlockPlace;
use crate::format::{PAGE_BYTES, crc32c};
use crate::{NvmeError, ReadQueue};

const OPERATION: &str = "get block";

/// A block that is about to be read, into whole pages.
struct Reading {
    pin: Pin,
    offset_bytes: u64,
    /// The pages.
    buffer: BufferMut,
    parts: Parts,
}

/// What is known of a block while its pages are read.
struct Parts {
    key: BlockKey,
    place: BlockPlace,
    /// The front of the target, where that can't go to the device.
    kept: Option<BufferMut>,
    /// The end of the target, where it is longer than the pages.
    rest: Option<BufferMut>,
}

impl Shared {
    pub(super) fn get(
        self: &Arc<Self>,
        gets: Vec<BlockGet>,
    ) -> Transfer<Vec<Result<Block, Failure>>> {
        match self.prepare_all(gets) {
            Err(failure) => Transfer::ready(Err(failure)),
            Ok(readings) => Transfer::join(
                readings
                    .into_iter()
                    .map(|reading| match reading {
                        Ok(reading) => self.read_block(reading),
                        Err(failure) => Transfer::ready(Err(failure)),
                    })
                    .collect(),
            ),
        }
    }

    /// As [`Shared::get`], on the calling thread where the volume can.
    pub(super) fn get_blocking(
        self: &Arc<Self>,
        gets: Vec<BlockGet>,
    ) -> Result<Vec<Result<Block, Failure>>, Failure> {
        let mut readings = self.prepare_all(gets)?;
        if readings.len() == 1
            && let Some(reading) = readings.pop()
        {
            return Ok(vec![reading.and_then(|reading| self.read_alone(reading))]);
        }
        let mut queue = ReadQueue::default();
        let mut under_way = Vec::with_capacity(readings.len());
        let mut outcomes: Vec<Option<Result<Block, Failure>>> = Vec::with_capacity(readings.len());
        for (tag, reading) in (0..).zip(readings) {
            let (reading, outcome) = match reading {
                Ok(reading) => (Some(self.queue_block(&mut queue, tag, reading)), None),
                Err(failure) => (None, Some(Err(failure))),
            };
            under_way.push(reading);
            outcomes.push(outcome);
        }
        // A volume that panics takes what is under way with it; that is told below.
        while let Ok(Some((tag, outcome))) = self.contain(|| Ok(queue.next())) {
            let Some((pin, parts)) = under_way.get_mut(tag as usize).and_then(Option::take) else {
                continue;
            };
            self.unpin(pin);
            if let Some(place) = outcomes.get_mut(tag as usize) {
                *place = Some(self.take_read(parts, outcome));
            }
        }
        let lost = || {
            let error = self.check_poison().err().unwrap_or(NvmeError::Closed);
            Err(ContractError::from(error).into())
        };
        let outcomes = outcomes.into_iter();
        Ok(outcomes.map(|it| it.unwrap_or_else(lost)).collect())
    }

    /// Finds each block's place, and readies its target.
    fn prepare_all(
        self: &Arc<Self>,
        gets: Vec<BlockGet>,
    ) -> Result<Vec<Result<Reading, Failure>>, Failure> {
        if let Err(error) = self.check_open() {
            let targets = gets.into_iter().map(|get| get.target).collect();
            return Err(Failure::new(error.into(), targets));
        }
        self.push_if_driven();
        let mut seen = HashSet::with_capacity(gets.len());
        let prepare = |get: BlockGet| {
            if seen.insert(get.key) {
                return self.prepare(get);
            }
            let reason = "it appears twice in the batch; split the batch";
            let kind = ErrorKind::InvalidInput;
            Err(refused(kind, get.key, reason, get.target))
        };
        Ok(gets.into_iter().map(prepare).collect())
    }

    fn prepare(&self, get: BlockGet) -> Result<Reading, Failure> {
        let BlockGet { key, mut target } = get;
        if let Err(error) = self.check_known([key]) {
            return Err(Failure::new(error.into(), vec![target]));
        }
        // The pin is taken while the place can't change, so that the slot is not given away before it.
        let found = self.table.with(key, |place| {
            let id = SlotId {
                segment_id: place.segment_id,
                slot: place.slot,
            };
            (place.clone(), self.slots.pin(id))
        });
        let Some((place, pin)) = found else {
            return Err(refused(
                ErrorKind::NotFound,
                key,
                "it is not stored",
                target,
            ));
        };
        let needed = (place.payload_bytes as usize).next_multiple_of(self.unit_bytes());
        if target.len() < needed {
            let given = target.len();
            let reason = format!("the target has {given} bytes, {needed} are needed");
            return Err(refused(ErrorKind::InvalidInput, key, &reason, target));
        }
        let Some(pin) = pin.filter(|pin| pin.file().is_some()) else {
            let reason = format!("segment {:08x} is missing", place.segment_id);
            return Err(refused(ErrorKind::Corrupt, key, &reason, target));
        };
        let rest = (target.len() > needed).then(|| target.split_off(needed));
        let (buffer, kept) = if self.moves_as_it_is(&target) {
            (target, None)
        } else {
            self.counters.copies.fetch_add(1, Ordering::Relaxed);
            let alignment = PAGE_BYTES.max(self.alignment.memory_bytes);
            match BufferMut::zeroed(needed, alignment) {
                Ok(buffer) => (buffer, Some(target)),
                Err(error) => return Err(Failure::new(error.into(), join(target, rest))),
            }
        };
        Ok(Reading {
            pin,
            offset_bytes: self.geometry.slot_offset_bytes(place.slot),
            buffer,
            parts: Parts {
                key,
                place,
                kept,
                rest,
            },
        })
    }

    fn read_block(self: &Arc<Self>, reading: Reading) -> Transfer<Block> {
        let Reading {
            pin,
            offset_bytes,
            buffer,
            parts,
        } = reading;
        let read = self.contain(|| match pin.file() {
            Some(file) => Ok(file.read(offset_bytes, buffer)),
            None => Err(NvmeError::Closed),
        });
        let read =
            read.unwrap_or_else(|error| Transfer::ready(Err(ContractError::from(error).into())));
        let shared = Arc::clone(self);
        read.map_outcome(move |outcome| {
            shared.unpin(pin);
            shared.take_read(parts, outcome)
        })
    }

    /// Reads by one call.
    fn read_alone(&self, reading: Reading) -> Result<Block, Failure> {
        let Reading {
            pin,
            offset_bytes,
            buffer,
            parts,
        } = reading;
        let read = self.contain(|| match pin.file() {
            Some(file) => Ok(file.read_blocking(offset_bytes, buffer)),
            None => Err(NvmeError::Closed),
        });
        self.unpin(pin);
        let read = read.unwrap_or_else(|error| Err(ContractError::from(error).into()));
        self.take_read(parts, read)
    }

    /// Starts a read of a queue's own.
    fn queue_block(&self, queue: &mut ReadQueue, tag: u64, reading: Reading) -> (Pin, Parts) {
        let Reading {
            pin,
            offset_bytes,
            buffer,
            parts,
        } = reading;
        if let Some(file) = pin.file() {
            // What a panic leaves without an outcome is told so at the end.
            let queued = self.contain(|| {
                queue.push(tag, &**file, offset_bytes, buffer);
                Ok(())
            });
            drop(queued);
        }
        (pin, parts)
    }

    /// A slot is not read any more.
    fn unpin(&self, pin: Pin) {
        drop(pin);
        if self.slots.awaited.load(Ordering::SeqCst) {
            self.queue.stir();
        }
    }

    /// Checks what was read, and puts the target together again.
    fn take_read(
        &self,
        parts: Parts,
        outcome: Result<BufferMut, Failure>,
    ) -> Result<Block, Failure> {
        let Parts {
            key,
            place,
            kept,
            rest,
        } = parts;
        let payload_bytes = place.payload_bytes as usize;
        let buffer = match outcome {
            Ok(buffer) => buffer,
            Err(failure) => {
                let (error, buffers) = failure.into_parts();
                let front = kept.or_else(|| buffers.reclaim().pop());
                let target = front.map_or(Vec::new(), |front| join(front, rest));
                return Err(Failure::new(error, target));
            }
        };
        let found = crc32c(buffer.get(..payload_bytes).unwrap_or_default());
        let front = match kept {
            None => buffer,
            Some(mut kept) => {
                kept.copy_from_slice(&buffer);
                kept
            }
        };
        let target = join(front, rest);
        if found != place.checksum {
            // mutant: slab-no-read-check
            self.counters.corrupt.fetch_add(1, Ordering::Relaxed);
            let reason = format!(
                "its checksum is {found:08x} instead of {:08x} in slot {} of segment {:08x}; store it again",
                place.checksum, place.slot, place.segment_id
            );
            let error = block_error(ErrorKind::Corrupt, OPERATION, key, &reason);
            return Err(Failure::new(error, target));
        }
        self.counters.gets.fetch_add(1, Ordering::Relaxed);
        self.counters
            .got_bytes
            .fetch_add(payload_bytes as u64, Ordering::Relaxed);
        let mut target = target.into_iter();
        match (target.next(), BlockMeta::new(&place.meta)) {
            (Some(target), Ok(meta)) => Ok(Block {
                meta,
                target,
                payload_bytes,
            }),
            (target, Ok(_)) => {
                let reason = "the volume gave another buffer back than it took";
                let error = block_error(ErrorKind::Io, OPERATION, key, reason);
                Err(Failure::new(error, target.into_iter().collect()))
            }
            (target, Err(error)) => Err(Failure::new(error, target.into_iter().collect())),
        }
    }
}

/// A target whose end was split off, as it was given.
fn join(mut front: BufferMut, rest: Option<BufferMut>) -> Vec<BufferMut> {
    match rest.map(|rest| front.unsplit(rest)) {
        None | Some(Ok(())) => vec![front],
        Some(Err(rest)) => vec![front, rest],
    }
}

fn refused(kind: ErrorKind, key: BlockKey, reason: &str, target: BufferMut) -> Failure {
    let error = block_error(kind, OPERATION, key, reason);
    Failure::new(error, vec![target])
}
