//! Bytes that tell which write they came from, as a whole or not at all.

use crate::contract::mock::Dice;

/// Fills `bytes` with the pattern of `tag`: the tag, then a sequence that depends on it.
pub(super) fn fill(tag: u64, bytes: &mut [u8]) {
    let mut dice = Dice::new(tag);
    let words = std::iter::once(tag).chain(std::iter::repeat_with(|| dice.next_u64()));
    for (chunk, word) in bytes.chunks_mut(8).zip(words) {
        for (byte, source) in chunk.iter_mut().zip(word.to_le_bytes()) {
            *byte = source;
        }
    }
}

/// The pattern of `tag` in `len` bytes.
pub(super) fn bytes(tag: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(tag, &mut bytes);
    bytes
}

/// The tag whose pattern fills `bytes`, all of them.
pub(super) fn identify(found: &[u8]) -> Option<u64> {
    let tag = u64::from_le_bytes(*found.first_chunk()?);
    (bytes(tag, found.len()) == found).then_some(tag)
}
