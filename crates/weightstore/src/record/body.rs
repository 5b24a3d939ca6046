//! The body of objects and deltas: how content lies in chunks.

use super::cursor::Cursor;
use super::{BodyId, RecordError};
use crate::ChunkEncoding;
use crate::identity::{CHUNK_LEN_BYTES, Leaf, chunk_count};

/// The most encoded bytes that stand in the header itself, which then shares a page with others.
pub(crate) const INLINE_LEN_MAX: usize = 3584;

const ENTRY_LEN: usize = 40;

/// One chunk of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkEntry {
    pub(crate) leaf: Leaf,
    pub(crate) encoded_len: u32,
    pub(crate) codec: ChunkEncoding,
}

/// Where the encoded bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the header.
    Inline(Vec<u8>),
    /// In chunk records.
    Chunks(BodyId),
}

/// Content as its header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body {
    /// Length in bytes before encoding.
    pub(crate) len_bytes: u64,
    pub(crate) place: Place,
    /// One for each chunk of the content.
    pub(crate) chunks: Vec<ChunkEntry>,
}

impl Body {
    pub(crate) fn leaves(&self) -> Vec<Leaf> {
        self.chunks.iter().map(|chunk| chunk.leaf).collect()
    }

    /// Length of a chunk before encoding, in bytes.
    pub(crate) fn chunk_len(&self, index: usize) -> usize {
        let start = (index as u64).saturating_mul(CHUNK_LEN_BYTES as u64);
        let left = self.len_bytes.saturating_sub(start);
        left.min(CHUNK_LEN_BYTES as u64) as usize
    }

    /// Whether a chunk has that encoding.
    pub(crate) fn has(&self, codec: ChunkEncoding) -> bool {
        self.chunks.iter().any(|chunk| chunk.codec == codec)
    }

    /// Bytes of all chunks after encoding.
    pub(crate) fn encoded_bytes(&self) -> u64 {
        self.chunks
            .iter()
            .map(|chunk| u64::from(chunk.encoded_len))
            .sum()
    }

    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.reserve(24 + self.chunks.len() * ENTRY_LEN + INLINE_LEN_MAX);
        bytes.extend_from_slice(&self.len_bytes.to_le_bytes());
        let (body, inline): (BodyId, &[u8]) = match &self.place {
            Place::Inline(encoded) => (BodyId(0), encoded),
            Place::Chunks(body) => (*body, &[]),
        };
        bytes.extend_from_slice(&body.0.to_le_bytes());
        bytes.extend_from_slice(&(self.chunks.len() as u32).to_le_bytes());
        bytes.push(u8::from(matches!(self.place, Place::Chunks(_))));
        bytes.extend_from_slice(&[0; 3]);
        for chunk in &self.chunks {
            bytes.extend_from_slice(&chunk.leaf);
            bytes.extend_from_slice(&chunk.encoded_len.to_le_bytes());
            bytes.push(chunk.codec.id());
            bytes.extend_from_slice(&[0; 3]);
        }
        bytes.extend_from_slice(inline);
    }

    /// Reads a body that takes all that is left.
    pub(super) fn parse(mut cursor: Cursor<'_>) -> Result<Self, RecordError> {
        let len_bytes = cursor.u64()?;
        let number = BodyId(cursor.u64()?);
        let count = cursor.u32()?;
        let in_chunks = match cursor.u8()? {
            0 => false,
            1 => true,
            place => return Err(RecordError::Newer(format!("it has the place {place}"))),
        };
        cursor.zeros::<3>()?;
        let needed = u64::from(count) * ENTRY_LEN as u64;
        if chunk_count(len_bytes) != u64::from(count) || needed > cursor.rest().len() as u64 {
            return Err(RecordError::Damaged(format!(
                "{len_bytes} bytes of content do not go with {count} chunks in {} bytes",
                cursor.rest().len()
            )));
        }
        let mut body = Self {
            len_bytes,
            place: Place::Chunks(number),
            chunks: Vec::with_capacity(count as usize),
        };
        for index in 0..count as usize {
            let chunk_len = body.chunk_len(index);
            body.chunks.push(parse_entry(&mut cursor, chunk_len)?);
        }
        if in_chunks {
            if number == BodyId(0) || count == 0 {
                return Err(RecordError::damaged("chunks without a body number"));
            }
            cursor.end()?;
        } else {
            let inline = cursor.take(cursor.rest().len())?;
            let fits = count <= 1 && inline.len() <= INLINE_LEN_MAX;
            if number != BodyId(0) || !fits || inline.len() as u64 != body.encoded_bytes() {
                return Err(RecordError::damaged(
                    "the inline bytes do not fit their header",
                ));
            }
            body.place = Place::Inline(inline.to_vec());
        }
        Ok(body)
    }
}

fn parse_entry(cursor: &mut Cursor<'_>, chunk_len: usize) -> Result<ChunkEntry, RecordError> {
    let leaf = cursor.array()?;
    let encoded_len = cursor.u32()?;
    let id = cursor.u8()?;
    cursor.zeros::<3>()?;
    let Some(codec) = ChunkEncoding::from_id(id) else {
        return Err(RecordError::Newer(format!("it has the codec {id}")));
    };
    let stored = encoded_len as usize;
    let plausible = match codec {
        ChunkEncoding::None => stored == chunk_len,
        _ => stored < chunk_len,
    };
    if !plausible {
        return Err(RecordError::Damaged(format!(
            "a chunk of {chunk_len} bytes has {stored} stored under codec {id}"
        )));
    }
    Ok(ChunkEntry {
        leaf,
        encoded_len,
        codec,
    })
}
