//! Fetching blocks, never unchecked.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use core_view::BufferMut;
use core_view::contract::{
    Block, BlockGet, BlockKey, BlockMeta, ContractError, ErrorKind, Failure, Transfer,
};

use foldhash::fast::RandomState;

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

type Seen = HashSet<BlockKey, RandomState>;

/// A block of a batch that is waited for.
enum Item {
    Reading(Pin, Parts),
    /// A panic took it.
    Lost,
    Done(Result<Block, Failure>),
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
        let gets = match self.check_gets(gets) {
            Ok(gets) => gets,
            Err(failure) => return Transfer::ready(Err(failure)),
        };
        let mut seen = Seen::with_capacity_and_hasher(gets.len(), RandomState::default());
        let read = |get| match self.prepare_once(get, &mut seen) {
            Ok(reading) => self.read_block(reading),
            Err(failure) => Transfer::ready(Err(failure)),
        };
        Transfer::join(gets.into_iter().map(read).collect())
    }

    /// As [`Shared::get`], on the calling thread where the volume can.
    pub(super) fn get_blocking(
        self: &Arc<Self>,
        gets: Vec<BlockGet>,
    ) -> Result<Vec<Result<Block, Failure>>, Failure> {
        let mut gets = self.check_gets(gets)?;
        if gets.len() == 1
            && let Some(get) = gets.pop()
        {
            let reading = self.prepare(get);
            return Ok(vec![reading.and_then(|reading| self.read_alone(reading))]);
        }
        // As many again wait in the queue, to follow those that end before anybody looks at them.
        let started_max = 2 * self.config.io_depth() as usize;
        let mut started = 0;
        let mut queue = ReadQueue::default();
        let mut seen = Seen::with_capacity_and_hasher(gets.len(), RandomState::default());
        let mut items: Vec<Item> = Vec::with_capacity(gets.len());
        let mut gets = gets.into_iter();
        loop {
            while started < started_max
                && let Some(get) = gets.next()
            {
                let item = match self.prepare_once(get, &mut seen) {
                    Err(failure) => Item::Done(Err(failure)),
                    Ok(reading) => {
                        started += 1;
                        self.queue_block(&mut queue, items.len() as u64, reading)
                    }
                };
                items.push(item);
            }
            // A volume that panics takes what is under way with it; that is told below.
            let Ok(Some((tag, outcome))) = self.contain(|| Ok(queue.next())) else {
                if gets.len() == 0 {
                    break;
                }
                started = 0;
                continue;
            };
            started = started.saturating_sub(1);
            let Some(place) = items.get_mut(tag as usize) else {
                continue;
            };
            if let Item::Reading(pin, parts) = std::mem::replace(place, Item::Lost) {
                self.unpin(pin);
                *place = Item::Done(self.take_read(parts, outcome));
            }
        }
        let outcomes = items.into_iter().map(|item| match item {
            Item::Done(outcome) => outcome,
            Item::Reading(..) | Item::Lost => {
                let error = self.check_poison().err().unwrap_or(NvmeError::Closed);
                Err(ContractError::from(error).into())
            }
        });
        Ok(outcomes.collect())
    }

    fn check_gets(self: &Arc<Self>, gets: Vec<BlockGet>) -> Result<Vec<BlockGet>, Failure> {
        if let Err(error) = self.check_open() {
            let targets = gets.into_iter().map(|get| get.target).collect();
            return Err(Failure::new(error.into(), targets));
        }
        self.push_if_driven();
        Ok(gets)
    }

    fn prepare_once(&self, get: BlockGet, seen: &mut Seen) -> Result<Reading, Failure> {
        if seen.insert(get.key) {
            return self.prepare(get);
        }
        let reason = "it appears twice in the batch; split the batch";
        let kind = ErrorKind::InvalidInput;
        Err(refused(kind, get.key, reason, get.target))
    }

    /// Finds a block's place, and readies its target.
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
    fn queue_block(&self, queue: &mut ReadQueue, tag: u64, reading: Reading) -> Item {
        let Reading {
            pin,
            offset_bytes,
            buffer,
            parts,
        } = reading;
        let queued = self.contain(|| {
            if let Some(file) = pin.file() {
                queue.push(tag, &**file, offset_bytes, buffer);
            }
            Ok(())
        });
        match queued {
            Ok(()) => Item::Reading(pin, parts),
            Err(error) => Item::Done(Err(ContractError::from(error).into())),
        }
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
