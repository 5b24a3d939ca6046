//! The models of the tour: a made one, and a second version of any.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use core_view::DType;
use core_view::safetensors::{Header, HeaderBuilder, TensorInfo};
use sha2::{Digest, Sha256};

use crate::error::CliError;
use crate::quantity::hex;

/// About the size of the made model.
pub(super) const SYNTHETIC_BYTES: u64 = 256 << 20;

const LAYERS: u64 = 12;
const BLOCK_BYTES: usize = 1 << 20;
const SEED: u64 = 20_26;

/// Fills memory with bytes that depend on the seed alone.
pub(super) fn fill(seed: u64, target: &mut [u8]) {
    // SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
    let mut state = seed;
    for word in target.chunks_mut(8) {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        for (target, byte) in word.iter_mut().zip(mixed.to_le_bytes()) {
            *target = byte;
        }
    }
}

/// Writes a model of many layers in several types.
pub(super) fn make(path: &Path) -> Result<(), CliError> {
    let failed = |source| CliError::file("write the model", path, source);
    let header = synthetic_header().map_err(|error| failed(io::Error::other(error)))?;
    let mut file = File::create(path).map_err(failed)?;
    file.write_all(header.raw()).map_err(failed)?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut left = header.data_len();
    let mut seed = SEED;
    while left > 0 {
        fill(seed, &mut block);
        let len = left.min(BLOCK_BYTES as u64);
        let (part, _) = block.split_at(len as usize);
        file.write_all(part).map_err(failed)?;
        left -= len;
        seed += 1;
    }
    // What is measured later should not wait for this.
    file.sync_all().map_err(failed)
}

fn synthetic_header() -> Result<Header, core_view::safetensors::SafetensorsError> {
    let mut builder = HeaderBuilder::new()
        .metadata("format", "pt")
        .tensor("positions", DType::I64, &[1, 512])
        .tensor("embed.weight", DType::F32, &[22_800, 768]);
    for layer in 0..LAYERS {
        let name = |part: &str| format!("layers.{layer}.{part}");
        builder = builder
            .tensor(name("norm.weight"), DType::F32, &[768])
            .tensor(name("attention.qkv.weight"), DType::BF16, &[2304, 768])
            .tensor(name("attention.out.weight"), DType::BF16, &[768, 768])
            .tensor(name("mlp.up.weight"), DType::BF16, &[3840, 768])
            .tensor(name("mlp.down.weight"), DType::F16, &[768, 3840])
            .tensor(name("mlp.bias"), DType::F16, &[768]);
    }
    builder.build()
}

/// Copies a model and changes the bytes of one tensor; returns that tensor's name.
pub(super) fn change_one_layer(source: &Path, target: &Path) -> Result<String, CliError> {
    let reading = |error| CliError::file("read", source, error);
    let mut file = File::open(source).map_err(reading)?;
    let len_bytes = file.metadata().map_err(reading)?.len();
    let header = Header::read(&mut file, len_bytes).map_err(|error| {
        CliError::Weights(weightstore::WeightError::Safetensors {
            file: source.display().to_string(),
            source: error,
        })
    })?;
    let writing = |error| CliError::file("write the second version", target, error);
    std::fs::copy(source, target).map_err(writing)?;
    let changed = File::options().read(true).write(true).open(target);
    let changed = changed.map_err(writing)?;
    let Some(tensor) = middle_tensor(header.tensors()) else {
        return Ok("none".to_owned());
    };
    change(
        &changed,
        header.data_start() + tensor.start,
        tensor.len_bytes(),
    )
    .map_err(writing)?;
    changed.sync_all().map_err(writing)?;
    Ok(tensor.name.clone())
}

/// A tensor from the middle of the model: the one of median size that is not empty.
fn middle_tensor(tensors: &[TensorInfo]) -> Option<&TensorInfo> {
    let mut full: Vec<&TensorInfo> = tensors.iter().filter(|t| t.len_bytes() > 0).collect();
    full.sort_by_key(|tensor| tensor.len_bytes());
    full.get(full.len() / 2).copied()
}

/// Inverts the lowest bit of every byte of a range.
fn change(file: &File, start: u64, len_bytes: u64) -> io::Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut done = 0;
    while done < len_bytes {
        let len = (len_bytes - done).min(BLOCK_BYTES as u64) as usize;
        let (part, _) = block.split_at_mut(len);
        file.read_exact_at(part, start + done)?;
        part.iter_mut().for_each(|byte| *byte ^= 1);
        file.write_all_at(part, start + done)?;
        done += len as u64;
    }
    Ok(())
}

/// SHA-256 of a whole file in hex.
pub(super) fn sha256(path: &Path) -> Result<String, CliError> {
    let failed = |source| CliError::file("read", path, source);
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let len = file.read(&mut block).map_err(failed)?;
        let (part, _) = block.split_at(len);
        if part.is_empty() {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_made_model_has_about_its_size_and_mixed_types() {
        let header = synthetic_header().unwrap();
        let len = header.raw().len() as u64 + header.data_len();
        assert!(
            len.abs_diff(SYNTHETIC_BYTES) < SYNTHETIC_BYTES / 10,
            "{len}"
        );
        for dtype in [DType::I64, DType::F32, DType::F16, DType::BF16] {
            assert!(header.tensors().iter().any(|tensor| tensor.dtype == dtype));
        }
    }

    #[test]
    fn the_second_version_differs_in_one_tensor() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a"), folder.path().join("b"));
        let header = HeaderBuilder::new()
            .tensor("small", DType::U8, &[3])
            .tensor("middle", DType::U8, &[5])
            .tensor("large", DType::U8, &[9])
            .tensor("empty", DType::U8, &[0])
            .build()
            .unwrap();
        let bytes = [header.raw(), &[6; 17]].concat();
        std::fs::write(&first, &bytes).unwrap();
        assert_eq!(change_one_layer(&first, &second).unwrap(), "middle");
        let start = header.raw().len();
        let changed = std::fs::read(&second).unwrap();
        let expected = [&[6; 3][..], &[7; 5], &[6; 9]].concat();
        assert_eq!(changed[start..], expected);
        assert_eq!(changed[..start], bytes[..start]);
        assert_ne!(sha256(&first).unwrap(), sha256(&second).unwrap());
    }
}
