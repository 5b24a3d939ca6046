//! Encoding and decoding of one chunk.

use super::Codec;
use crate::WeightError;

/// The codec of a stored chunk, as its header names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChunkCodec {
    None,
    Deflate,
    Lz4,
}

impl ChunkCodec {
    pub(crate) fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Deflate),
            2 => Some(Self::Lz4),
            _ => None,
        }
    }

    pub(crate) fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Deflate => 1,
            Self::Lz4 => 2,
        }
    }
}

/// Encodes `chunk`; `None` if that does not save a sixteenth.
pub(crate) fn encode(codec: Codec, chunk: &[u8]) -> Option<(ChunkCodec, Vec<u8>)> {
    let limit_bytes = chunk.len() - chunk.len().div_ceil(16);
    match codec {
        Codec::None => None,
        Codec::Gzip { level } => {
            deflate(chunk, level, limit_bytes).map(|bytes| (ChunkCodec::Deflate, bytes))
        }
        Codec::Lz4 => lz4(chunk, limit_bytes).map(|bytes| (ChunkCodec::Lz4, bytes)),
    }
}

/// Why a chunk could not be decoded.
#[derive(Debug)]
pub(crate) enum DecodeError {
    /// The codec is not in this build.
    #[cfg_attr(
        all(feature = "gzip", feature = "lz4"),
        expect(dead_code, reason = "no codec is missing from this build")
    )]
    Missing(WeightError),
    /// The bytes are not what the codec wrote.
    Damaged(String),
}

/// Decodes into `target`, whose length is the chunk's.
pub(crate) fn decode(
    codec: ChunkCodec,
    encoded: &[u8],
    target: &mut [u8],
) -> Result<(), DecodeError> {
    match codec {
        ChunkCodec::None if encoded.len() == target.len() => {
            target.copy_from_slice(encoded);
            Ok(())
        }
        ChunkCodec::None => Err(DecodeError::Damaged(format!(
            "a raw chunk of {} bytes has {} stored",
            target.len(),
            encoded.len()
        ))),
        ChunkCodec::Deflate => inflate(encoded, target),
        ChunkCodec::Lz4 => unlz4(encoded, target),
    }
}

#[cfg(feature = "gzip")]
fn deflate(chunk: &[u8], level: u8, limit_bytes: usize) -> Option<Vec<u8>> {
    use flate2::{Compress, Compression, FlushCompress, Status};

    let mut encoded = Vec::with_capacity(limit_bytes);
    let mut stream = Compress::new(Compression::new(u32::from(level)), false);
    match stream.compress_vec(chunk, &mut encoded, FlushCompress::Finish) {
        Ok(Status::StreamEnd) => Some(encoded),
        _ => None,
    }
}

#[cfg(feature = "gzip")]
fn inflate(encoded: &[u8], target: &mut [u8]) -> Result<(), DecodeError> {
    use flate2::{Decompress, FlushDecompress, Status};

    let mut stream = Decompress::new(false);
    let status = stream
        .decompress(encoded, target, FlushDecompress::Finish)
        .map_err(|error| DecodeError::Damaged(format!("no valid DEFLATE stream: {error}")))?;
    let whole = status == Status::StreamEnd
        && stream.total_in() == encoded.len() as u64
        && stream.total_out() == target.len() as u64;
    whole.then_some(()).ok_or_else(|| {
        DecodeError::Damaged(format!(
            "a DEFLATE stream of {} bytes does not hold exactly {} bytes",
            encoded.len(),
            target.len()
        ))
    })
}

#[cfg(not(feature = "gzip"))]
fn deflate(_: &[u8], _: u8, _: usize) -> Option<Vec<u8>> {
    None
}

#[cfg(not(feature = "gzip"))]
fn inflate(_: &[u8], _: &mut [u8]) -> Result<(), DecodeError> {
    Err(DecodeError::Missing(WeightError::CodecMissing {
        codec: "gzip",
    }))
}

#[cfg(feature = "lz4")]
fn lz4(chunk: &[u8], limit_bytes: usize) -> Option<Vec<u8>> {
    let mut encoded = lz4_flex::block::compress(chunk);
    if encoded.len() > limit_bytes {
        return None;
    }
    encoded.shrink_to_fit();
    Some(encoded)
}

#[cfg(feature = "lz4")]
fn unlz4(encoded: &[u8], target: &mut [u8]) -> Result<(), DecodeError> {
    match lz4_flex::block::decompress_into(encoded, target) {
        Ok(len) if len == target.len() => Ok(()),
        Ok(len) => Err(DecodeError::Damaged(format!(
            "an LZ4 block holds {len} bytes instead of {}",
            target.len()
        ))),
        Err(error) => Err(DecodeError::Damaged(format!("no valid LZ4 block: {error}"))),
    }
}

#[cfg(not(feature = "lz4"))]
fn lz4(_: &[u8], _: usize) -> Option<Vec<u8>> {
    None
}

#[cfg(not(feature = "lz4"))]
fn unlz4(_: &[u8], _: &mut [u8]) -> Result<(), DecodeError> {
    Err(DecodeError::Missing(WeightError::CodecMissing {
        codec: "lz4",
    }))
}

#[cfg(all(test, feature = "gzip", feature = "lz4"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Codec; 4] = [
        Codec::None,
        Codec::Gzip { level: 1 },
        Codec::Gzip { level: 9 },
        Codec::Lz4,
    ];

    #[test]
    fn what_does_not_shrink_is_left_as_it_is() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .take(100_000)
        .collect();
        for codec in ALL {
            assert!(encode(codec, &noise).is_none());
            assert_eq!(encode(codec, &[0; 100_000]).is_some(), codec != Codec::None);
        }
    }

    #[test]
    fn a_stream_of_another_length_is_refused() {
        for codec in ALL {
            let Some((id, encoded)) = encode(codec, &[7; 5000]) else {
                continue;
            };
            for len in [0, 1, 4999, 5001, 1 << 20] {
                assert!(
                    decode(id, &encoded, &mut vec![0; len]).is_err(),
                    "{id:?} {len}"
                );
            }
            let mut longer = encoded.clone();
            longer.push(0);
            assert!(decode(id, &longer, &mut [0; 5000]).is_err(), "{id:?}");
            assert!(decode(id, &encoded[..encoded.len() - 1], &mut [0; 5000]).is_err());
        }
    }

    proptest! {
        #[test]
        fn chunks_round_trip(
            pattern in proptest::collection::vec(any::<u8>(), 1..64),
            len in 1_usize..20_000,
        ) {
            let chunk: Vec<u8> = pattern.iter().copied().cycle().take(len).collect();
            for codec in ALL {
                if let Some((id, encoded)) = encode(codec, &chunk) {
                    let mut decoded = vec![0; len];
                    decode(id, &encoded, &mut decoded).unwrap();
                    prop_assert_eq!(&decoded, &chunk);
                }
            }
        }

        #[test]
        fn hostile_bytes_are_an_error_at_most(
            encoded in proptest::collection::vec(any::<u8>(), 0..300),
            len in 0_usize..2000,
        ) {
            for id in [ChunkCodec::None, ChunkCodec::Deflate, ChunkCodec::Lz4] {
                let _ = decode(id, &encoded, &mut vec![0; len]);
            }
        }
    }
}
