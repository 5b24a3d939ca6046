//! The SHA-256 tree that names content.

use core_view::DType;
use sha2::{Digest, Sha256};

use crate::WeightHash;
use crate::parallel::{self, threads_for};

/// Length of the chunks that are hashed and stored one by one, in bytes.
pub const CHUNK_LEN_BYTES: usize = 1 << 20;

/// The SHA-256 of one chunk, with the prefix that tells it from a root.
pub type Leaf = [u8; 32];

const LEAF_PREFIX: u8 = 0;
const TENSOR_PREFIX: u8 = 1;
#[cfg(feature = "native")]
const MODEL_PREFIX: u8 = 2;
#[cfg(feature = "native")]
const HINT_PREFIX: u8 = 3;
const DELTA_PREFIX: u8 = 4;
#[cfg(feature = "native")]
const ENCODED_PREFIX: u8 = 5;

/// The digest of one chunk of at most [`CHUNK_LEN_BYTES`].
pub fn leaf_digest(chunk: &[u8]) -> Leaf {
    let mut hasher = Sha256::new();
    hasher.update([LEAF_PREFIX]);
    hasher.update(chunk);
    hasher.finalize().into()
}

/// The digests of all chunks of `bytes`, in order; computed in parallel when there are several.
pub fn leaf_digests(bytes: &[u8]) -> Vec<Leaf> {
    let chunks: Vec<&[u8]> = bytes.chunks(CHUNK_LEN_BYTES).collect();
    parallel::map(threads_for(chunks.len()), chunks, leaf_digest)
}

/// How many chunks `len_bytes` bytes have.
pub fn chunk_count(len_bytes: u64) -> u64 {
    len_bytes.div_ceil(CHUNK_LEN_BYTES as u64)
}

/// The hash of a tensor from its type, shape, length in bytes and leaves.
pub fn tensor_root(dtype: DType, shape: &[u64], len_bytes: u64, leaves: &[Leaf]) -> WeightHash {
    let hasher = start(TENSOR_PREFIX, "stepwell.tensor.v1");
    finish(described(hasher, dtype, shape, len_bytes, leaves))
}

/// The key under which tensors that begin alike are found.
#[cfg(feature = "native")]
pub(crate) fn hint(dtype: DType, shape: &[u64], len_bytes: u64, first: &[Leaf]) -> [u8; 16] {
    let hasher = start(HINT_PREFIX, "stepwell.hint.v1");
    let digest = finish(described(hasher, dtype, shape, len_bytes, first));
    let mut key = [0; 16];
    key.copy_from_slice(&digest.as_bytes()[..16]);
    key
}

/// The hash of a delta from its encoded fields, its payload's length and leaves.
pub(crate) fn delta_root(fields: &[u8], len_bytes: u64, leaves: &[Leaf]) -> WeightHash {
    let mut hasher = start(DELTA_PREFIX, "stepwell.delta.v1");
    hasher.update(fields);
    hasher.update(len_bytes.to_le_bytes());
    hasher.update(leaves.as_flattened());
    finish(hasher)
}

/// What tells encodings of one tensor apart, from the head of an encoded object.
#[cfg(feature = "native")]
pub(crate) fn encoded_tag(head: &[u8]) -> [u8; 32] {
    let mut hasher = start(ENCODED_PREFIX, "stepwell.encoded.v1");
    hasher.update(head);
    hasher.finalize().into()
}

/// A hasher of the content of models; the caller feeds it the files.
#[cfg(feature = "native")]
pub(crate) fn model_hasher() -> Sha256 {
    start(MODEL_PREFIX, "stepwell.model.v1")
}

/// Ends a hasher.
pub(crate) fn finish(hasher: Sha256) -> WeightHash {
    WeightHash::from_bytes(hasher.finalize().into())
}

fn start(prefix: u8, domain: &str) -> Sha256 {
    let mut hasher = Sha256::new();
    hasher.update([prefix]);
    short_text(&mut hasher, domain);
    hasher
}

fn short_text(hasher: &mut Sha256, text: &str) {
    hasher.update([text.len() as u8]);
    hasher.update(text);
}

fn described(
    mut hasher: Sha256,
    dtype: DType,
    shape: &[u64],
    len_bytes: u64,
    leaves: &[Leaf],
) -> Sha256 {
    short_text(&mut hasher, dtype.safetensors_name());
    hasher.update((shape.len() as u32).to_le_bytes());
    for dimension in shape {
        hasher.update(dimension.to_le_bytes());
    }
    hasher.update(len_bytes.to_le_bytes());
    hasher.update(leaves.as_flattened());
    hasher
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_are_those_of_the_chunks_in_order_however_many() {
        let all: Vec<u8> = (0..5 * CHUNK_LEN_BYTES).map(|i| (i / 251) as u8).collect();
        let whole = (0..=5).map(|chunks| chunks * CHUNK_LEN_BYTES);
        for len in whole.chain([1, CHUNK_LEN_BYTES + 1, 4 * CHUNK_LEN_BYTES + 70]) {
            let bytes = &all[..len];
            let expected: Vec<Leaf> = bytes.chunks(CHUNK_LEN_BYTES).map(leaf_digest).collect();
            assert_eq!(leaf_digests(bytes), expected, "{len}");
        }
    }
}
