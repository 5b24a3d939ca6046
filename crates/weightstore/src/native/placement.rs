//! Tensors into the memory of a tier.

use core_view::BufferMut;
use core_view::contract::{ErrorKind, MemoryTier, SlotId, SlotWrite, Transfer};

use super::NativeStore;
use super::core::Core;
use super::tensor::Source;
use crate::WeightError;
use crate::identity::CHUNK_LEN_BYTES;

/// A place in the memory of a tier.
#[derive(Debug, Clone, Copy)]
pub struct SlotTarget<'a> {
    /// The tier.
    pub tier: &'a dyn MemoryTier,
    /// The slot, which nobody else uses meanwhile.
    pub slot: SlotId,
    /// Where in the slot the tensor's first byte goes.
    pub offset_bytes: usize,
}

impl NativeStore {
    /// Puts a tensor's bytes, verified, into a slot of a tier, and returns how many they are.
    ///
    /// Where the host can reach the slot, they are decoded in place. Else they go through `staging`, buffers of at
    /// least [`CHUNK_LEN_BYTES`] that the device copies from at its full speed, pinned ones: one is filled while
    /// another is copied, so two of some MiB are enough. `staging` has all its buffers again when this returns. After an error the slot's content
    /// is unspecified.
    ///
    /// # Errors
    /// As [`NativeStore::load_tensor`]; [`WeightError::OutOfRange`] if the slot is too short;
    /// [`WeightError::InvalidConfig`] for staging buffers that are missing or too short;
    /// [`WeightError::Storage`] if the tier fails.
    pub fn load_tensor_to_slot(
        &self,
        model: &str,
        tensor: &str,
        target: SlotTarget<'_>,
        staging: &mut Vec<BufferMut>,
    ) -> Result<u64, WeightError> {
        let core = self.enter()?;
        core.in_session(|session| {
            let found = core.tensor_of(session, model, tensor)?;
            core.place(found.source(), target, staging)
                .map_err(|error| error.within(&format!("{tensor:?} of model {model:?}")))
        })
    }
}

impl Core {
    fn place(
        &self,
        source: Source<'_>,
        target: SlotTarget<'_>,
        staging: &mut Vec<BufferMut>,
    ) -> Result<u64, WeightError> {
        let len_bytes = source.body.len_bytes;
        let slot_bytes = target.tier.slot_bytes();
        let end = usize::try_from(len_bytes)
            .ok()
            .and_then(|len| target.offset_bytes.checked_add(len))
            .filter(|end| *end <= slot_bytes);
        let Some(end) = end else {
            return Err(WeightError::OutOfRange {
                name: format!("slot {}", target.slot),
                offset_bytes: target.offset_bytes as u64,
                len_bytes,
                tensor_bytes: slot_bytes as u64,
            });
        };
        match target.tier.lease(target.slot) {
            Ok(mut slot) => {
                let place = slot.get_mut(target.offset_bytes..end);
                self.range(source, 0, place.unwrap_or_default())?;
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                self.place_through(source, target, staging)?;
            }
            Err(error) => return Err(WeightError::storage("lease the slot", error)),
        }
        Ok(len_bytes)
    }

    fn place_through(
        &self,
        source: Source<'_>,
        target: SlotTarget<'_>,
        staging: &mut Vec<BufferMut>,
    ) -> Result<(), WeightError> {
        if staging.is_empty() || staging.iter().any(|buffer| buffer.len() < CHUNK_LEN_BYTES) {
            return Err(WeightError::InvalidConfig {
                field: "staging",
                reason: format!("it takes buffers of at least {CHUNK_LEN_BYTES} bytes"),
            });
        }
        let mut under_way: Option<UnderWay> = None;
        let mut at = 0;
        let mut outcome = Ok(());
        while at < source.body.len_bytes && outcome.is_ok() {
            if staging.is_empty() {
                outcome = finish(under_way.take(), staging);
            }
            let Some(mut buffer) = staging.pop() else {
                break;
            };
            let left = usize::try_from(source.body.len_bytes - at).unwrap_or(usize::MAX);
            // Whole chunks, each of which is decoded once.
            let len = left.min(buffer.len() - buffer.len() % CHUNK_LEN_BYTES);
            let filled = match buffer.get_mut(..len) {
                Some(part) => self.range(source, at, part),
                None => Ok(()),
            };
            // The slot takes one write at a time.
            outcome = outcome.and(filled).and(finish(under_way.take(), staging));
            let tail = buffer.split_off(len);
            if outcome.is_err() {
                staging.push(rejoined(buffer, tail));
                break;
            }
            let write = SlotWrite {
                slot: target.slot,
                offset_bytes: target.offset_bytes + at as usize,
                source: buffer,
            };
            under_way = Some(UnderWay {
                transfer: target.tier.write(vec![write]),
                tail,
            });
            at += len as u64;
        }
        outcome.and(finish(under_way, staging))
    }
}

/// Bytes that are being copied, and what their buffer has behind them.
struct UnderWay {
    transfer: Transfer<Vec<BufferMut>>,
    tail: BufferMut,
}

/// Waits for a copy, and gives its buffer back.
fn finish(under_way: Option<UnderWay>, staging: &mut Vec<BufferMut>) -> Result<(), WeightError> {
    let Some(UnderWay { transfer, tail }) = under_way else {
        return Ok(());
    };
    let (mut buffers, outcome) = match transfer.wait() {
        Ok(buffers) => (buffers, Ok(())),
        Err(failure) => {
            let (error, buffers) = failure.into_parts();
            let error = WeightError::storage("copy a tensor to its slot", error);
            (buffers.reclaim(), Err(error))
        }
    };
    staging.extend(buffers.pop().map(|buffer| rejoined(buffer, tail)));
    outcome
}

/// A buffer and what was split off behind it.
fn rejoined(mut buffer: BufferMut, tail: BufferMut) -> BufferMut {
    // They are of one buffer, in this order, unless a tier gave another one back.
    drop(buffer.unsplit(tail));
    buffer
}
