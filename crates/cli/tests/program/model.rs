//! Small models.

use std::path::{Path, PathBuf};

use core_view::DType;
use core_view::safetensors::HeaderBuilder;

/// Bytes that look like nothing, by a seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A safetensors file of a few tensors: one of several chunks, one small, one empty, a scalar.
pub(crate) fn file(seed: u64) -> Vec<u8> {
    let header = HeaderBuilder::new()
        .metadata("format", "pt")
        .tensor("embed.weight", DType::F32, &[700, 512])
        .tensor("layer.0.weight", DType::BF16, &[128, 300])
        .tensor("layer.0.bias", DType::F16, &[300])
        .tensor("nothing", DType::I64, &[0, 4])
        .tensor("scale", DType::F64, &[])
        .build()
        .unwrap();
    let data = noise(seed, header.data_len() as usize);
    [header.raw(), &data].concat()
}

/// How many tensors [`file`] has.
pub(crate) const TENSORS: u64 = 5;

/// Writes bytes as a file of that name.
pub(crate) fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}
