//! A record of a slab's log: changes that happen together.

use super::super::bytes::Fields;
use super::super::{FormatError, PAGE_BYTES, StoreId, crc32c_of};
use super::entry::BlockEdit;

const MAGIC: &[u8; 8] = b"STEPSLRC";
const HEADER_BYTES: usize = 72;
const CHECKSUM_AT: usize = 68;

/// Where a record is; it is no record elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogPlace {
    pub(crate) store_id: StoreId,
    pub(crate) segment_id: u32,
    /// From the start of the segment's log.
    pub(crate) offset_bytes: u32,
}

/// Changes that happen together, or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) place: LogPlace,
    /// Generation of the table that the log follows.
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    /// Newest sequence known to be synced when this one was written.
    pub(crate) synced_sequence: u64,
    pub(crate) previous_checksum: u32,
    /// Set by [`Record::encode`] and [`Record::decode`].
    pub(crate) checksum: u32,
    pub(crate) record_bytes: u32,
    pub(crate) edits: Vec<BlockEdit>,
}

impl Record {
    /// Bytes of a record whose changes have so many together.
    pub(crate) fn bytes_for(edits_bytes: usize) -> usize {
        (HEADER_BYTES + edits_bytes).next_multiple_of(PAGE_BYTES)
    }

    /// Whole pages, with the checksum that the next record names.
    pub(crate) fn encode(&self) -> (Vec<u8>, u32) {
        let edits_bytes: usize = self.edits.iter().map(BlockEdit::encoded_bytes).sum();
        let record_bytes = Self::bytes_for(edits_bytes);
        let mut bytes = Vec::with_capacity(record_bytes);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.place.store_id.0);
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.synced_sequence.to_le_bytes());
        bytes.extend_from_slice(&self.place.segment_id.to_le_bytes());
        bytes.extend_from_slice(&self.place.offset_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.previous_checksum.to_le_bytes());
        bytes.extend_from_slice(&(record_bytes as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.edits.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        for edit in &self.edits {
            edit.encode(&mut bytes);
        }
        bytes.resize(record_bytes, 0);
        let checksum = checksum_of(&bytes);
        if let Some(field) = bytes.get_mut(CHECKSUM_AT..HEADER_BYTES) {
            field.copy_from_slice(&checksum.to_le_bytes());
        }
        (bytes, checksum)
    }

    /// The record at the front of `log`, which is what is left of a segment's log from `place` on.
    pub(crate) fn decode(log: &[u8], place: &LogPlace) -> Result<Self, FormatError> {
        let mut fields = Fields::new(log);
        fields.magic(MAGIC)?;
        let store_id = StoreId(fields.array()?);
        let (epoch, sequence, synced_sequence) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let found = LogPlace {
            store_id,
            segment_id: fields.u32()?,
            offset_bytes: fields.u32()?,
        };
        let previous_checksum = fields.u32()?;
        let record_bytes = fields.u32()?;
        let count = fields.u32()? as usize;
        let checksum = fields.u32()?;
        let whole = log
            .get(..record_bytes as usize)
            .filter(|whole| whole.len() >= HEADER_BYTES && whole.len().is_multiple_of(PAGE_BYTES))
            .ok_or(FormatError::Damaged("its length is wrong"))?;
        if checksum_of(whole) != checksum {
            // mutant: slab-no-header-check
            return Err(FormatError::Damaged("the checksum is wrong"));
        }
        if found != *place {
            return Err(FormatError::Damaged("it belongs elsewhere"));
        }
        if synced_sequence >= sequence || sequence > super::super::COUNT_MAX {
            return Err(FormatError::Damaged("its sequence is out of range"));
        }
        let mut rest = whole.get(HEADER_BYTES..).unwrap_or_default();
        if count > rest.len() / BlockEdit::put_bytes(0) {
            return Err(FormatError::Damaged("it has more entries than bytes"));
        }
        let edits = (0..count).map(|_| BlockEdit::decode(&mut rest));
        Ok(Self {
            place: found,
            epoch,
            sequence,
            synced_sequence,
            previous_checksum,
            checksum,
            record_bytes,
            edits: edits.collect::<Result<_, _>>()?,
        })
    }
}

fn checksum_of(whole: &[u8]) -> u32 {
    let before = whole.get(..CHECKSUM_AT).unwrap_or_default();
    let behind = whole.get(HEADER_BYTES..).unwrap_or_default();
    crc32c_of([before, &[0; 4], behind])
}

/// Whether the first sector of a page looks as if a record of this epoch was begun there, whole or not.
pub(crate) fn is_begun(page: &[u8], store_id: StoreId, epoch: u64) -> bool {
    let mut fields = Fields::new(page);
    fields.magic(MAGIC).is_ok()
        && fields.array() == Ok(store_id.0)
        && fields.u64().is_ok_and(|found| found >= epoch)
}
