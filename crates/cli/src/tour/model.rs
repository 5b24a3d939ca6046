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
pub(crate) fn fill(seed: u64, target: &mut [u8]) {
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
    let mut seed = SEED;
    for tensor in header.tensors() {
        let mut left = tensor.len_bytes();
        while left > 0 {
            let len = left.min(BLOCK_BYTES as u64) as usize;
            let (part, _) = block.split_at_mut(len);
            fill(seed, part);
            shape(tensor.dtype, part);
            file.write_all(part).map_err(failed)?;
            left -= len as u64;
            seed += 1;
        }
    }
    // What is measured later should not wait for this.
    file.sync_all().map_err(failed)
}

/// Turns random bytes into weights as training leaves them: about normal, and small.
pub(crate) fn shape(dtype: DType, bytes: &mut [u8]) {
    // The sum of a few bytes of the word is about normal; its other bits fill the mantissa.
    let normal = |word: u32| {
        let sum: u32 = word.to_le_bytes().iter().map(|byte| u32::from(*byte)).sum();
        let fine = word.wrapping_mul(0x9E37_79B9) as f32 / u32::MAX as f32;
        (sum as f32 + fine - 510.5) * 1.4e-4
    };
    match dtype {
        DType::F32 => {
            for element in bytes.as_chunks_mut::<4>().0 {
                *element = normal(u32::from_le_bytes(*element)).to_le_bytes();
            }
        }
        DType::BF16 | DType::F16 => {
            for element in bytes.as_chunks_mut::<2>().0 {
                let word = u32::from(u16::from_le_bytes(*element)).wrapping_mul(0x85EB_CA6B);
                let bits = normal(word).to_bits();
                let short = match dtype {
                    DType::BF16 => bits >> 16,
                    // Five bits of exponent instead of eight: the numbers are within their range.
                    _ => {
                        (bits >> 31 << 15) | ((bits & 0x7FFF_FFFF) >> 13).saturating_sub(112 << 10)
                    }
                };
                *element = (short as u16).to_le_bytes();
            }
        }
        _ => {}
    }
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
    let header = header_of(source)?;
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

/// Copies a model and changes every float of it a little, as training on does.
pub(crate) fn train_on(source: &Path, target: &Path) -> Result<(), CliError> {
    let header = header_of(source)?;
    let writing = |error| CliError::file("write the fine-tune", target, error);
    std::fs::copy(source, target).map_err(writing)?;
    let file = File::options().read(true).write(true).open(target);
    let file = file.map_err(writing)?;
    let mut seed = !SEED;
    let (mut block, mut noise) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
    for tensor in header.tensors() {
        let mut at = header.data_start() + tensor.start;
        let end = at + tensor.len_bytes();
        while at < end && low_bits(tensor.dtype).is_some() {
            let len = (end - at).min(BLOCK_BYTES as u64) as usize;
            let (part, _) = block.split_at_mut(len);
            let (noise, _) = noise.split_at_mut(len);
            file.read_exact_at(part, at).map_err(writing)?;
            fill(seed, noise);
            nudge(tensor.dtype, part, noise);
            file.write_all_at(part, at).map_err(writing)?;
            at += len as u64;
            seed = seed.wrapping_add(1);
        }
    }
    file.sync_all().map_err(writing)
}

/// The bits of a float that a change of about a thousandth reaches.
fn low_bits(dtype: DType) -> Option<u32> {
    match dtype {
        DType::F32 => Some(0x1FFF),
        DType::F16 => Some(1),
        DType::BF16 => Some(1),
        _ => None,
    }
}

/// Adds or takes a little from each float; half of the short ones stay.
fn nudge(dtype: DType, bytes: &mut [u8], noise: &[u8]) {
    let mask = low_bits(dtype).unwrap_or(0);
    match dtype {
        DType::F32 => {
            let pairs = bytes.as_chunks_mut::<4>().0.iter_mut();
            for (element, noise) in pairs.zip(noise.as_chunks::<4>().0) {
                let changed = u32::from_le_bytes(*element) ^ (u32::from_le_bytes(*noise) & mask);
                *element = changed.to_le_bytes();
            }
        }
        _ => {
            let pairs = bytes.as_chunks_mut::<2>().0.iter_mut();
            for (element, noise) in pairs.zip(noise.as_chunks::<2>().0) {
                let changed =
                    u16::from_le_bytes(*element) ^ (u16::from_le_bytes(*noise) & mask as u16);
                *element = changed.to_le_bytes();
            }
        }
    }
}

fn header_of(path: &Path) -> Result<Header, CliError> {
    let reading = |error| CliError::file("read", path, error);
    let mut file = File::open(path).map_err(reading)?;
    let len_bytes = file.metadata().map_err(reading)?.len();
    Header::read(&mut file, len_bytes).map_err(|error| {
        CliError::Weights(weightstore::WeightError::Safetensors {
            file: path.display().to_string(),
            source: error,
        })
    })
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
    fn made_weights_are_small_numbers_of_either_sign() {
        let mut bytes = vec![0; 4096];
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            fill(3, &mut bytes);
            shape(dtype, &mut bytes);
            let number = |short: u16| match dtype {
                DType::BF16 => f32::from_bits(u32::from(short) << 16),
                _ => {
                    let exponent = i32::from(short >> 10 & 31) - 25;
                    let mantissa = f32::from(short & 1023) + 1024.0;
                    mantissa * 2_f32.powi(exponent) * if short >> 15 == 1 { -1.0 } else { 1.0 }
                }
            };
            let numbers: Vec<f32> = match dtype {
                DType::F32 => bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|x| f32::from_le_bytes(*x))
                    .collect(),
                _ => {
                    let shorts = bytes.as_chunks().0.iter();
                    shorts.map(|x| number(u16::from_le_bytes(*x))).collect()
                }
            };
            let squares: f32 = numbers.iter().map(|x| x * x).sum();
            let rms = (squares / numbers.len() as f32).sqrt();
            assert!((0.015..0.03).contains(&rms), "{dtype} {rms}");
            let negative = numbers.iter().filter(|x| **x < 0.0).count();
            assert!(
                negative.abs_diff(numbers.len() / 2) < numbers.len() / 10,
                "{dtype}"
            );
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
