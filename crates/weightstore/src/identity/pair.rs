//! The leaf digests of two chunks at once.
//!
//! Each instruction for SHA-256 needs the result of the one before, and a processor that has them waits for it. Blocks of
//! two contents in turns give it something to do meanwhile.

use sha2::block_api::compress256;

use super::{LEAF_PREFIX, Leaf, leaf_digest};

const BLOCK_LEN: usize = 64;
/// Bytes of a length at the end.
const LENGTH_LEN: usize = 8;

type Block = [u8; BLOCK_LEN];

/// The state before the first block (FIPS 180-4, 5.3.3).
const START: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The digests of two chunks, as [`leaf_digest`] gives them, in less time than one after the other.
pub fn leaf_digest_pair(first: &[u8], second: &[u8]) -> [Leaf; 2] {
    let (Some(a), Some(b)) = (Message::of(first), Message::of(second)) else {
        return [leaf_digest(first), leaf_digest(second)];
    };
    let (mut x, mut y) = (START, START);
    compress256(&mut x, &[a.first]);
    compress256(&mut y, &[b.first]);
    let common = a.middle.len().min(b.middle.len());
    let (a_common, a_rest) = a.middle.split_at(common);
    let (b_common, b_rest) = b.middle.split_at(common);
    for (block_a, block_b) in a_common.iter().zip(b_common) {
        compress256(&mut x, std::slice::from_ref(block_a));
        compress256(&mut y, std::slice::from_ref(block_b));
    }
    for (state, rest, message) in [(&mut x, a_rest, &a), (&mut y, b_rest, &b)] {
        compress256(state, rest);
        compress256(state, message.end());
    }
    [x, y].map(digest)
}

/// How many chunks one job hashes: two if that leaves a job for each thread.
pub(crate) fn chunks_at_once(chunks: usize, threads: usize) -> usize {
    if chunks / 2 >= threads.max(1) { 2 } else { 1 }
}

fn digest(state: [u32; 8]) -> Leaf {
    let mut leaf = Leaf::default();
    for (bytes, word) in leaf.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    leaf
}

/// A chunk behind its prefix, as the blocks that are hashed.
struct Message<'a> {
    /// The prefix and what fills its block.
    first: Block,
    middle: &'a [Block],
    /// What is left, and the padding.
    end: [Block; 2],
    end_len: usize,
}

impl<'a> Message<'a> {
    /// `None` for a chunk that does not fill the first block.
    fn of(chunk: &'a [u8]) -> Option<Self> {
        let (head, rest) = chunk.split_at_checked(BLOCK_LEN - 1)?;
        let mut first = [0; BLOCK_LEN];
        let (prefix, after) = first.split_at_mut(1);
        prefix.fill(LEAF_PREFIX);
        after.copy_from_slice(head);
        let (middle, left) = rest.as_chunks();
        // A bit that is set follows, and the length stands at the end of a block.
        let end_len = (left.len() + 1 + LENGTH_LEN).div_ceil(BLOCK_LEN);
        let mut end = [[0; BLOCK_LEN]; 2];
        let bytes = end.as_flattened_mut().get_mut(..end_len * BLOCK_LEN)?;
        let (content, padding) = bytes.split_at_mut(left.len());
        content.copy_from_slice(left);
        *padding.first_mut()? = 0x80;
        let bits = 8 * (chunk.len() as u64 + 1);
        *padding.last_chunk_mut()? = bits.to_be_bytes();
        Some(Self {
            first,
            middle,
            end,
            end_len,
        })
    }

    fn end(&self) -> &[Block] {
        self.end.get(..self.end_len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_one_chunk_after_the_other() {
        let bytes: Vec<u8> = (0..5000_u32).map(|i| (i * i / 7) as u8).collect();
        let lens = (0..200).chain([1000, 4031, 4095, 4096, 5000]);
        for len in lens {
            for other in [0, 62, 63, 64, 118, 119, 127, 128, len, 5000] {
                let (a, b) = (&bytes[..len], &bytes[5000 - other..]);
                let expected = [leaf_digest(a), leaf_digest(b)];
                assert_eq!(leaf_digest_pair(a, b), expected, "{len} {other}");
            }
        }
    }

    #[test]
    fn no_thread_is_without_a_chunk_for_the_sake_of_pairs() {
        let jobs = |chunks: usize, threads| chunks.div_ceil(chunks_at_once(chunks, threads));
        for threads in 1..9 {
            for chunks in 0..40 {
                assert!(
                    jobs(chunks, threads) >= chunks.min(threads),
                    "{chunks} {threads}"
                );
            }
            assert_eq!(jobs(2 * threads, threads), threads);
        }
        assert_eq!(chunks_at_once(0, 0), 1);
    }
}
