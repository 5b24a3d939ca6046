//! The records of the store itself.

use super::cursor::{Cursor, prelude, prelude_with};
use super::{BodyId, RecordError};
use crate::identity::CHUNK_LEN_BYTES;

/// The record that makes a blob store a weight store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StoreRecord {
    /// Whether objects may have bases, which base links protect.
    pub(crate) has_bases: bool,
}

impl StoreRecord {
    const MAGIC: [u8; 4] = *b"SWST";
    const HAS_BASES: u16 = 1;

    pub(crate) fn encode(self) -> Vec<u8> {
        let features = if self.has_bases { Self::HAS_BASES } else { 0 };
        let mut bytes = prelude_with(Self::MAGIC, features);
        bytes.extend_from_slice(&(CHUNK_LEN_BYTES as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes
    }

    /// Whether it is such a record, of this version or another.
    pub(crate) fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(&Self::MAGIC)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let (mut cursor, features) = Cursor::open_with(bytes, Self::MAGIC, Self::HAS_BASES)?;
        let chunk_len = cursor.u32()?;
        cursor.zeros::<4>()?;
        cursor.end()?;
        if chunk_len as usize != CHUNK_LEN_BYTES {
            return Err(RecordError::Newer(format!(
                "its chunks have {chunk_len} bytes"
            )));
        }
        Ok(Self {
            has_bases: features & Self::HAS_BASES != 0,
        })
    }
}

/// The record of the body numbers that are taken.
pub(crate) struct BodyReservation;

impl BodyReservation {
    const MAGIC: [u8; 4] = *b"SWBR";

    /// No store lives to have so many bodies, and numbers counted from here never come to their end.
    const END: u64 = 1 << 63;

    pub(crate) fn encode(next: BodyId) -> Vec<u8> {
        let mut bytes = prelude(Self::MAGIC);
        bytes.extend_from_slice(&next.0.to_le_bytes());
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<BodyId, RecordError> {
        let mut cursor = Cursor::open(bytes, Self::MAGIC)?;
        let next = BodyId(cursor.u64()?);
        cursor.end()?;
        if next == BodyId(0) {
            return Err(RecordError::damaged("body number 0 is not free"));
        }
        if next.0 >= Self::END {
            return Err(RecordError::damaged("no body numbers are left"));
        }
        Ok(next)
    }
}

/// The value under a hint's key: a prelude and nothing else.
pub(crate) const HINT_RECORD: [u8; 8] = *b"SWHN\x01\0\0\0";

/// The value under a base link's key: a prelude and nothing else.
pub(crate) const BASE_LINK_RECORD: [u8; 8] = *b"SWBL\x01\0\0\0";
