//! A tensor as its exact difference from another one, the base.
//!
//! Elements are mapped to integers that keep their order, subtracted, and folded so that small
//! changes of either sign are small numbers; those are split into planes and coded like a tensor's own
//! (see [`Codec::Auto`](crate::Codec::Auto)). Each step is a bijection: every bit pattern comes back,
//! NaNs, infinities and both zeros included. `docs/formats/weights.md` has the layout.
//!
//! The base may be longer or shorter than the target, as when a vocabulary grew; what it lacks counts as
//! zeros, against which an element costs what it costs alone.

use core_view::DType;
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::block::Layout;
use crate::codec::blocks;
use crate::codec::chunk::{DecodeError, with_blocks};
use crate::codec::form::{self, Form};
use crate::codec::reader::Reader;
use crate::codec::sink::Sink;
use crate::identity::{CHUNK_LEN_BYTES, chunk_count};
use crate::{WeightError, parallel};

const MAGIC: [u8; 4] = *b"SWDF";
const VERSION: u16 = 1;
const HEADER_LEN: usize = 40;

/// Encodes `target` as its difference from `base`, both of elements of that type.
///
/// The result is at most 0.1 % longer than the target, and far shorter if they are alike.
/// [`decode_delta`] gives the target back.
///
/// ```
/// use core_view::DType;
/// use weightstore::{decode_delta, encode_delta};
///
/// let bytes = |scale: f32| -> Vec<u8> {
///     (0..100_000).flat_map(|i| ((i as f32).sin() * scale).to_le_bytes()).collect()
/// };
/// let (base, target) = (bytes(1.0), bytes(1.0001));
/// let delta = encode_delta(&base, &target, DType::F32)?;
/// assert!(delta.len() < target.len() * 3 / 5);
///
/// let mut restored = vec![0; target.len()];
/// decode_delta(&base, &delta, &mut restored)?;
/// assert_eq!(restored, target);
/// # Ok::<(), weightstore::WeightError>(())
/// ```
///
/// # Errors
/// [`WeightError::OutOfMemory`].
pub fn encode_delta(base: &[u8], target: &[u8], dtype: DType) -> Result<Vec<u8>, WeightError> {
    let (width, form) = form::of_difference(dtype);
    let chunks: Vec<(&[u8], &[u8])> = target
        .chunks(CHUNK_LEN_BYTES)
        .enumerate()
        .map(|(index, chunk)| (chunk, piece(base, index * CHUNK_LEN_BYTES, chunk.len())))
        .collect();
    let encoded = parallel::map(
        parallel::threads_for(chunks.len()),
        chunks,
        |(chunk, base)| encode_delta_chunk(base, chunk, Layout { width, form }),
    );
    let mut delta = Vec::new();
    let len = encoded
        .iter()
        .flatten()
        .fold(HEADER_LEN + 4 * encoded.len(), |len, chunk| {
            len + chunk.len()
        });
    delta.try_reserve_exact(len).map_err(|_| no_memory(len))?;
    delta.extend_from_slice(&MAGIC);
    delta.extend_from_slice(&VERSION.to_le_bytes());
    delta.extend_from_slice(&[0; 2]);
    let order = u8::from(form == Form::OrderedDifference);
    delta.extend_from_slice(&[width as u8, order, 0, 0]);
    delta.extend_from_slice(&(CHUNK_LEN_BYTES as u32).to_le_bytes());
    delta.extend_from_slice(&(target.len() as u64).to_le_bytes());
    delta.extend_from_slice(&(base.len() as u64).to_le_bytes());
    delta.extend_from_slice(&xxh3_64(base).to_le_bytes());
    for chunk in &encoded {
        let len = chunk.as_ref().map_or(0, Vec::len) as u32;
        delta.extend_from_slice(&len.to_le_bytes());
    }
    for chunk in encoded {
        delta.extend_from_slice(&chunk.ok_or_else(|| no_memory(len))?);
    }
    Ok(delta)
}

/// One chunk as blocks of planes; always fits the room that it is given.
fn encode_delta_chunk(base: &[u8], chunk: &[u8], layout: Layout) -> Option<Vec<u8>> {
    with_blocks(|scratch, room| {
        let room_len = blocks::room(chunk.len());
        if room.len() < room_len {
            room.resize(room_len, 0);
        }
        let mut sink = Sink::new(room);
        blocks::encode(layout, chunk, base, scratch, &mut sink).ok()?;
        let len = sink.len();
        room.get(..len).map(<[u8]>::to_vec)
    })
}

/// Decodes a difference from `base` into `target`, which has the length that the difference states
/// ([`Difference::target_len_bytes`]).
///
/// # Errors
/// [`WeightError::Corrupt`] if `delta` is damaged or made against another base. The check of the base is
/// one against mistakes; the target is to be checked against its own identity.
pub fn decode_delta(base: &[u8], delta: &[u8], target: &mut [u8]) -> Result<(), WeightError> {
    let difference = Difference::parse(delta)?;
    difference.check_base(base)?;
    let target_len = target.len() as u64;
    if target_len != difference.target_len_bytes {
        return Err(corrupt(format!(
            "it makes {} bytes, not {target_len}",
            difference.target_len_bytes
        )));
    }
    let pieces: Vec<(usize, &mut [u8])> = target.chunks_mut(CHUNK_LEN_BYTES).enumerate().collect();
    let threads = parallel::threads_for(pieces.len());
    parallel::map(threads, pieces, |(index, chunk)| {
        let start = index * CHUNK_LEN_BYTES;
        let base = piece(base, start, chunk.len());
        difference.decode_chunk(index, base, 0, chunk.len(), chunk)
    })
    .into_iter()
    .collect()
}

/// A difference whose parts are read one by one.
///
/// ```
/// use core_view::DType;
/// use weightstore::{Difference, encode_delta};
///
/// let (base, mut target) = (vec![1_u8; 3_000_000], vec![1_u8; 3_000_000]);
/// target[2_500_000] = 9;
/// let delta = encode_delta(&base, &target, DType::BF16)?;
///
/// let difference = Difference::parse(&delta)?;
/// let mut part = [0; 3];
/// difference.decode_range(&base, 2_499_999, &mut part)?;
/// assert_eq!(part, [1, 9, 1]);
/// # Ok::<(), weightstore::WeightError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Difference<'a> {
    width: usize,
    target_len_bytes: u64,
    base_len_bytes: u64,
    base_xxh3: u64,
    chunks: Vec<&'a [u8]>,
}

impl<'a> Difference<'a> {
    /// Reads the header and finds the chunks; decodes nothing.
    ///
    /// # Errors
    /// [`WeightError::Corrupt`], [`WeightError::Newer`].
    pub fn parse(delta: &'a [u8]) -> Result<Self, WeightError> {
        Self::open(delta).map_err(|error| error.about("difference", "in memory"))
    }

    fn open(delta: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(delta);
        let damaged = |reason: String| Err(DecodeError::Damaged(reason));
        if reader.array()? != MAGIC {
            return damaged("it does not start with its magic".into());
        }
        let version = u16::from_le_bytes(reader.array()?);
        let features = u16::from_le_bytes(reader.array()?);
        if version != VERSION || features != 0 {
            return Err(DecodeError::Newer(format!(
                "it has version {version} and features {features:#x}, this program reads {VERSION} and none"
            )));
        }
        let [width, order] = reader.array()?;
        reader.zeros::<2>()?;
        if !matches!(width, 1 | 2 | 4 | 8) || order > 1 {
            return damaged(format!("its elements have {width} bytes and order {order}"));
        }
        let chunk_len = reader.u32()?;
        if chunk_len != CHUNK_LEN_BYTES {
            return damaged(format!("its chunks have {chunk_len} bytes"));
        }
        let target_len_bytes = reader.u64()?;
        let base_len_bytes = reader.u64()?;
        let base_xxh3 = reader.u64()?;
        let count = chunk_count(target_len_bytes);
        // No more entries than there are bytes for: only then is there memory to take for them.
        let table_len = count
            .checked_mul(4)
            .and_then(|len| usize::try_from(len).ok());
        let table = reader.take(table_len.unwrap_or(usize::MAX))?;
        let mut chunks = Vec::with_capacity(table.len() / 4);
        for len in table.as_chunks::<4>().0 {
            chunks.push(reader.take(u32::from_le_bytes(*len) as usize)?);
        }
        reader.end()?;
        Ok(Self {
            width: usize::from(width),
            target_len_bytes,
            base_len_bytes,
            base_xxh3,
            chunks,
        })
    }

    /// Length of the target in bytes.
    pub fn target_len_bytes(&self) -> u64 {
        self.target_len_bytes
    }

    /// Length of the base in bytes.
    pub fn base_len_bytes(&self) -> u64 {
        self.base_len_bytes
    }

    /// Checks that the difference was made against that base.
    ///
    /// # Errors
    /// [`WeightError::Corrupt`].
    pub fn check_base(&self, base: &[u8]) -> Result<(), WeightError> {
        match base.len() as u64 == self.base_len_bytes && xxh3_64(base) == self.base_xxh3 {
            true => Ok(()),
            false => Err(corrupt(format!(
                "it was made against another base, of {} bytes",
                self.base_len_bytes
            ))),
        }
    }

    /// Decodes the target's bytes from `offset_bytes` on; of `base` only what they depend on is read, and
    /// only its length is checked.
    ///
    /// # Errors
    /// [`WeightError::Corrupt`], [`WeightError::OutOfRange`].
    pub fn decode_range(
        &self,
        base: &[u8],
        offset_bytes: u64,
        target: &mut [u8],
    ) -> Result<(), WeightError> {
        let len_bytes = target.len() as u64;
        let end = offset_bytes.checked_add(len_bytes);
        if end.is_none_or(|end| end > self.target_len_bytes) {
            return Err(WeightError::OutOfRange {
                name: "difference in memory".into(),
                offset_bytes,
                len_bytes,
                tensor_bytes: self.target_len_bytes,
            });
        }
        if base.len() as u64 != self.base_len_bytes {
            return Err(corrupt(format!(
                "its base has {} bytes, not {}",
                self.base_len_bytes,
                base.len()
            )));
        }
        let (mut at, mut rest) = (offset_bytes, target);
        while !rest.is_empty() {
            let index = (at / CHUNK_LEN_BYTES as u64) as usize;
            let start = (at % CHUNK_LEN_BYTES as u64) as usize;
            let chunk_start = at - start as u64;
            let left = self.target_len_bytes - chunk_start;
            let chunk_len = left.min(CHUNK_LEN_BYTES as u64) as usize;
            let (part, after) = rest.split_at_mut(rest.len().min(chunk_len - start));
            at += part.len() as u64;
            rest = after;
            let base = usize::try_from(chunk_start)
                .map_or(&[][..], |chunk_start| piece(base, chunk_start, chunk_len));
            self.decode_chunk(index, base, start, chunk_len, part)?;
        }
        Ok(())
    }

    fn decode_chunk(
        &self,
        index: usize,
        base: &[u8],
        start: usize,
        chunk_len: usize,
        part: &mut [u8],
    ) -> Result<(), WeightError> {
        let encoded = self.chunks.get(index).copied().unwrap_or_default();
        if encoded.first().copied() != Some(self.width as u8) {
            return Err(corrupt(format!(
                "chunk {index} has elements of another width"
            )));
        }
        with_blocks(|scratch, _| {
            blocks::decode(encoded, chunk_len, Some(base), start, scratch, part)
        })
        .map_err(|error| error.about("difference", &format!("in memory, chunk {index}")))
    }
}

/// `len` bytes of the base from `start` on, as far as it goes.
fn piece(base: &[u8], start: usize, len: usize) -> &[u8] {
    let rest = base.get(start..).unwrap_or_default();
    rest.get(..len).unwrap_or(rest)
}

fn corrupt(reason: String) -> WeightError {
    WeightError::corrupt("difference", "in memory", reason)
}

fn no_memory(len: usize) -> WeightError {
    WeightError::OutOfMemory {
        what: "a difference".into(),
        requested_bytes: len as u64,
    }
}
