//! Reading a value while the caller does something else.

use std::sync::Arc;

use core_view::BufferMut;
use core_view::contract::{Failure, Transfer};

use super::index::Slot;
use super::memory::MemoryKind;
use super::read::{check, extent_of};
use super::{NvmeError, Shared};
use crate::VolumeFile;

/// Bytes of one operation.
const PIECE_BYTES: usize = 2 << 20;

impl Shared {
    pub(super) fn read_async(self: &Arc<Self>, key: &[u8]) -> Transfer<Option<BufferMut>> {
        let Some(slot) = self.index.get(key) else {
            return Transfer::ready(Ok(None));
        };
        if let Some(value) = self.cached(&slot) {
            return Transfer::ready(Ok(Some(value)));
        }
        let started = self
            .segments
            .get(slot.segment_id)
            .and_then(|segment| segment.file.clone())
            .filter(|_| slot.stored_bytes > 0)
            .map(|file| self.start(&slot, &file));
        let stored = match started {
            Some(Ok(stored)) => stored,
            Some(Err(error)) => return Transfer::ready(Err(failed(error))),
            None => return Transfer::ready(self.read(key).map_err(failed)),
        };
        let (shared, key) = (Arc::clone(self), Box::<[u8]>::from(key));
        stored.map_outcome(move |stored| shared.take_in(&key, &slot, stored))
    }

    /// Starts reading the stored bytes of a value.
    fn start(
        &self,
        slot: &Slot,
        file: &Arc<dyn VolumeFile>,
    ) -> Result<Transfer<BufferMut>, NvmeError> {
        let (extent, len) = extent_of(slot)?;
        let skip = (slot.offset_bytes - extent.start_bytes) as usize;
        let target = self.lend(MemoryKind::Buffers, extent.len_bytes)?;
        if target.len() <= PIECE_BYTES {
            let read = file.read(extent.start_bytes, target);
            return Ok(read.map(move |buffer| part(buffer, skip, len)));
        }
        let mut at = extent.start_bytes;
        let mut pieces = Vec::new();
        for piece in target.split_into(PIECE_BYTES) {
            let offset = at;
            at += piece.len() as u64;
            pieces.push(file.read(offset, piece));
        }
        let joined = Transfer::join(pieces);
        Ok(joined.map_outcome(move |pieces| join(pieces?).map(|buffer| part(buffer, skip, len))))
    }

    /// Checks and decodes what was read; if it is not what it should be, looks once more for what became of
    /// the value.
    fn take_in(
        &self,
        key: &[u8],
        slot: &Slot,
        stored: Result<BufferMut, Failure>,
    ) -> Result<Option<BufferMut>, Failure> {
        let value = stored.map_err(NvmeError::from).and_then(|stored| {
            check(key, slot, &stored)?; // mutant: no-async-read-check
            let len = stored.len();
            let stored = self.cut(MemoryKind::Buffers, stored, 0, len)?;
            self.decoded(key, slot, stored, MemoryKind::Buffers)
        });
        match value {
            Ok(value) => {
                self.counters.read(value.len());
                self.remember(key, slot, &value);
                Ok(Some(value))
            }
            Err(error) if self.index.get(key) == Some(*slot) => Err(failed(error)),
            // This may be a thread of the engine, which must not wait for the engine.
            Err(_) => self.read_here(key).map_err(failed),
        }
    }
}

fn failed(error: NvmeError) -> Failure {
    Failure::from(core_view::contract::ContractError::from(error))
}

/// `len` bytes from `skip` on.
fn part(mut buffer: BufferMut, skip: usize, len: usize) -> BufferMut {
    let mut value = buffer.split_off(skip);
    drop(value.split_off(len));
    value
}

/// Puts the pieces of one buffer together again.
fn join(pieces: Vec<Result<BufferMut, Failure>>) -> Result<BufferMut, Failure> {
    let mut whole: Option<BufferMut> = None;
    for piece in pieces {
        let piece = piece?;
        match &mut whole {
            None => whole = Some(piece),
            // They were split from one buffer, and come back in order.
            Some(whole) => drop(whole.unsplit(piece)),
        }
    }
    Ok(whole.unwrap_or_else(|| BufferMut::from_vec(Vec::new())))
}
