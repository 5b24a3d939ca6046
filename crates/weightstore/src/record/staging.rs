//! The records of transfers.

use super::cursor::{Cursor, prelude};
use super::{BodyId, RecordError};

/// A tensor of which chunks are staged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StagingRecord {
    /// The body that the chunks are stored under.
    pub(crate) body: BodyId,
    /// Which encoding of the tensor they are of.
    pub(crate) tag: [u8; 32],
    pub(crate) chunks: u32,
}

impl StagingRecord {
    const MAGIC: [u8; 4] = *b"SWTS";

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = prelude(Self::MAGIC);
        bytes.extend_from_slice(&self.body.0.to_le_bytes());
        bytes.extend_from_slice(&self.tag);
        bytes.extend_from_slice(&self.chunks.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut cursor = Cursor::open(bytes, Self::MAGIC)?;
        let record = Self {
            body: BodyId(cursor.u64()?),
            tag: cursor.array()?,
            chunks: cursor.u32()?,
        };
        cursor.zeros::<4>()?;
        cursor.end()?;
        match record.body {
            BodyId(0) => Err(RecordError::damaged("it has no body number")),
            _ => Ok(record),
        }
    }
}

/// The state of a transfer.
pub(crate) struct JournalRecord;

impl JournalRecord {
    const MAGIC: [u8; 4] = *b"SWTJ";

    pub(crate) fn encode(state: &[u8]) -> Vec<u8> {
        let mut bytes = prelude(Self::MAGIC);
        bytes.extend_from_slice(state);
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<u8>, RecordError> {
        let cursor = Cursor::open(bytes, Self::MAGIC)?;
        Ok(cursor.rest().to_vec())
    }
}
