//! Writing content as the chunks of a body.

use std::sync::Arc;

use core_view::{BufferMut, DType};
use tier_nvme::CheckedValue;

use super::changes::Changes;
use super::core::Core;
use super::session::Session;
use super::tensor::Tensor;
use crate::identity::{CHUNK_LEN_BYTES, Leaf, chunk_count};
use crate::record::{Body, BodyId, ChunkEntry, INLINE_LEN_MAX, Place};
use crate::{ChunkEncoding, Codec, WeightError, parallel};

/// Chunks that are encoded at once.
const CHUNKS_AT_ONCE: usize = 16;

/// A chunk as it is to be stored.
#[derive(Debug)]
pub(super) struct EncodedChunk {
    pub(super) codec: ChunkEncoding,
    /// Checked by the thread that made them, which has them at hand.
    pub(super) bytes: CheckedValue,
}

/// How a chunk is encoded.
#[derive(Debug, Clone)]
pub(super) struct Encoding {
    pub(super) codec: Codec,
    pub(super) dtype: DType,
    /// What its tensor may be stored against, and the chunk's place in it.
    pub(super) base: Option<(Arc<Tensor>, usize)>,
}

impl EncodedChunk {
    /// Encodes a chunk, which is stored as it is if that does not shrink it.
    pub(super) fn from_buffer(
        core: &Core,
        encoding: &Encoding,
        raw: BufferMut,
    ) -> Result<Self, WeightError> {
        Ok(encode(core, encoding, &raw)?.unwrap_or_else(|| Self::raw(raw)))
    }

    /// A chunk that is stored as it is.
    pub(super) fn raw(bytes: BufferMut) -> Self {
        Self {
            codec: ChunkEncoding::None,
            bytes: CheckedValue::new(bytes),
        }
    }

    pub(super) fn from_slice(
        core: &Core,
        encoding: &Encoding,
        raw: &[u8],
    ) -> Result<Self, WeightError> {
        match encode(core, encoding, raw)? {
            Some(encoded) => Ok(encoded),
            None => copied(core, raw).map(Self::raw),
        }
    }
}

/// The smaller of what the codec makes of a chunk and its difference from the base; `None` for a chunk that neither
/// makes smaller.
pub(super) fn encode(
    core: &Core,
    encoding: &Encoding,
    raw: &[u8],
) -> Result<Option<EncodedChunk>, WeightError> {
    let limit_bytes = ChunkEncoding::limit_bytes(raw.len());
    let alone =
        |room: &mut [u8]| ChunkEncoding::encode_into(encoding.codec, encoding.dtype, raw, room);
    let Some((base, alike_bytes)) = base_of(core, encoding)? else {
        return written(core, limit_bytes, alone);
    };
    let mut lacking = None;
    let smaller = written(core, limit_bytes, |room| {
        let subtracted = ChunkEncoding::difference_into(encoding.dtype, raw, &base, room);
        let Some(len) = subtracted else {
            return alone(room);
        };
        // Beside it: one behind the other would leave a hole where the larger one was.
        let mut scratch = None;
        let other = difference_or(len, raw.len(), alike_bytes, || {
            let beside = core.buffers.take(limit_bytes);
            let beside = scratch.insert(beside.map_err(|error| lacking = Some(error)).ok()?);
            alone(beside)
        });
        match other {
            Choice::Difference => Some((ChunkEncoding::Difference, len)),
            Choice::Alone(encoded) => {
                let ((codec, len), scratch) = (encoded?, scratch?);
                room.get_mut(..len)?.copy_from_slice(scratch.get(..len)?);
                Some((codec, len))
            }
        }
    });
    lacking.map_or(smaller, Err)
}

/// The chunk of the base, and about what a chunk that is like it takes alone.
fn base_of(
    core: &Core,
    encoding: &Encoding,
) -> Result<Option<(BufferMut, Option<usize>)>, WeightError> {
    let Some((base, index)) = &encoding.base else {
        return Ok(None);
    };
    let Some(entry) = base.record.body.chunks.get(*index) else {
        return Ok(None);
    };
    match core.chunk(base.source(), *index) {
        Ok(chunk) => Ok(Some((chunk, takes_alone(encoding, entry)))),
        // Nothing is built on what is damaged; verify reports it.
        Err(WeightError::Corrupt { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What was written, and its length in bytes.
type Written = (ChunkEncoding, usize);

/// Has an encoding written where it stays.
fn written(
    core: &Core,
    limit_bytes: usize,
    write: impl FnOnce(&mut [u8]) -> Option<Written>,
) -> Result<Option<EncodedChunk>, WeightError> {
    let encoded = core.rooms.fill(&core.buffers, limit_bytes, write)?;
    Ok(encoded.map(|(codec, bytes)| EncodedChunk { codec, bytes }))
}

/// Which of two encodings is kept.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Difference,
    /// What the codec makes of the chunk; `None` for a chunk that it does not make smaller.
    Alone(Option<Written>),
}

/// The difference of so many bytes, if it saves an eighth of what the chunk takes alone. Where its size leaves no doubt of that, the chunk is not
/// encoded alone: below an eighth of the chunk, and below three quarters of what is alike takes alone.
fn difference_or(
    bytes: usize,
    raw_bytes: usize,
    alike_bytes: Option<usize>,
    alone: impl FnOnce() -> Option<Written>,
) -> Choice {
    let is_small = bytes <= raw_bytes / 8;
    if is_small || alike_bytes.is_some_and(|alike| 4 * bytes <= 3 * alike) {
        return Choice::Difference;
    }
    let alone = alone();
    let alone_bytes = alone.map_or(raw_bytes, |(_, len)| len);
    match bytes > alone_bytes - alone_bytes / 8 {
        true => Choice::Alone(alone),
        false => Choice::Difference,
    }
}

/// About what a chunk takes without a base, where the base's chunk tells: what is like it takes what it takes itself, if
/// that was coded as the chunk would be.
fn takes_alone(encoding: &Encoding, base: &ChunkEntry) -> Option<usize> {
    let is_told = encoding.codec == Codec::Auto && base.codec == ChunkEncoding::Planes;
    is_told.then_some(base.encoded_len as usize)
}

fn copied(core: &Core, bytes: &[u8]) -> Result<BufferMut, WeightError> {
    let mut buffer = core.buffers.take(bytes.len())?;
    buffer.copy_from_slice(bytes);
    Ok(buffer)
}

/// A body whose chunks arrive in order.
#[derive(Debug)]
pub(super) struct BodyWriter {
    len_bytes: u64,
    number: Option<BodyId>,
    inline: Vec<u8>,
    chunks: Vec<ChunkEntry>,
}

impl BodyWriter {
    pub(super) fn new(len_bytes: u64) -> Self {
        Self {
            len_bytes,
            number: None,
            inline: Vec::new(),
            chunks: Vec::new(),
        }
    }

    /// Takes the next chunk; its bytes go into the changes unless they are few enough for the header.
    pub(super) fn push(
        &mut self,
        core: &Core,
        leaf: Leaf,
        encoded: EncodedChunk,
        changes: &mut Changes,
    ) {
        let index = self.chunks.len() as u32;
        self.chunks.push(ChunkEntry {
            leaf,
            encoded_len: encoded.bytes.len() as u32,
            codec: encoded.codec,
        });
        if chunk_count(self.len_bytes) == 1 && encoded.bytes.len() <= INLINE_LEN_MAX {
            self.inline = encoded.bytes.to_vec();
        } else {
            let number = *self.number.get_or_insert_with(|| core.new_body());
            changes.add_chunk(number, index, encoded.bytes);
        }
    }

    /// How many chunks were taken.
    pub(super) fn count(&self) -> usize {
        self.chunks.len()
    }

    /// Whether a chunk that was taken needs the base.
    pub(super) fn needs_base(&self) -> bool {
        let mut chunks = self.chunks.iter();
        chunks.any(|chunk| chunk.codec == ChunkEncoding::Difference)
    }

    /// The number of the body and how many chunks it has so far, if they stand alone.
    pub(super) fn started(&self) -> Option<(BodyId, u32)> {
        self.number.map(|number| (number, self.chunks.len() as u32))
    }

    pub(super) fn finish(self) -> Body {
        Body {
            len_bytes: self.len_bytes,
            place: match self.number {
                Some(number) => Place::Chunks(number),
                None => Place::Inline(self.inline),
            },
            chunks: self.chunks,
        }
    }
}

/// Writes the elements of a tensor in memory as a body; full changes are committed on the way.
pub(super) fn write_body(
    core: &Core,
    session: &Session<'_>,
    changes: &mut Changes,
    (dtype, bytes, base): (DType, &[u8], Option<&Arc<Tensor>>),
    leaves: &[Leaf],
) -> Result<Body, WeightError> {
    let codec = core.config.codec();
    let batch_bytes = core.batch_bytes();
    let mut writer = BodyWriter::new(bytes.len() as u64);
    let chunks = bytes.chunks(CHUNK_LEN_BYTES).zip(leaves).enumerate();
    let chunks: Vec<(usize, (&[u8], &Leaf))> = chunks.collect();
    let mut base = base;
    for group in chunks.chunks(CHUNKS_AT_ONCE) {
        let threads = core.config.threads();
        let encoded = parallel::map(threads, group.to_vec(), |(index, (chunk, leaf))| {
            let encoding = Encoding {
                codec,
                dtype,
                base: base.map(|base| (Arc::clone(base), index)),
            };
            EncodedChunk::from_slice(core, &encoding, chunk).map(|encoded| (encoded, *leaf))
        });
        for result in encoded {
            let (encoded, leaf) = result?;
            if changes.is_full(encoded.bytes.len(), batch_bytes) {
                session.commit(std::mem::take(changes))?;
            }
            writer.push(core, leaf, encoded, changes);
        }
        // What does not begin like its base is not compared with it to the end.
        base = base.filter(|_| writer.needs_base());
    }
    Ok(writer.finish())
}

#[cfg(test)]
mod tests {
    use tier_nvme::sim::SimVolume;

    use super::*;
    use crate::{NativeConfig, NativeStore, WeightStore, WeightTensor};

    /// What is stored of a chunk of 800 bytes that takes so many alone, and whether it was encoded alone to know.
    fn chosen(difference: usize, alike: Option<usize>, alone: usize) -> (ChunkEncoding, bool) {
        let mut tried = false;
        let chosen = difference_or(difference, 800, alike, || {
            tried = true;
            (alone < 800).then_some((ChunkEncoding::Planes, alone))
        });
        let codec = match chosen {
            Choice::Difference => ChunkEncoding::Difference,
            Choice::Alone(encoded) => encoded.map_or(ChunkEncoding::None, |(codec, _)| codec),
        };
        (codec, tried)
    }

    #[test]
    fn a_chunk_is_not_encoded_twice_where_sizes_leave_no_doubt() {
        use ChunkEncoding::{Difference, None as Raw, Planes};

        // An eighth of the chunk, whatever the base takes.
        assert_eq!(chosen(100, None, 1), (Difference, false));
        assert_eq!(chosen(100, Some(1), 1), (Difference, false));
        assert_eq!(chosen(101, None, 1), (Planes, true));
        // Three quarters of what the base takes.
        assert_eq!(chosen(300, Some(400), 1), (Difference, false));
        assert_eq!(chosen(301, Some(400), 1), (Planes, true));
        // In doubt it has to save an eighth of what the chunk takes alone.
        assert_eq!(chosen(350, Some(400), 400), (Difference, true));
        assert_eq!(chosen(351, Some(400), 400), (Planes, true));
        assert_eq!(chosen(700, None, 800), (Difference, true));
        assert_eq!(chosen(701, None, 800), (Raw, true));
    }

    #[test]
    #[cfg(feature = "gzip")]
    fn what_is_tried_and_not_kept_leaves_no_hole() {
        let volume = SimVolume::new(1).handle();
        let store = NativeStore::on_volume(volume, NativeConfig::default()).unwrap();
        let mut state = 1_u64;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        };
        let base: Vec<u8> = (0..CHUNK_LEN_BYTES).map(|_| random() & 0x3f).collect();
        // Two bits of each byte are others: worth trying the codec alone, and smaller.
        let raw: Vec<u8> = base.iter().map(|byte| byte + (random() & 3)).collect();
        let shape = [CHUNK_LEN_BYTES as u64];
        let tensor = WeightTensor::new("base", DType::U8, &shape, base).unwrap();
        let hash = tensor.compute_hash();
        store.store(&tensor, None).unwrap();
        let encoding = Encoding {
            codec: Codec::Gzip { level: 4 },
            dtype: DType::U8,
            base: Some((Arc::new(store.core.tensor(&hash).unwrap().unwrap()), 0)),
        };
        let kept: Vec<_> = std::iter::repeat_with(|| encode(&store.core, &encoding, &raw))
            .take(60)
            .map(|encoded| encoded.unwrap().unwrap())
            .collect();
        assert!(
            kept.iter()
                .all(|chunk| chunk.codec == ChunkEncoding::Difference)
        );
        let bytes: usize = kept.iter().map(|chunk| chunk.bytes.len()).sum();
        let pages = store.pages();
        let blocks = (pages.transparent_count + pages.base_count) as usize;
        assert!(bytes > 60 * CHUNK_LEN_BYTES / 8, "{bytes}");
        assert!(
            blocks << 22 < bytes * 3 / 2 + (8 << 20),
            "{blocks} blocks for {bytes} bytes"
        );
    }
}
