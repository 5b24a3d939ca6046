//! Bytes that tell which block they are of.

use crate::SequenceHash;

/// Fills a block with bytes that depend on its identity and on their own place: no two blocks are alike, and no part
/// of one passes for another part.
pub fn fill(hash: SequenceHash, bytes: &mut [u8]) {
    let mut words = bytes.chunks_exact_mut(8);
    for (place, word) in words.by_ref().enumerate() {
        word.copy_from_slice(&word_at(hash, place).to_le_bytes());
    }
    let last = word_at(hash, usize::MAX).to_le_bytes();
    for (target, source) in words.into_remainder().iter_mut().zip(last) {
        *target = source;
    }
}

/// Whether the bytes are those that [`fill`] gives the block.
pub fn is_content_of(hash: SequenceHash, bytes: &[u8]) -> bool {
    let mut words = bytes.chunks_exact(8);
    let whole = words
        .by_ref()
        .enumerate()
        .all(|(place, word)| word == word_at(hash, place).to_le_bytes());
    let rest = words.remainder();
    whole && word_at(hash, usize::MAX).to_le_bytes().starts_with(rest)
}

fn word_at(hash: SequenceHash, place: usize) -> u64 {
    let [low, high] = hash.words();
    let mixed = (low ^ place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 32)).wrapping_add(high.rotate_left((place & 63) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_of_one_block_and_every_byte_counts() {
        let (one, other) = (SequenceHash::new(7, 0), SequenceHash::new(7 << 64, 0));
        for len in [0, 1, 7, 8, 9, 64, 1003] {
            let mut bytes = vec![0; len];
            fill(one, &mut bytes);
            assert!(is_content_of(one, &bytes));
            assert!(len < 8 || !is_content_of(other, &bytes));
            for at in 0..len {
                bytes[at] ^= 1;
                assert!(!is_content_of(one, &bytes), "{at} of {len}");
                bytes[at] ^= 1;
            }
        }
        let mut bytes = vec![0; 4096];
        fill(one, &mut bytes);
        let (front, back) = bytes.split_at(2048);
        assert_ne!(front, back);
    }
}
