//! Ways to encode weights.

use std::io::{Read, Write};

use core_view::DType;
use half::f16;
use pco::ChunkConfig;
use weightstore::{CHUNK_LEN_BYTES, ChunkEncoding, Codec, encode_delta};

#[cfg(feature = "xet")]
use crate::xet;

/// A way to encode bytes of a type and to get them back.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// `None` for what it does not take.
    pub(crate) encode: fn(DType, &[u8]) -> Option<Vec<u8>>,
    pub(crate) decode: fn(DType, &[u8], &mut [u8]),
}

pub(crate) const PEERS: &[Peer] = &[
    Peer {
        name: "ours",
        encode: ours,
        decode: ours_back,
    },
    Peer {
        name: "zstd 3",
        encode: |_, bytes| zstd::bulk::compress(bytes, 3).ok(),
        decode: |_, encoded, target| {
            zstd::bulk::decompress_to_buffer(encoded, target).unwrap();
        },
    },
    Peer {
        name: "LZ4",
        encode: |_, bytes| Some(lz4_flex::block::compress(bytes)),
        decode: |_, encoded, target| {
            lz4_flex::block::decompress_into(encoded, target).unwrap();
        },
    },
    Peer {
        name: "gzip 6",
        encode: |_, bytes| {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
            encoder.write_all(bytes).ok()?;
            encoder.finish().ok()
        },
        decode: |_, encoded, target| {
            let mut decoder = flate2::read::GzDecoder::new(encoded);
            decoder.read_exact(target).unwrap();
        },
    },
    Peer {
        name: "pco",
        encode: pco_of,
        decode: pco_back,
    },
    Peer {
        name: "bytes in groups + LZ4",
        encode: |dtype, bytes| Some(lz4_flex::block::compress(&grouped(dtype, bytes))),
        decode: |dtype, encoded, target| {
            let groups = lz4_flex::block::decompress(encoded, target.len()).unwrap();
            ungroup(dtype, &groups, target);
        },
    },
    Peer {
        name: "bytes in groups + zstd 3",
        encode: |dtype, bytes| zstd::bulk::compress(&grouped(dtype, bytes), 3).ok(),
        decode: |dtype, encoded, target| {
            let groups = zstd::bulk::decompress(encoded, target.len()).unwrap();
            ungroup(dtype, &groups, target);
        },
    },
    #[cfg(feature = "xet")]
    Peer {
        name: "Xet",
        encode: xet::encode,
        decode: xet::decode,
    },
];

/// Chunks with a byte that says how, as the store's headers do.
fn ours(dtype: DType, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoded = Vec::with_capacity(bytes.len());
    for chunk in bytes.chunks(CHUNK_LEN_BYTES) {
        let coded = ChunkEncoding::encode(Codec::Auto, dtype, chunk);
        let (how, stored) = match &coded {
            Some((encoding, stored)) => (encoding.id(), stored.as_slice()),
            None => (0, chunk),
        };
        encoded.extend_from_slice(&(stored.len() as u32 | u32::from(how) << 28).to_le_bytes());
        encoded.extend_from_slice(stored);
    }
    Some(encoded)
}

fn ours_back(_: DType, mut encoded: &[u8], target: &mut [u8]) {
    for chunk in target.chunks_mut(CHUNK_LEN_BYTES) {
        let (head, rest) = encoded.split_first_chunk().unwrap();
        let head = u32::from_le_bytes(*head);
        let (stored, rest) = rest.split_at((head & 0x0FFF_FFFF) as usize);
        let encoding = ChunkEncoding::from_id((head >> 28) as u8).unwrap();
        encoding.decode(stored, chunk).unwrap();
        encoded = rest;
    }
}

fn pco_of(dtype: DType, bytes: &[u8]) -> Option<Vec<u8>> {
    let config = ChunkConfig::default();
    match dtype {
        DType::F16 => {
            let numbers: Vec<f16> = bytes
                .as_chunks()
                .0
                .iter()
                .map(|x| f16::from_le_bytes(*x))
                .collect();
            pco::standalone::simple_compress(&numbers, &config).ok()
        }
        DType::F32 => {
            let numbers: Vec<f32> = bytes
                .as_chunks()
                .0
                .iter()
                .map(|x| f32::from_le_bytes(*x))
                .collect();
            pco::standalone::simple_compress(&numbers, &config).ok()
        }
        // It has no such type: the integers that the bits are.
        DType::BF16 => {
            let numbers: Vec<u16> = bytes
                .as_chunks()
                .0
                .iter()
                .map(|x| u16::from_le_bytes(*x))
                .collect();
            pco::standalone::simple_compress(&numbers, &config).ok()
        }
        _ => None,
    }
}

fn pco_back(dtype: DType, encoded: &[u8], target: &mut [u8]) {
    match dtype {
        DType::F16 => {
            let numbers = pco::standalone::simple_decompress::<f16>(encoded).unwrap();
            let parts = target.as_chunks_mut().0.iter_mut();
            parts
                .zip(numbers)
                .for_each(|(part, x)| *part = x.to_le_bytes());
        }
        DType::F32 => {
            let numbers = pco::standalone::simple_decompress::<f32>(encoded).unwrap();
            let parts = target.as_chunks_mut().0.iter_mut();
            parts
                .zip(numbers)
                .for_each(|(part, x)| *part = x.to_le_bytes());
        }
        _ => {
            let numbers = pco::standalone::simple_decompress::<u16>(encoded).unwrap();
            let parts = target.as_chunks_mut().0.iter_mut();
            parts
                .zip(numbers)
                .for_each(|(part, x)| *part = x.to_le_bytes());
        }
    }
}

/// All first bytes, then all second ones: what is done before LZ4 where models are stored in chunks.
fn grouped(dtype: DType, bytes: &[u8]) -> Vec<u8> {
    let width = dtype.bits() / 8;
    (0..width)
        .flat_map(|plane| bytes.iter().skip(plane).step_by(width).copied())
        .collect()
}

fn ungroup(dtype: DType, groups: &[u8], target: &mut [u8]) {
    let width = dtype.bits() / 8;
    let planes = groups.chunks(groups.len() / width);
    for (plane, bytes) in planes.enumerate() {
        let places = target.iter_mut().skip(plane).step_by(width);
        places.zip(bytes).for_each(|(place, byte)| *place = *byte);
    }
}

/// A way to encode a tensor against its base; returns the length.
pub(crate) struct Difference {
    pub(crate) name: &'static str,
    pub(crate) encode: fn(DType, &[u8], &[u8]) -> usize,
}

pub(crate) const DIFFERENCES: [Difference; 5] = [
    Difference {
        name: "ours",
        encode: |dtype, base, tuned| encode_delta(base, tuned, dtype).unwrap().len(),
    },
    Difference {
        name: "ours, alone",
        encode: |dtype, _, tuned| ours(dtype, tuned).unwrap().len(),
    },
    Difference {
        name: "xor + zstd 3",
        encode: |_, base, tuned| {
            let zeros = std::iter::repeat(&0);
            let xored: Vec<u8> = tuned
                .iter()
                .zip(base.iter().chain(zeros))
                .map(|(a, b)| a ^ b)
                .collect();
            zstd::bulk::compress(&xored, 3).unwrap().len()
        },
    },
    Difference {
        name: "integers subtracted + pco",
        encode: |dtype, base, tuned| match dtype {
            DType::F32 => {
                let before = base
                    .as_chunks()
                    .0
                    .iter()
                    .map(|x| ordered(u32::from_le_bytes(*x)));
                let after = tuned
                    .as_chunks()
                    .0
                    .iter()
                    .map(|x| ordered(u32::from_le_bytes(*x)));
                let zeros = std::iter::repeat(1 << 31);
                let numbers: Vec<u32> = after
                    .zip(before.chain(zeros))
                    .map(|(a, b)| a.wrapping_sub(b))
                    .collect();
                let config = ChunkConfig::default();
                pco::standalone::simple_compress(&numbers, &config)
                    .unwrap()
                    .len()
            }
            _ => {
                let before = base
                    .as_chunks()
                    .0
                    .iter()
                    .map(|x| ordered_half(u16::from_le_bytes(*x)));
                let after = tuned
                    .as_chunks()
                    .0
                    .iter()
                    .map(|x| ordered_half(u16::from_le_bytes(*x)));
                let zeros = std::iter::repeat(1 << 15);
                let numbers: Vec<u16> = after
                    .zip(before.chain(zeros))
                    .map(|(a, b)| a.wrapping_sub(b))
                    .collect();
                let config = ChunkConfig::default();
                pco::standalone::simple_compress(&numbers, &config)
                    .unwrap()
                    .len()
            }
        },
    },
    Difference {
        name: "nothing",
        encode: |_, _, tuned| tuned.len(),
    },
];

/// Bits of floats as integers in the order of the floats.
fn ordered(bits: u32) -> u32 {
    bits ^ (((bits as i32 >> 31) as u32) | 1 << 31)
}

fn ordered_half(bits: u16) -> u16 {
    bits ^ (((bits as i16 >> 15) as u16) | 1 << 15)
}
