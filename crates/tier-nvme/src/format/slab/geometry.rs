//! The superblock of a slab, the header of its segments, and where things are in one.

use super::super::bytes::{Fields, open_page, seal_page};
use super::super::{FormatError, PAGE_BYTES, SEGMENT_BYTES_MAX, StoreId, VERSION};
use crate::{FileName, NvmeError};

const SUPERBLOCK_MAGIC: &[u8; 8] = b"STEPSLAB";
const SEGMENT_MAGIC: &[u8; 8] = b"STEPSLSG";
const NAME_PREFIX: &str = "BLOCKS-";

/// Smallest log of a segment in bytes.
pub(crate) const LOG_BYTES_MIN: u64 = 8 * PAGE_BYTES as u64;
/// Largest log of a segment in bytes.
pub(crate) const LOG_BYTES_MAX: u64 = 1 << 20;

/// Sizes that are fixed when a slab is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotGeometry {
    /// Longest payload in bytes.
    pub(crate) block_bytes: u64,
    /// Size of a segment's file in bytes.
    pub(crate) segment_bytes: u64,
    /// Size of the log in each segment in bytes.
    pub(crate) log_bytes: u64,
}

impl SlotGeometry {
    /// Checks that the numbers can be; the reason if not.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let page = PAGE_BYTES as u64;
        if !(1..=1 << 30).contains(&self.block_bytes) {
            return Err("the block size is not 1 byte to 1 GiB");
        }
        if !(LOG_BYTES_MIN..=LOG_BYTES_MAX).contains(&self.log_bytes)
            || !self.log_bytes.is_multiple_of(page)
        {
            return Err("the size of the log is not whole pages from 32 KiB to 1 MiB");
        }
        if self.segment_bytes > SEGMENT_BYTES_MAX || !self.segment_bytes.is_multiple_of(page) {
            return Err("the segment size is not whole pages up to 1 TiB");
        }
        if self.slots() == 0 || self.slots() > 1 << 24 {
            return Err("a segment does not hold 1 to 2^24 blocks");
        }
        Ok(())
    }

    /// Bytes from one slot to the next.
    pub(crate) fn slot_bytes(&self) -> u64 {
        self.block_bytes.next_multiple_of(PAGE_BYTES as u64)
    }

    /// Where the log begins in a segment.
    pub(crate) fn log_offset_bytes(&self) -> u64 {
        PAGE_BYTES as u64
    }

    /// Where the slots begin in a segment.
    fn slots_offset_bytes(&self) -> u64 {
        PAGE_BYTES as u64 + self.log_bytes
    }

    /// Slots of a segment.
    pub(crate) fn slots(&self) -> u64 {
        self.segment_bytes.saturating_sub(self.slots_offset_bytes()) / self.slot_bytes()
    }

    /// Where a slot begins in its segment.
    pub(crate) fn slot_offset_bytes(&self, slot: u32) -> u64 {
        self.slots_offset_bytes() + u64::from(slot) * self.slot_bytes()
    }

    fn encode(&self, fields: &mut Vec<u8>) {
        for size in [self.block_bytes, self.segment_bytes, self.log_bytes] {
            fields.extend_from_slice(&size.to_le_bytes());
        }
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Self, FormatError> {
        let geometry = Self {
            block_bytes: fields.u64()?,
            segment_bytes: fields.u64()?,
            log_bytes: fields.u64()?,
        };
        geometry.check().map_err(FormatError::Damaged)?;
        Ok(geometry)
    }

    /// Page 0 of a segment.
    pub(crate) fn segment_header(&self, store_id: StoreId, segment_id: u32) -> Vec<u8> {
        let mut fields = SEGMENT_MAGIC.to_vec();
        fields.extend_from_slice(&VERSION.to_le_bytes());
        fields.extend_from_slice(&segment_id.to_le_bytes());
        fields.extend_from_slice(&store_id.0);
        self.encode(&mut fields);
        seal_page(fields)
    }

    /// Checks page 0 of a segment.
    pub(crate) fn check_segment_header(
        &self,
        store_id: StoreId,
        segment_id: u32,
        page: &[u8],
    ) -> Result<(), FormatError> {
        let mut fields = Fields::new(open_page(page)?);
        fields.magic(SEGMENT_MAGIC)?;
        fields.version()?;
        let found_id = fields.u32()?;
        let found_store = StoreId(fields.array()?);
        if found_store != store_id {
            return Err(FormatError::Damaged("it belongs to another slab"));
        }
        if found_id != segment_id || Self::decode(&mut fields)? != *self {
            return Err(FormatError::Damaged("it is the header of another segment"));
        }
        Ok(())
    }
}

/// What a slab is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlabSuperblock {
    pub(crate) store_id: StoreId,
    pub(crate) geometry: SlotGeometry,
    pub(crate) incompatible: u64,
    pub(crate) compatible: u64,
}

impl SlabSuperblock {
    /// One copy, a page.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut fields = SUPERBLOCK_MAGIC.to_vec();
        fields.extend_from_slice(&VERSION.to_le_bytes());
        fields.extend_from_slice(&(PAGE_BYTES as u32).to_le_bytes());
        fields.extend_from_slice(&self.incompatible.to_le_bytes());
        fields.extend_from_slice(&self.compatible.to_le_bytes());
        fields.extend_from_slice(&self.store_id.0);
        self.geometry.encode(&mut fields);
        seal_page(fields)
    }

    pub(crate) fn decode(page: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(open_page(page)?);
        fields.magic(SUPERBLOCK_MAGIC)?;
        fields.version()?;
        if fields.u32()? != PAGE_BYTES as u32 {
            return Err(FormatError::Damaged("the page size is not 4096"));
        }
        let (incompatible, compatible) = (fields.u64()?, fields.u64()?);
        Ok(Self {
            store_id: StoreId(fields.array()?),
            geometry: SlotGeometry::decode(&mut fields)?,
            incompatible,
            compatible,
        })
    }
}

/// The name of a segment's file.
///
/// # Errors
/// Never for these names; the type of file names says that it could.
pub(crate) fn blocks_name(segment_id: u32) -> Result<FileName, NvmeError> {
    FileName::new(format!("{NAME_PREFIX}{segment_id:08x}"))
}

/// The id in the name of a segment's file.
pub(crate) fn blocks_segment_id(name: &FileName) -> Option<u32> {
    let digits = name.as_str().strip_prefix(NAME_PREFIX)?;
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != 8 || !digits.bytes().all(lower_hex) {
        return None;
    }
    u32::from_str_radix(digits, 16).ok()
}
