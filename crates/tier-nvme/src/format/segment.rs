//! The header and the name of a segment.

use super::bytes::{Fields, open_page, seal_page};
use super::{COUNT_MAX, FormatError, StoreId, VERSION};
use crate::{FileName, NvmeError};

const MAGIC: &[u8; 8] = b"STEPSEGM";
pub(crate) const SEGMENT_NAME_PREFIX: &str = "SEGMENT-";

/// Page 0 of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) store_id: StoreId,
    pub(crate) segment_id: u64,
    pub(crate) segment_bytes: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut fields = MAGIC.to_vec();
        fields.extend_from_slice(&VERSION.to_le_bytes());
        fields.extend_from_slice(&[0; 4]);
        fields.extend_from_slice(&self.store_id.0);
        fields.extend_from_slice(&self.segment_id.to_le_bytes());
        fields.extend_from_slice(&self.segment_bytes.to_le_bytes());
        seal_page(fields)
    }

    pub(crate) fn decode(page: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(open_page(page)?);
        fields.magic(MAGIC)?;
        fields.version()?;
        fields.take(4)?;
        let store_id = StoreId(fields.array()?);
        Ok(Self {
            store_id,
            segment_id: fields.u64()?,
            segment_bytes: fields.u64()?,
        })
    }
}

/// The name of a segment's file.
///
/// # Errors
/// [`NvmeError::Invalid`] beyond the highest id.
pub(crate) fn segment_name(segment_id: u64) -> Result<FileName, NvmeError> {
    if segment_id > COUNT_MAX {
        let reason =
            format!("{segment_id} is more than {COUNT_MAX}; copy the values to a new store");
        return Err(NvmeError::Invalid {
            field: "segment id",
            reason,
        });
    }
    FileName::new(format!("{SEGMENT_NAME_PREFIX}{segment_id:016x}"))
}

/// The id in the name of a segment's file.
pub(crate) fn segment_id(name: &FileName) -> Option<u64> {
    let digits = name.as_str().strip_prefix(SEGMENT_NAME_PREFIX)?;
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != 16 || !digits.bytes().all(lower_hex) {
        return None;
    }
    let id = u64::from_str_radix(digits, 16).ok()?;
    (id <= COUNT_MAX).then_some(id)
}
