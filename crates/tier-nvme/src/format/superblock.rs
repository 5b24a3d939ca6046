//! What a store is.

use super::bytes::{Fields, open_page, seal_page};
use super::{FormatError, PAGE_BYTES, StoreId, VERSION};

const MAGIC: &[u8; 8] = b"STEPNVME";

/// Smallest segment in bytes.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// Largest segment in bytes.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 40;

/// Incompatible feature bit: batches may hold values that compaction moved.
pub(crate) const FEATURE_MOVES: u64 = 1;

/// Incompatible feature bits that are understood.
const INCOMPATIBLE_KNOWN: u64 = FEATURE_MOVES;
/// Compatible feature bits that are understood: none yet.
const COMPATIBLE_KNOWN: u64 = 0;

/// The first structure read; written again only when the store begins to use another feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) store_id: StoreId,
    pub(crate) segment_bytes: u64,
    pub(crate) incompatible: u64,
    pub(crate) compatible: u64,
}

impl Superblock {
    pub(crate) fn new(store_id: StoreId, segment_bytes: u64) -> Self {
        Self {
            store_id,
            segment_bytes,
            incompatible: FEATURE_MOVES,
            compatible: 0,
        }
    }

    /// One copy, a page.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut fields = MAGIC.to_vec();
        fields.extend_from_slice(&VERSION.to_le_bytes());
        fields.extend_from_slice(&(PAGE_BYTES as u32).to_le_bytes());
        fields.extend_from_slice(&self.incompatible.to_le_bytes());
        fields.extend_from_slice(&self.compatible.to_le_bytes());
        fields.extend_from_slice(&self.store_id.0);
        fields.extend_from_slice(&self.segment_bytes.to_le_bytes());
        seal_page(fields)
    }

    pub(crate) fn decode(page: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(open_page(page)?);
        fields.magic(MAGIC)?;
        fields.version()?;
        if fields.u32()? != PAGE_BYTES as u32 {
            return Err(FormatError::Damaged("the page size is not 4096"));
        }
        let incompatible = fields.u64()?;
        let compatible = fields.u64()?;
        let store_id = StoreId(fields.array()?);
        let segment_bytes = fields.u64()?;
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes)
            || !segment_bytes.is_multiple_of(PAGE_BYTES as u64)
        {
            return Err(FormatError::Damaged("the segment size is out of range"));
        }
        Ok(Self {
            store_id,
            segment_bytes,
            incompatible,
            compatible,
        })
    }

    /// Feature bits that forbid opening at all.
    pub(crate) fn unknown_incompatible(&self) -> u64 {
        self.incompatible & !INCOMPATIBLE_KNOWN
    }

    /// Feature bits that forbid writing.
    pub(crate) fn unknown_compatible(&self) -> u64 {
        self.compatible & !COMPATIBLE_KNOWN
    }
}
