//! One change of a slab: a block stored, or a block removed.

use core_view::contract::{BLOCK_META_BYTES_MAX, BlockKey};

use super::super::FormatError;
use super::super::bytes::Fields;

const KIND_PUT: u8 = 1;
const KIND_REMOVE: u8 = 2;
const FIXED_BYTES: usize = 40;

/// Most bytes of an encoded change.
pub(crate) const EDIT_BYTES_MAX: usize = FIXED_BYTES + BLOCK_META_BYTES_MAX;

/// Where a block is, and how to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockPlace {
    pub(crate) segment_id: u32,
    pub(crate) slot: u32,
    pub(crate) payload_bytes: u32,
    /// CRC-32C of the payload.
    pub(crate) checksum: u32,
    pub(crate) meta: Box<[u8]>,
}

/// A change of the table of blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BlockEdit {
    /// The block is here now.
    Put(BlockKey, BlockPlace),
    /// The block is gone.
    Remove(BlockKey),
}

impl BlockEdit {
    /// The block that changes.
    pub(crate) fn key(&self) -> BlockKey {
        match self {
            Self::Put(key, _) | Self::Remove(key) => *key,
        }
    }

    /// Length in bytes of a stored block's encoding.
    pub(crate) fn put_bytes(meta_bytes: usize) -> usize {
        FIXED_BYTES + meta_bytes.next_multiple_of(8)
    }

    /// Length in bytes of the encoding.
    pub(crate) fn encoded_bytes(&self) -> usize {
        match self {
            Self::Put(_, place) => Self::put_bytes(place.meta.len()),
            Self::Remove(_) => FIXED_BYTES,
        }
    }

    pub(crate) fn encode(&self, target: &mut Vec<u8>) {
        match self {
            Self::Put(key, place) => encode_put(*key, place, target),
            Self::Remove(key) => {
                target.push(KIND_REMOVE);
                target.extend_from_slice(&[0; 23]);
                target.extend_from_slice(&key.0.to_le_bytes());
            }
        }
    }

    /// Takes a change off the front of `source`.
    pub(crate) fn decode(source: &mut &[u8]) -> Result<Self, FormatError> {
        let fixed = source
            .get(..FIXED_BYTES)
            .ok_or(FormatError::Damaged("it ends inside an entry"))?;
        let mut fields = Fields::new(fixed);
        let kind = fields.u8()?;
        let meta_bytes = usize::from(fields.u8()?);
        fields.take(2)?;
        let checksum = fields.u32()?;
        let payload_bytes = fields.u32()?;
        let slot = fields.u32()?;
        let segment_id = fields.u32()?;
        fields.take(4)?;
        let key = BlockKey(u128::from_le_bytes(fields.array()?));
        if meta_bytes > BLOCK_META_BYTES_MAX {
            return Err(FormatError::Damaged("an entry's metadata is too long"));
        }
        let end = FIXED_BYTES + meta_bytes.next_multiple_of(8);
        let meta = source
            .get(FIXED_BYTES..FIXED_BYTES + meta_bytes)
            .ok_or(FormatError::Damaged("it ends inside an entry"))?;
        *source = source
            .get(end..)
            .ok_or(FormatError::Damaged("it ends inside an entry"))?;
        match kind {
            KIND_PUT => Ok(Self::Put(
                key,
                BlockPlace {
                    segment_id,
                    slot,
                    payload_bytes,
                    checksum,
                    meta: meta.into(),
                },
            )),
            KIND_REMOVE if meta_bytes == 0 => Ok(Self::Remove(key)),
            _ => Err(FormatError::Damaged("an entry is of an unknown kind")),
        }
    }
}

/// Encodes a stored block.
pub(super) fn encode_put(key: BlockKey, place: &BlockPlace, target: &mut Vec<u8>) {
    target.push(KIND_PUT);
    target.push(place.meta.len() as u8);
    target.extend_from_slice(&[0; 2]);
    target.extend_from_slice(&place.checksum.to_le_bytes());
    target.extend_from_slice(&place.payload_bytes.to_le_bytes());
    target.extend_from_slice(&place.slot.to_le_bytes());
    target.extend_from_slice(&place.segment_id.to_le_bytes());
    target.extend_from_slice(&[0; 4]);
    target.extend_from_slice(&key.0.to_le_bytes());
    target.extend_from_slice(&place.meta);
    let padding = place.meta.len().next_multiple_of(8) - place.meta.len();
    target.extend(std::iter::repeat_n(0, padding));
}
