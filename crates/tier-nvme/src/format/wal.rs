//! The files, groups and records of a write-ahead log.

#[cfg(test)]
mod tests;

use super::bytes::{Fields, open_page, seal_page};
use super::{COUNT_MAX, FormatError, PAGE_BYTES, StoreId, crc32c};

const FILE_MAGIC: &[u8; 8] = b"STEPWALF";
const GROUP_MAGIC: &[u8; 8] = b"STEPWALG";

/// Incompatible feature bits that are understood: none yet.
const INCOMPATIBLE_KNOWN: u64 = 0;
/// Compatible feature bits that are understood: none yet.
const COMPATIBLE_KNOWN: u64 = 0;

/// Smallest file in bytes.
pub(crate) const FILE_BYTES_MIN: u64 = 16 << 10;
/// Largest file in bytes.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a group's header; its records follow at once.
pub(crate) const GROUP_HEADER_BYTES: usize = 96;
/// Bytes of a record's header.
pub(crate) const RECORD_HEADER_BYTES: usize = 16;
/// Records start at multiples of this.
const RECORD_ALIGNMENT: usize = 8;
/// Largest group in bytes, header included.
pub(crate) const GROUP_BYTES_MAX: usize = 64 << 20;

/// The log's place after some group: what the next one follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChainLink {
    /// Sequence of that group.
    pub(crate) sequence: u64,
    /// Its checksum field.
    pub(crate) checksum: u32,
    /// LSN of the record that comes next.
    pub(crate) next_lsn: u64,
}

impl ChainLink {
    /// Before the first group.
    pub(crate) const START: Self = Self {
        sequence: 0,
        checksum: 0,
        next_lsn: 1,
    };

    /// Whether a group with this header comes right after.
    pub(crate) fn is_followed_by(&self, header: &GroupHeader) -> bool {
        header.sequence == self.sequence + 1
            && header.previous_checksum == self.checksum
            && header.first_lsn == self.next_lsn
    }

    /// The link after the group with this header.
    pub(crate) fn after(header: &GroupHeader) -> Self {
        Self {
            sequence: header.sequence,
            checksum: header.checksum,
            next_lsn: header.next_lsn(),
        }
    }
}

/// Page 0 of a file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WalFileHeader {
    pub(crate) log_id: StoreId,
    pub(crate) number: u64,
    pub(crate) file_bytes: u64,
    /// Where the log was when the file was begun.
    pub(crate) start: ChainLink,
    pub(crate) incompatible: u64,
    pub(crate) compatible: u64,
}

impl WalFileHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut fields = FILE_MAGIC.to_vec();
        fields.extend_from_slice(&super::VERSION.to_le_bytes());
        fields.extend_from_slice(&(PAGE_BYTES as u32).to_le_bytes());
        fields.extend_from_slice(&self.incompatible.to_le_bytes());
        fields.extend_from_slice(&self.compatible.to_le_bytes());
        fields.extend_from_slice(&self.log_id.0);
        fields.extend_from_slice(&self.number.to_le_bytes());
        fields.extend_from_slice(&self.file_bytes.to_le_bytes());
        fields.extend_from_slice(&self.start.sequence.to_le_bytes());
        fields.extend_from_slice(&self.start.next_lsn.to_le_bytes());
        fields.extend_from_slice(&self.start.checksum.to_le_bytes());
        seal_page(fields)
    }

    pub(crate) fn decode(page: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(open_page(page)?);
        fields.magic(FILE_MAGIC)?;
        fields.version()?;
        if fields.u32()? != PAGE_BYTES as u32 {
            return Err(FormatError::Damaged("the page size is not 4096"));
        }
        let incompatible = fields.u64()?;
        let compatible = fields.u64()?;
        let log_id = StoreId(fields.array()?);
        let number = fields.u64()?;
        let file_bytes = fields.u64()?;
        let sequence = fields.u64()?;
        let next_lsn = fields.u64()?;
        let checksum = fields.u32()?;
        if !(FILE_BYTES_MIN..=FILE_BYTES_MAX).contains(&file_bytes)
            || !file_bytes.is_multiple_of(PAGE_BYTES as u64)
        {
            return Err(FormatError::Damaged("the file size is out of range"));
        }
        if sequence > COUNT_MAX || next_lsn > COUNT_MAX || next_lsn == 0 {
            return Err(FormatError::Damaged("a count is out of range"));
        }
        Ok(Self {
            log_id,
            number,
            file_bytes,
            start: ChainLink {
                sequence,
                checksum,
                next_lsn,
            },
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

/// Where a group is; one that is found elsewhere is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupPlace {
    pub(crate) log_id: StoreId,
    pub(crate) number: u64,
    pub(crate) offset_bytes: u64,
}

/// The head of a group of records that are written, synced and recovered together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) place: GroupPlace,
    /// From 1, without gaps over the whole log.
    pub(crate) sequence: u64,
    /// Newest sequence that was known to be durable when this group was submitted.
    pub(crate) synced_sequence: u64,
    /// LSN of the first record, or of the next one if there is none.
    pub(crate) first_lsn: u64,
    /// Random, another one each time that the log is opened.
    pub(crate) life: u64,
    pub(crate) previous_checksum: u32,
    pub(crate) record_count: u32,
    /// Header and records, without what pads them to the page.
    pub(crate) group_bytes: u32,
    /// Over the headers of the records.
    pub(crate) records_checksum: u32,
    /// Of this header: set by `encode`.
    pub(crate) checksum: u32,
}

impl GroupHeader {
    /// The header as bytes; sets its checksum.
    pub(crate) fn encode(&mut self) -> [u8; GROUP_HEADER_BYTES] {
        let mut fields = Vec::with_capacity(GROUP_HEADER_BYTES);
        fields.extend_from_slice(GROUP_MAGIC);
        fields.extend_from_slice(&self.place.log_id.0);
        fields.extend_from_slice(&self.place.number.to_le_bytes());
        fields.extend_from_slice(&self.place.offset_bytes.to_le_bytes());
        fields.extend_from_slice(&self.sequence.to_le_bytes());
        fields.extend_from_slice(&self.synced_sequence.to_le_bytes());
        fields.extend_from_slice(&self.first_lsn.to_le_bytes());
        fields.extend_from_slice(&self.life.to_le_bytes());
        fields.extend_from_slice(&self.previous_checksum.to_le_bytes());
        fields.extend_from_slice(&self.record_count.to_le_bytes());
        fields.extend_from_slice(&self.group_bytes.to_le_bytes());
        fields.extend_from_slice(&self.records_checksum.to_le_bytes());
        fields.extend_from_slice(&[0; 4]);
        self.checksum = crc32c(&fields);
        fields.extend_from_slice(&self.checksum.to_le_bytes());
        let mut header = [0; GROUP_HEADER_BYTES];
        header
            .iter_mut()
            .zip(fields)
            .for_each(|(byte, field)| *byte = field);
        header
    }

    /// The header that `bytes` begins with, wherever it belongs.
    fn decode_anywhere(bytes: &[u8]) -> Result<Self, FormatError> {
        let short = FormatError::Damaged("it ends inside the header");
        let header = bytes.get(..GROUP_HEADER_BYTES).ok_or(short.clone())?;
        let (covered, checksum) = header.split_last_chunk::<4>().ok_or(short)?;
        let checksum = u32::from_le_bytes(*checksum);
        let mut fields = Fields::new(covered);
        fields.magic(GROUP_MAGIC)?;
        check_sum(crc32c(covered), checksum)?; // mutant: wal-no-group-header-check
        let place = GroupPlace {
            log_id: StoreId(fields.array()?),
            number: fields.u64()?,
            offset_bytes: fields.u64()?,
        };
        let decoded = Self {
            place,
            sequence: fields.u64()?,
            synced_sequence: fields.u64()?,
            first_lsn: fields.u64()?,
            life: fields.u64()?,
            previous_checksum: fields.u32()?,
            record_count: fields.u32()?,
            group_bytes: fields.u32()?,
            records_checksum: fields.u32()?,
            checksum,
        };
        decoded.check_ranges()?;
        Ok(decoded)
    }

    fn check_ranges(&self) -> Result<(), FormatError> {
        let body = (self.group_bytes as usize).checked_sub(GROUP_HEADER_BYTES);
        let records = self.record_count as usize;
        let fits = body.is_some_and(|body| {
            records
                .checked_mul(RECORD_HEADER_BYTES)
                .is_some_and(|bytes| bytes <= body)
        });
        let counts = [self.sequence, self.synced_sequence, self.first_lsn];
        if !fits
            || self.group_bytes as usize > GROUP_BYTES_MAX
            || counts.iter().any(|&count| count > COUNT_MAX)
            || self.sequence == 0
            || self.first_lsn == 0
            || self.synced_sequence >= self.sequence
        {
            return Err(FormatError::Damaged("a number is out of range"));
        }
        Ok(())
    }

    /// The header that `bytes` begins with, if its checksum is right and it belongs at `place`.
    pub(crate) fn decode(bytes: &[u8], place: &GroupPlace) -> Result<Self, FormatError> {
        let header = Self::decode_anywhere(bytes)?;
        if header.place != *place {
            return Err(FormatError::Damaged("it belongs elsewhere"));
        }
        Ok(header)
    }

    /// As `decode`, for a log whose id is not known yet.
    pub(crate) fn decode_of_any_log(
        bytes: &[u8],
        number: u64,
        offset_bytes: u64,
    ) -> Result<Self, FormatError> {
        let header = Self::decode_anywhere(bytes)?;
        if header.place.number != number || header.place.offset_bytes != offset_bytes {
            return Err(FormatError::Damaged("it belongs elsewhere"));
        }
        Ok(header)
    }

    /// LSN of the record after this group.
    pub(crate) fn next_lsn(&self) -> u64 {
        self.first_lsn.saturating_add(u64::from(self.record_count))
    }

    /// Bytes on disk: whole pages.
    pub(crate) fn disk_bytes(&self) -> u64 {
        u64::from(self.group_bytes).next_multiple_of(PAGE_BYTES as u64)
    }

    /// Offset where the group ends.
    pub(crate) fn end_bytes(&self) -> u64 {
        self.place.offset_bytes.saturating_add(self.disk_bytes())
    }
}

fn check_sum(computed: u32, stored: u32) -> Result<(), FormatError> {
    if computed == stored {
        return Ok(());
    }
    Err(FormatError::Damaged("the checksum is wrong"))
}

/// Bytes that a record with a payload of `payload_bytes` takes.
pub(crate) fn record_bytes(payload_bytes: usize) -> Option<usize> {
    payload_bytes
        .checked_add(RECORD_HEADER_BYTES)?
        .checked_next_multiple_of(RECORD_ALIGNMENT)
}

/// The header of a record: length and checksum of the payload, and the LSN.
pub(crate) fn record_header(
    log_id: StoreId,
    lsn: u64,
    payload: &[u8],
) -> [u8; RECORD_HEADER_BYTES] {
    let len = (payload.len() as u32).to_le_bytes();
    let checksum = record_checksum(log_id, lsn, payload).to_le_bytes();
    let mut header = [0; RECORD_HEADER_BYTES];
    let fields = len.into_iter().chain(checksum).chain(lsn.to_le_bytes());
    header
        .iter_mut()
        .zip(fields)
        .for_each(|(byte, field)| *byte = field);
    header
}

/// A record of one log at one LSN is not the same bytes at another: both are part of the checksum.
fn record_checksum(log_id: StoreId, lsn: u64, payload: &[u8]) -> u32 {
    let len = (payload.len() as u32).to_le_bytes();
    super::crc32c_of([&log_id.0[..], &lsn.to_le_bytes(), &len, payload])
}

/// Walks the records of a group whose header was checked.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    log_id: StoreId,
    rest: &'a [u8],
    next_lsn: u64,
    end_lsn: u64,
}

impl<'a> Records<'a> {
    /// The records in `group`, the bytes of the whole group.
    pub(crate) fn new(header: &GroupHeader, group: &'a [u8]) -> Result<Self, FormatError> {
        Self::resume(header, group, GROUP_HEADER_BYTES, header.first_lsn)
    }

    /// The records in `group` from the one of `next_lsn` on, which begins at `position`.
    pub(crate) fn resume(
        header: &GroupHeader,
        group: &'a [u8],
        position: usize,
        next_lsn: u64,
    ) -> Result<Self, FormatError> {
        let rest = group
            .get(position..header.group_bytes as usize)
            .ok_or(FormatError::Damaged("it ends inside the group"))?;
        Ok(Self {
            log_id: header.place.log_id,
            rest,
            next_lsn,
            end_lsn: header.next_lsn(),
        })
    }

    /// Bytes that are not walked yet.
    pub(crate) fn rest_bytes(&self) -> usize {
        self.rest.len()
    }

    /// The next record, its header's bytes with it; `None` after the last.
    #[expect(clippy::type_complexity, reason = "a pair of slices beside an LSN")]
    pub(crate) fn next_record(&mut self) -> Result<Option<(u64, &'a [u8], &'a [u8])>, FormatError> {
        if self.next_lsn == self.end_lsn {
            if self.rest.is_empty() {
                return Ok(None);
            }
            return Err(FormatError::Damaged("bytes follow the last record"));
        }
        let (header, after) = self
            .rest
            .split_at_checked(RECORD_HEADER_BYTES)
            .ok_or(FormatError::Damaged("the group ends inside a record"))?;
        let mut fields = Fields::new(header);
        let len = fields.u32()? as usize;
        let checksum = fields.u32()?;
        let lsn = fields.u64()?;
        let payload = after
            .get(..len)
            .ok_or(FormatError::Damaged("a record's length is out of range"))?;
        if lsn != self.next_lsn {
            return Err(FormatError::Damaged("a record has another's LSN"));
        }
        let computed = record_checksum(self.log_id, lsn, payload);
        check_sum(computed, checksum)?; // mutant: wal-no-record-check
        let taken = record_bytes(len).unwrap_or(usize::MAX);
        self.rest = self
            .rest
            .get(taken..)
            .ok_or(FormatError::Damaged("the group ends inside a record"))?;
        self.next_lsn += 1;
        Ok(Some((lsn, header, payload)))
    }

    /// Checks every record of a group.
    pub(crate) fn check(header: &GroupHeader, group: &'a [u8]) -> Result<(), FormatError> {
        let mut records = Self::new(header, group)?;
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        while let Some((_, record_header, _)) = records.next_record()? {
            digest.update(record_header);
        }
        check_sum(digest.finalize() as u32, header.records_checksum)
    }
}
