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

const OPERATION: &str = "get block";

impl Shared {
    pub(super) fn get(
        self: &Arc<Self>,
        gets: Vec<BlockGet>,
    ) -> Transfer<Vec<Result<Block, Failure>>> {
        if let Err(error) = self.check_open() {
            let targets = gets.into_iter().map(|get| get.target).collect();
            return Transfer::ready(Err(Failure::new(error.into(), targets)));
        }
        self.push_if_driven();
        let mut seen = HashSet::with_capacity(gets.len());
        let mut parts = Vec::with_capacity(gets.len());
        for get in gets {
            if seen.insert(get.key) {
                parts.push(self.get_one(get));
                continue;
            }
            let reason = "it appears twice in the batch; split the batch";
            parts.push(refused(
                ErrorKind::InvalidInput,
                get.key,
                reason,
                get.target,
            ));
        }
        Transfer::join(parts)
    }

    fn get_one(self: &Arc<Self>, get: BlockGet) -> Transfer<Block> {
        let BlockGet { key, target } = get;
        if let Err(error) = self.check_known([key]) {
            return Transfer::ready(Err(Failure::new(error.into(), vec![target])));
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
            return refused(ErrorKind::NotFound, key, "it is not stored", target);
        };
        let needed = (place.payload_bytes as usize).next_multiple_of(self.unit_bytes());
        if target.len() < needed {
            let given = target.len();
            let reason = format!("the target has {given} bytes, {needed} are needed");
            return refused(ErrorKind::InvalidInput, key, &reason, target);
        }
        match pin {
            Some(pin) if pin.file().is_some() => self.read_block(key, place, pin, target, needed),
            _ => {
                let reason = format!("segment {:08x} is missing", place.segment_id);
                refused(ErrorKind::Corrupt, key, &reason, target)
            }
        }
    }

    fn read_block(
        self: &Arc<Self>,
        key: BlockKey,
        place: BlockPlace,
        pin: Pin,
        mut target: BufferMut,
        needed: usize,
    ) -> Transfer<Block> {
        let Some(file) = pin.file().cloned() else {
            return refused(ErrorKind::Corrupt, key, "its segment is missing", target);
        };
        let rest = target.split_off(needed);
        let (buffer, kept) = if self.moves_as_it_is(&target) {
            (target, None)
        } else {
            self.counters.copies.fetch_add(1, Ordering::Relaxed);
            let alignment = PAGE_BYTES.max(self.alignment.memory_bytes);
            match BufferMut::zeroed(needed, alignment) {
                Ok(buffer) => (buffer, Some(target)),
                Err(error) => {
                    let target = join(target, rest);
                    return Transfer::ready(Err(Failure::new(error.into(), target)));
                }
            }
        };
        let offset_bytes = self.geometry.slot_offset_bytes(place.slot);
        let shared = Arc::clone(self);
        let read = self.contain(|| Ok(file.read(offset_bytes, buffer)));
        let read =
            read.unwrap_or_else(|error| Transfer::ready(Err(ContractError::from(error).into())));
        read.map_outcome(move |outcome| {
            drop(pin);
            if shared.slots.awaited.load(Ordering::SeqCst) {
                shared.queue.stir();
            }
            shared.take_read(key, &place, outcome, kept, rest)
        })
    }

    /// Checks what was read, and puts the target together again.
    fn take_read(
        &self,
        key: BlockKey,
        place: &BlockPlace,
        outcome: Result<BufferMut, Failure>,
        kept: Option<BufferMut>,
        rest: BufferMut,
    ) -> Result<Block, Failure> {
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
fn join(mut front: BufferMut, rest: BufferMut) -> Vec<BufferMut> {
    match front.unsplit(rest) {
        Ok(()) => vec![front],
        Err(rest) => vec![front, rest],
    }
}

fn refused(kind: ErrorKind, key: BlockKey, reason: &str, target: BufferMut) -> Transfer<Block> {
    let error = block_error(kind, OPERATION, key, reason);
    Transfer::ready(Err(Failure::new(error, vec![target])))
}
