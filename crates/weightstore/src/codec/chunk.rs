//! Encoding and decoding of one chunk.

use std::cell::RefCell;

use core_view::DType;

use super::block::Layout;
use super::sink::Sink;
use super::{Codec, blocks, form};
use crate::{CHUNK_LEN_BYTES, WeightError};

/// The encoding of a stored chunk.
///
/// ```
/// use core_view::DType;
/// use weightstore::{ChunkEncoding, Codec};
///
/// let chunk: Vec<u8> = (0..50_000).flat_map(|i| (i as f32).sqrt().to_le_bytes()).collect();
/// let (encoding, encoded) = ChunkEncoding::encode(Codec::Auto, DType::F32, &chunk).ok_or("no gain")?;
/// assert!(encoded.len() < chunk.len());
///
/// // A few bytes in the middle, without decoding what lies before.
/// let mut bytes = [0; 10];
/// encoding.decode_range(&encoded, chunk.len(), 77_777, &mut bytes)?;
/// assert_eq!(bytes, chunk[77_777..77_787]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChunkEncoding {
    /// As it is.
    None,
    /// A raw DEFLATE stream.
    Deflate,
    /// An LZ4 block.
    Lz4,
    /// Blocks of planes, each coded in the way that suits it.
    Planes,
    /// Blocks of planes of the difference from the same bytes of a base.
    Difference,
}

/// Why a chunk could not be decoded.
#[derive(Debug)]
pub(crate) enum DecodeError {
    /// The codec is not in this build.
    #[cfg_attr(
        all(feature = "gzip", feature = "lz4", feature = "zstd"),
        expect(dead_code, reason = "no codec is missing from this build")
    )]
    Missing(WeightError),
    /// A later version wrote it.
    Newer(String),
    /// The bytes are not what the codec wrote.
    Damaged(String),
}

impl DecodeError {
    pub(crate) fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged(reason.into())
    }

    /// As an error about a structure of that kind and name.
    pub(crate) fn about(self, structure: &'static str, name: &str) -> WeightError {
        match self {
            Self::Missing(error) => error,
            Self::Newer(reason) => WeightError::Newer {
                structure,
                name: name.into(),
                reason,
            },
            Self::Damaged(reason) => WeightError::corrupt(structure, name, reason),
        }
    }
}

/// Memory that encoding and decoding use again.
#[derive(Debug, Default)]
struct Scratch {
    blocks: blocks::Scratch,
    encoded: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Runs `work` with the thread's scratch memory.
pub(crate) fn with_blocks<R>(work: impl FnOnce(&mut blocks::Scratch, &mut Vec<u8>) -> R) -> R {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => {
            let scratch = &mut *scratch;
            work(&mut scratch.blocks, &mut scratch.encoded)
        }
        Err(_) => work(&mut blocks::Scratch::default(), &mut Vec::new()),
    })
}

impl ChunkEncoding {
    /// The number by which a body names it.
    pub fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Deflate => 1,
            Self::Lz4 => 2,
            Self::Planes => 3,
            Self::Difference => 4,
        }
    }

    /// The encoding of that number.
    pub fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Deflate),
            2 => Some(Self::Lz4),
            3 => Some(Self::Planes),
            4 => Some(Self::Difference),
            _ => None,
        }
    }

    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Deflate => "deflate",
            Self::Lz4 => "lz4",
            Self::Planes => "planes",
            Self::Difference => "difference",
        }
    }

    /// Encodes a chunk of at most [`CHUNK_LEN_BYTES`] whose elements are of that type; `None` if that
    /// does not save a sixteenth.
    pub fn encode(codec: Codec, dtype: DType, chunk: &[u8]) -> Option<(Self, Vec<u8>)> {
        Self::encode_with(codec, dtype, chunk, <[u8]>::to_vec)
    }

    /// As [`ChunkEncoding::encode`]; `keep` takes the encoded bytes, which are in memory that the thread uses again, to
    /// where they stay. Memory of its own for each chunk would be had from the kernel, page by page, each time.
    ///
    /// ```
    /// use core_view::DType;
    /// use weightstore::{ChunkEncoding, Codec};
    ///
    /// let mut all = Vec::new();
    /// for chunk in [[7; 40_000], [8; 40_000]] {
    ///     ChunkEncoding::encode_with(Codec::Auto, DType::BF16, &chunk, |bytes| all.extend_from_slice(bytes));
    /// }
    /// assert!((1..200).contains(&all.len()));
    /// ```
    pub fn encode_with<R>(
        codec: Codec,
        dtype: DType,
        chunk: &[u8],
        keep: impl FnOnce(&[u8]) -> R,
    ) -> Option<(Self, R)> {
        let limit_bytes = Self::limit_bytes(chunk.len());
        match codec {
            Codec::None => None,
            Codec::Gzip { level } => {
                let encoded = deflate(chunk, level, limit_bytes)?;
                Some((Self::Deflate, keep(&encoded)))
            }
            Codec::Lz4 => lz4(chunk, limit_bytes).map(|bytes| (Self::Lz4, keep(&bytes))),
            Codec::Auto => {
                let (width, form) = form::of(dtype);
                let kept = blocks_within(Layout { width, form }, (chunk, &[]), limit_bytes, keep)?;
                Some((Self::Planes, kept))
            }
        }
    }

    /// The most bytes that an encoding of so many may have.
    pub(crate) fn limit_bytes(chunk_len: usize) -> usize {
        chunk_len - chunk_len.div_ceil(16)
    }

    /// As [`ChunkEncoding::encode`], into the beginning of `target`, which has [`ChunkEncoding::limit_bytes`] at least;
    /// returns how many bytes of it were taken.
    #[cfg(feature = "native")]
    pub(crate) fn encode_into(
        codec: Codec,
        dtype: DType,
        chunk: &[u8],
        target: &mut [u8],
    ) -> Option<(Self, usize)> {
        if codec == Codec::Auto {
            let (width, form) = form::of(dtype);
            let len = blocks_into(Layout { width, form }, (chunk, &[]), target)?;
            return Some((Self::Planes, len));
        }
        let keep = |bytes: &[u8]| {
            target.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Some(bytes.len())
        };
        let (encoding, len) = Self::encode_with(codec, dtype, chunk, keep)?;
        Some((encoding, len?))
    }

    /// Decodes a chunk into `target`, whose length is the chunk's. Of a [`ChunkEncoding::Difference`] the
    /// base is taken to be empty.
    ///
    /// # Errors
    /// [`WeightError::Corrupt`] if `encoded` is not an encoding of so many bytes,
    /// [`WeightError::CodecMissing`].
    pub fn decode(self, encoded: &[u8], target: &mut [u8]) -> Result<(), WeightError> {
        self.decode_chunk(encoded, &[], target)
            .map_err(|error| error.about("chunk", "in memory"))
    }

    /// Decodes `target.len()` bytes of a chunk of `chunk_len` bytes, from `offset_bytes` on.
    ///
    /// Of [`ChunkEncoding::Planes`] only the blocks that hold them are decoded.
    ///
    /// # Errors
    /// As [`ChunkEncoding::decode`]; [`WeightError::OutOfRange`] if the chunk has not so many bytes or
    /// is longer than [`CHUNK_LEN_BYTES`].
    pub fn decode_range(
        self,
        encoded: &[u8],
        chunk_len: usize,
        offset_bytes: usize,
        target: &mut [u8],
    ) -> Result<(), WeightError> {
        let end = offset_bytes.checked_add(target.len());
        if chunk_len > CHUNK_LEN_BYTES || end.is_none_or(|end| end > chunk_len) {
            return Err(WeightError::OutOfRange {
                name: "chunk in memory".into(),
                offset_bytes: offset_bytes as u64,
                len_bytes: target.len() as u64,
                tensor_bytes: chunk_len as u64,
            });
        }
        if self == Self::Planes {
            return with_blocks(|scratch, _| {
                blocks::decode(encoded, chunk_len, None, offset_bytes, scratch, target)
            })
            .map_err(|error| error.about("chunk", "in memory"));
        }
        let mut whole = vec![0; chunk_len];
        self.decode(encoded, &mut whole)?;
        let range = offset_bytes..offset_bytes + target.len();
        target.copy_from_slice(whole.get(range).unwrap_or_default());
        Ok(())
    }

    /// As [`ChunkEncoding::decode`]; `base` holds the bytes of the base at the chunk's place, as far as it goes.
    pub(crate) fn decode_chunk(
        self,
        encoded: &[u8],
        base: &[u8],
        target: &mut [u8],
    ) -> Result<(), DecodeError> {
        match self {
            Self::None if encoded.len() == target.len() => {
                target.copy_from_slice(encoded);
                Ok(())
            }
            Self::None => Err(DecodeError::Damaged(format!(
                "a raw chunk of {} bytes has {} stored",
                target.len(),
                encoded.len()
            ))),
            Self::Deflate => inflate(encoded, target),
            Self::Lz4 => unlz4(encoded, target),
            Self::Planes => with_blocks(|scratch, _| {
                blocks::decode(encoded, target.len(), None, 0, scratch, target)
            }),
            Self::Difference => with_blocks(|scratch, _| {
                blocks::decode(encoded, target.len(), Some(base), 0, scratch, target)
            }),
        }
    }

    /// Encodes a chunk as its difference from the bytes of a base at its place, as far as that goes, into the beginning of
    /// `target`, which has [`ChunkEncoding::limit_bytes`] at least; returns how many bytes of it were taken, or `None` if
    /// that does not save a sixteenth.
    #[cfg(feature = "native")]
    pub(crate) fn difference_into(
        dtype: DType,
        chunk: &[u8],
        base: &[u8],
        target: &mut [u8],
    ) -> Option<usize> {
        let (width, form) = form::of_difference(dtype);
        blocks_into(Layout { width, form }, (chunk, base), target)
    }
}

/// Writes the encoding of a chunk to the beginning of `target`, if it is worth it; returns its length.
#[cfg(feature = "native")]
fn blocks_into(layout: Layout, (chunk, base): (&[u8], &[u8]), target: &mut [u8]) -> Option<usize> {
    let target = target.get_mut(..ChunkEncoding::limit_bytes(chunk.len()))?;
    with_blocks(|scratch, _| {
        let mut sink = Sink::new(target);
        blocks::encode(layout, chunk, base, scratch, &mut sink).ok()?;
        Some(sink.len())
    })
}

/// Hands the encoding of a chunk to `keep`, if it fits `limit_bytes`.
fn blocks_within<R>(
    layout: Layout,
    (chunk, base): (&[u8], &[u8]),
    limit_bytes: usize,
    keep: impl FnOnce(&[u8]) -> R,
) -> Option<R> {
    with_blocks(|scratch, encoded| {
        if encoded.len() < limit_bytes {
            encoded.resize(limit_bytes, 0);
        }
        let mut sink = Sink::new(encoded.get_mut(..limit_bytes)?);
        blocks::encode(layout, chunk, base, scratch, &mut sink).ok()?;
        let len = sink.len();
        encoded.get(..len).map(keep)
    })
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
    use super::*;

    const ALL: [Codec; 5] = [
        Codec::None,
        Codec::Gzip { level: 1 },
        Codec::Gzip { level: 9 },
        Codec::Lz4,
        Codec::Auto,
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
            for dtype in DType::all() {
                assert!(ChunkEncoding::encode(codec, dtype, &noise).is_none());
                let zeros = ChunkEncoding::encode(codec, dtype, &[0; 100_000]);
                assert_eq!(zeros.is_some(), codec != Codec::None);
            }
        }
    }

    #[test]
    fn a_stream_of_another_length_is_refused() {
        for codec in ALL {
            let encoded = ChunkEncoding::encode(codec, DType::F32, &[7; 5000]);
            let Some((encoding, encoded)) = encoded else {
                continue;
            };
            for len in [0, 1, 4999, 5001, 1 << 20] {
                // A fill says nothing of its length: the leaf does.
                let fill = encoding == ChunkEncoding::Planes && len > 0 && len % 4 == 0;
                let decoded = encoding.decode(&encoded, &mut vec![0; len]);
                assert!(decoded.is_err() || fill, "{encoding:?} {len}");
            }
            let mut longer = encoded.clone();
            longer.push(0);
            assert!(
                encoding.decode(&longer, &mut [0; 5000]).is_err(),
                "{encoding:?}"
            );
            let shorter = &encoded[..encoded.len() - 1];
            assert!(encoding.decode(shorter, &mut [0; 5000]).is_err());
        }
    }

    #[test]
    fn numbers_lead_back_to_the_encoding() {
        for id in 0..5 {
            assert_eq!(ChunkEncoding::from_id(id).map(ChunkEncoding::id), Some(id));
        }
        assert_eq!(ChunkEncoding::from_id(5), None);
    }
}
