//! Coral's deltas, decoded to the values that Coral decodes them to.
//!
//! Coral 1.0 writes five kinds, later versions nine. Most are an arithmetic difference that numpy adds to the
//! reference; that is what is done here, with numpy's types, roundings and conversions, so that the result is
//! the same, infinities and not-a-numbers included. Whether it is the tensor that Coral was given is
//! another question: a difference of floats is rounded. [`CoralFidelity`] answers it element by element.

mod difference;
mod half_float;
mod lane;
pub(crate) mod metadata;
mod payload;

use crate::{Delta, DeltaKind, HashKey, WeightError, WeightTensor};

pub(crate) use payload::Payload;

/// How sure it is that a decoded tensor is the one that Coral was given.
///
/// The sum of [`changed`](Self::changed) and [`unknown`](Self::unknown) is the most elements that can differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CoralFidelity {
    /// Elements of the tensor.
    pub elements: u64,
    /// Whether the kind of delta keeps an approximation by design; the counts are zero then.
    pub lossy: bool,
    /// Elements that are certainly not what Coral was given: their difference from the reference is not
    /// the one that the delta has.
    pub changed: u64,
    /// Elements that may or may not be what Coral was given: others have the same difference.
    pub unknown: u64,
}

impl CoralFidelity {
    /// Whether every element is certainly the one that Coral was given.
    pub fn is_exact(&self) -> bool {
        !self.lossy && self.changed == 0 && self.unknown == 0
    }
}

/// A tensor that a delta makes from its reference.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DecodedDelta {
    /// The tensor, with the names of the reference, as Coral gives it.
    pub weight: WeightTensor,
    /// How sure it is that this is what Coral was given.
    pub fidelity: CoralFidelity,
}

/// Decodes a delta of one of Coral's kinds to the values that Coral decodes it to.
///
/// Where a float is converted to an integer that can't hold it, Coral gives what its processor gives; this
/// gives what x86-64 gives.
///
/// ```
/// use core_view::DType;
/// use weightstore::{Delta, DeltaKind, WeightTensor, decode_coral_delta};
///
/// let reference = WeightTensor::new("w", DType::F32, &[2], vec![1.0_f32, 1.0])?;
/// let payload: Vec<u8> = [0.5_f32, -1.0].iter().flat_map(|d| d.to_le_bytes()).collect();
/// let hash = reference.compute_alias();
/// let delta = Delta::new(DeltaKind::Float32Raw, DType::F32, &[2], hash, payload);
///
/// let decoded = decode_coral_delta(&delta, &reference)?;
/// assert_eq!(decoded.weight.data().as_slice_of::<f32>()?, [1.5, 0.0]);
/// assert!(!decoded.fidelity.is_exact());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`WeightError::HashMismatch`] for another reference than the delta's; [`WeightError::CoralDelta`] for a
/// payload or metadata that Coral would not decode either; [`WeightError::OutOfMemory`].
pub fn decode_coral_delta(
    delta: &Delta,
    reference: &WeightTensor,
) -> Result<DecodedDelta, WeightError> {
    check_reference(delta, reference)?;
    let payload = Payload::decode(delta)?;
    let lossy = is_lossy(delta.kind());
    let (bytes, fidelity) = lane::combine(delta, reference, &payload, lossy)?;
    let shape = delta.original_shape();
    let label = reference.label().clone();
    let weight = WeightTensor::new(label.name.clone(), delta.original_dtype(), shape, bytes)?;
    Ok(DecodedDelta {
        weight: weight.labelled(label),
        fidelity,
    })
}

impl DeltaKind {
    /// Whether Coral calls the kind lossy: it keeps an approximation by design.
    ///
    /// Those that it calls lossless need not be exact, see [`CoralFidelity`].
    pub fn is_lossy(self) -> bool {
        is_lossy(self)
    }
}

fn is_lossy(kind: DeltaKind) -> bool {
    matches!(
        kind,
        DeltaKind::Int8Quantized
            | DeltaKind::Int16Quantized
            | DeltaKind::Sparse
            | DeltaKind::PerAxisScaled
    )
}

/// Coral goes on with another reference, with a warning; the result would be nobody's tensor.
fn check_reference(delta: &Delta, reference: &WeightTensor) -> Result<(), WeightError> {
    let expected = delta.reference_hash();
    let fits = match expected {
        HashKey::Coral(alias) => alias == reference.compute_alias(),
        HashKey::Sha256(hash) => hash == reference.compute_hash(),
    };
    if !fits {
        return Err(WeightError::HashMismatch {
            name: reference.name().to_owned(),
            expected,
            computed: reference.compute_hash(),
        });
    }
    if reference.shape() != delta.original_shape() {
        return Err(refused(
            delta.kind(),
            "its reference has another shape than it",
        ));
    }
    Ok(())
}

fn refused(kind: DeltaKind, reason: impl Into<String>) -> WeightError {
    WeightError::CoralDelta {
        kind: kind.name(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests;
