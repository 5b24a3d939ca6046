//! Which elements a difference leaves certain.

use super::CoralFidelity;
use super::lane::Lane;

/// What the encoder of a kind makes of an element and its reference.
pub(super) type Encode<L> = fn(L, L) -> f32;

/// Judges one element: `decoded` was made of `difference`.
///
/// Rounding is monotonic: if neither neighbour of an element has the difference and it has it itself, no other
/// element has. If it does not have it itself, it is not what was encoded.
pub(super) fn judge<L: Lane>(
    encode: Encode<L>,
    reference: L,
    decoded: L,
    difference: f32,
    fidelity: &mut CoralFidelity,
) {
    let has = |element: L| encode(element, reference).to_bits() == difference.to_bits();
    if difference.is_nan() {
        // Of many elements the difference is not a number, and which one it was is lost.
        fidelity.unknown += 1;
    } else if !has(decoded) {
        fidelity.changed += 1;
    } else if [decoded.below(), decoded.above()]
        .into_iter()
        .flatten()
        .any(has)
    {
        fidelity.unknown += 1;
    }
}
