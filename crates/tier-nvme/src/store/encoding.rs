//! How values are compressed, and made whole again.

use core_view::BufferMut;

use super::NvmeError;
use crate::format::{Encoding, PAGE_BYTES, RAW_PER_STORED_MAX};

/// How values are compressed before they are stored.
///
/// A value that would not shrink to nine tenths is stored as it is; whether it would, a sample tells.
/// Weights in 16-bit floats, say, gain nothing from LZ4 and cost next to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum CompressionType {
    /// Not at all.
    #[default]
    None,
    /// By LZ4's block format: fast, for text, sparse and repetitive data.
    LZ4,
    /// By Zstandard at its fastest usual level: slower and smaller.
    #[cfg(feature = "zstd")]
    Zstd,
}

/// Shorter values are not worth the attempt, in bytes.
const VALUE_BYTES_MIN: usize = 256;
/// Longer values are sampled first, in bytes.
const SAMPLED_BYTES_MIN: usize = 32 << 10;
/// Bytes of one sample.
const SAMPLE_BYTES: usize = 4 << 10;
const SAMPLES: usize = 4;

/// A value as it is to be stored.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) encoding: Encoding,
    pub(super) stored: BufferMut,
}

/// Bytes to compress a value of `len_bytes` in, or 0 if nobody tries to.
pub(super) fn scratch_bytes(len_bytes: usize, compression: CompressionType) -> usize {
    match Compressor::new(compression) {
        Some(compressor) if len_bytes >= VALUE_BYTES_MIN => {
            let sample_bytes = compressor.target_bytes(SAMPLE_BYTES);
            let value_bytes = compressor.target_bytes(len_bytes);
            // What a better compressor leaves to LZ4 must fit as well.
            let other_bytes = Compressor::Lz4.target_bytes(len_bytes);
            value_bytes.max(other_bytes).max(sample_bytes)
        }
        _ => 0,
    }
}

/// Encodes a value in `scratch`, of [`scratch_bytes`] at least, if that makes it smaller by enough; `lend` gives
/// memory of whole pages.
pub(super) fn encode(
    value: BufferMut,
    compression: CompressionType,
    scratch: &mut [u8],
    lend: impl FnOnce(usize) -> Result<BufferMut, NvmeError>,
) -> Result<Encoded, NvmeError> {
    let compressed = match Compressor::new(compression) {
        Some(compressor) if is_promising(&value, compressor, scratch) => {
            compress(&value, compressor, scratch)
        }
        _ => None,
    };
    let Some((encoding, stored_bytes)) = compressed else {
        return Ok(Encoded {
            encoding: Encoding::Raw,
            stored: value,
        });
    };
    let stored = scratch.get(..stored_bytes).unwrap_or_default();
    Ok(Encoded {
        encoding,
        stored: copy_of(stored, lend)?,
    })
}

/// Bytes in memory of their own, as little as can be.
fn copy_of(
    bytes: &[u8],
    lend: impl FnOnce(usize) -> Result<BufferMut, NvmeError>,
) -> Result<BufferMut, NvmeError> {
    if bytes.len() < PAGE_BYTES {
        return Ok(BufferMut::from_vec(bytes.to_vec()));
    }
    let mut copy = lend(bytes.len().next_multiple_of(PAGE_BYTES))?;
    drop(copy.split_off(bytes.len()));
    copy.copy_from_slice(bytes);
    Ok(copy)
}

/// Whether `stored` bytes in place of `raw` bytes are worth the work.
fn is_worth(stored: usize, raw: usize) -> bool {
    stored / 9 < raw / 10
}

fn is_promising(value: &[u8], compressor: Compressor, target: &mut [u8]) -> bool {
    if value.len() < SAMPLED_BYTES_MIN {
        return value.len() >= VALUE_BYTES_MIN;
    }
    let apart = (value.len() - SAMPLE_BYTES) / (SAMPLES - 1);
    let stored: Option<usize> = (0..SAMPLES)
        .map(|sample| compressor.compress(&value[sample * apart..][..SAMPLE_BYTES], target))
        .sum();
    stored.is_some_and(|stored| is_worth(stored, SAMPLES * SAMPLE_BYTES))
}

/// Compresses a value into `target`; how, and how long it became.
fn compress(value: &[u8], compressor: Compressor, target: &mut [u8]) -> Option<(Encoding, usize)> {
    let stored = compressor.compress(value, target)?;
    // What is saved inside a page is not saved on the device.
    let pages = |bytes: usize| {
        if bytes < PAGE_BYTES {
            bytes
        } else {
            bytes.next_multiple_of(PAGE_BYTES)
        }
    };
    // Readers refuse a value that claims to grow by more than this: such memory can't be asked for.
    if value.len() as u64 / RAW_PER_STORED_MAX > stored as u64 {
        return match compressor {
            Compressor::Lz4 => None,
            // LZ4 shrinks nothing by that much.
            #[cfg(feature = "zstd")]
            Compressor::Zstd => compress(value, Compressor::Lz4, target),
        };
    }
    let is_worth_it = is_worth(pages(stored), pages(value.len()));
    is_worth_it.then_some((compressor.encoding(), stored))
}

/// A way to compress.
#[derive(Debug, Clone, Copy)]
enum Compressor {
    Lz4,
    #[cfg(feature = "zstd")]
    Zstd,
}

impl Compressor {
    fn new(compression: CompressionType) -> Option<Self> {
        match compression {
            CompressionType::None => None,
            CompressionType::LZ4 => Some(Self::Lz4),
            #[cfg(feature = "zstd")]
            CompressionType::Zstd => Some(Self::Zstd),
        }
    }

    fn encoding(self) -> Encoding {
        match self {
            Self::Lz4 => Encoding::Lz4,
            #[cfg(feature = "zstd")]
            Self::Zstd => Encoding::Zstd,
        }
    }

    /// Bytes that are enough for whatever `len_bytes` become.
    fn target_bytes(self, len_bytes: usize) -> usize {
        match self {
            Self::Lz4 => lz4_flex::block::get_maximum_output_size(len_bytes),
            #[cfg(feature = "zstd")]
            Self::Zstd => zstd::zstd_safe::compress_bound(len_bytes),
        }
    }

    /// Compresses `source` into `target` and tells how long it became.
    fn compress(self, source: &[u8], target: &mut [u8]) -> Option<usize> {
        match self {
            Self::Lz4 => lz4_flex::block::compress_into(source, target).ok(),
            #[cfg(feature = "zstd")]
            Self::Zstd => zstd::bulk::compress_to_buffer(source, target, ZSTD_LEVEL).ok(),
        }
    }
}

#[cfg(feature = "zstd")]
const ZSTD_LEVEL: i32 = 1;

/// Why a value can't be made whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// The bytes are not what the encoder wrote.
    Damaged,
    /// This program was built without what it takes.
    #[cfg(not(feature = "zstd"))]
    NotBuiltIn(&'static str),
}

/// Fills `target`, which is as long as the value was, from its stored bytes.
pub(super) fn decode(
    encoding: Encoding,
    stored: &[u8],
    target: &mut [u8],
) -> Result<(), DecodeError> {
    let len_bytes = match encoding {
        Encoding::Raw => {
            let is_whole = stored.len() == target.len();
            if is_whole {
                target.copy_from_slice(stored);
            }
            is_whole.then_some(stored.len())
        }
        Encoding::Lz4 => lz4_flex::block::decompress_into(stored, target).ok(),
        #[cfg(feature = "zstd")]
        Encoding::Zstd => zstd::bulk::decompress_to_buffer(stored, target).ok(),
        #[cfg(not(feature = "zstd"))]
        Encoding::Zstd => return Err(DecodeError::NotBuiltIn("zstd")),
    };
    if len_bytes == Some(target.len()) {
        Ok(())
    } else {
        Err(DecodeError::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::log::aligned_buffer;
    use super::*;

    fn types() -> Vec<CompressionType> {
        vec![
            CompressionType::LZ4,
            #[cfg(feature = "zstd")]
            CompressionType::Zstd,
        ]
    }

    /// Bytes without order.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect()
    }

    fn encoded(value: &[u8], compression: CompressionType) -> Encoded {
        let mut scratch = vec![0; scratch_bytes(value.len(), compression)];
        let value = BufferMut::from_vec(value.to_vec());
        encode(value, compression, &mut scratch, aligned_buffer).unwrap()
    }

    #[test]
    fn what_does_not_shrink_is_stored_as_it_is() {
        for compression in types() {
            for len in [0, 1, 255, 300, 4096, 40_000, 1 << 20] {
                let value = noise(len);
                let result = encoded(&value, compression);
                assert_eq!(result.encoding, Encoding::Raw, "{len} bytes");
                assert_eq!(*result.stored, *value);
            }
        }
        // Weights: sign and exponent in one byte of two, noise in the other.
        let weights: Vec<u8> = noise(1 << 20)
            .chunks_exact(2)
            .flat_map(|pair| [pair[0], 0x3c + (pair[1] & 0x81)])
            .collect();
        assert_eq!(
            encoded(&weights, CompressionType::LZ4).encoding,
            Encoding::Raw
        );
        assert_eq!(
            encoded(&[0; 4096], CompressionType::None).encoding,
            Encoding::Raw
        );
    }

    #[test]
    fn what_shrinks_comes_back_whole_and_no_damage_is_taken_for_it() {
        for compression in types() {
            for len in [256, 1000, 4096, 5000, 100_000, 3 << 20] {
                let value: Vec<u8> = (0..len).map(|i: usize| (i / 7 % 11) as u8).collect();
                let result = encoded(&value, compression);
                assert_ne!(result.encoding, Encoding::Raw);
                assert!(result.stored.len() < len * 9 / 10);
                let mut target = vec![1; len];
                decode(result.encoding, &result.stored, &mut target).unwrap();
                assert_eq!(target, value);
                let short = &result.stored[..result.stored.len() - 1];
                let error = decode(result.encoding, short, &mut target);
                assert_eq!(error, Err(DecodeError::Damaged));
                let error = decode(result.encoding, &result.stored, &mut target[1..]);
                assert_eq!(error, Err(DecodeError::Damaged));
                let error = decode(result.encoding, &result.stored, &mut vec![0; len + 1]);
                assert_eq!(error, Err(DecodeError::Damaged));
            }
        }
    }

    #[test]
    fn no_stored_value_grows_by_more_than_a_reader_believes() {
        for compression in types() {
            let raw_bytes = 8 << 20;
            let result = encoded(&vec![0; raw_bytes], compression);
            let stored_bytes = result.stored.len() as u64;
            assert!(raw_bytes as u64 / RAW_PER_STORED_MAX <= stored_bytes);
            assert_eq!(result.encoding, Encoding::Lz4);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_decoded_or_refused(
            stored in proptest::collection::vec(any::<u8>(), 0..600),
            len in 0_usize..3000,
        ) {
            for encoding in [Encoding::Raw, Encoding::Lz4, Encoding::Zstd] {
                let mut target = vec![0; len];
                drop(decode(encoding, &stored, &mut target));
            }
        }

        #[test]
        fn any_value_comes_back(
            value in proptest::collection::vec(0_u8..4, 0..60_000),
        ) {
            for compression in types() {
                let result = encoded(&value, compression);
                let mut target = vec![9; value.len()];
                decode(result.encoding, &result.stored, &mut target).unwrap();
                prop_assert_eq!(&target, &value);
            }
        }
    }
}
