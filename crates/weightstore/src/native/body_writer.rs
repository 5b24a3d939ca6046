//! Writing content as the chunks of a body.

use core_view::{BufferMut, DType};

use super::changes::Changes;
use super::core::Core;
use super::session::Session;
use crate::identity::{CHUNK_LEN_BYTES, Leaf, chunk_count};
use crate::record::{Body, BodyId, ChunkEntry, INLINE_LEN_MAX, Place};
use crate::{ChunkEncoding, Codec, WeightError, parallel};

/// Chunks that are encoded at once.
const CHUNKS_AT_ONCE: usize = 16;

/// A chunk as it is to be stored.
#[derive(Debug)]
pub(super) struct EncodedChunk {
    pub(super) codec: ChunkEncoding,
    pub(super) bytes: BufferMut,
}

impl EncodedChunk {
    /// Encodes a chunk, which is stored as it is if that does not shrink it.
    pub(super) fn from_buffer(
        core: &Core,
        codec: Codec,
        dtype: DType,
        raw: BufferMut,
    ) -> Result<Self, WeightError> {
        match ChunkEncoding::encode(codec, dtype, &raw) {
            Some((codec, encoded)) => Ok(Self {
                codec,
                bytes: copied(core, &encoded)?,
            }),
            None => Ok(Self {
                codec: ChunkEncoding::None,
                bytes: raw,
            }),
        }
    }

    fn from_slice(
        core: &Core,
        codec: Codec,
        dtype: DType,
        raw: &[u8],
    ) -> Result<Self, WeightError> {
        let encoded = ChunkEncoding::encode(codec, dtype, raw);
        let (codec, bytes) = match &encoded {
            Some((codec, encoded)) => (*codec, encoded.as_slice()),
            None => (ChunkEncoding::None, raw),
        };
        Ok(Self {
            codec,
            bytes: copied(core, bytes)?,
        })
    }
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
    (dtype, bytes): (DType, &[u8]),
    leaves: &[Leaf],
) -> Result<Body, WeightError> {
    let codec = core.config.codec();
    let batch_bytes = core.batch_bytes();
    let mut writer = BodyWriter::new(bytes.len() as u64);
    let chunks: Vec<(&[u8], &Leaf)> = bytes.chunks(CHUNK_LEN_BYTES).zip(leaves).collect();
    for group in chunks.chunks(CHUNKS_AT_ONCE) {
        let encoded = parallel::map(core.config.threads(), group.to_vec(), |(chunk, leaf)| {
            EncodedChunk::from_slice(core, codec, dtype, chunk).map(|encoded| (encoded, *leaf))
        });
        for result in encoded {
            let (encoded, leaf) = result?;
            if changes.is_full(encoded.bytes.len(), batch_bytes) {
                session.commit(std::mem::take(changes))?;
            }
            writer.push(core, leaf, encoded, changes);
        }
    }
    Ok(writer.finish())
}
