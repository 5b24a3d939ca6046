//! The header of a batch: what it puts and deletes, and where the values are.

use super::bytes::Fields;
use super::{Encoding, FormatError, PAGE_BYTES, StoreId, crc32c, crc32c_of, page_ceil};

const MAGIC: &[u8; 8] = b"STEPBTCH";
const FIXED_BYTES: usize = 88;
const ENTRY_FIXED_BYTES: usize = 32;
/// Bytes of the place that a value was moved from.
const MOVED_FROM_BYTES: usize = 16;
const CHECKSUM_OFFSET: usize = 76;

/// Longest key in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 1024;

/// Longest header in bytes: what recovery is ready to read before it trusts anything.
pub(crate) const HEADER_BYTES_MAX: usize = 16 << 20;

/// Where a batch is, and after which one: what its header must repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchPlace {
    pub(crate) store_id: StoreId,
    pub(crate) segment_id: u64,
    pub(crate) offset_bytes: u64,
}

/// What an entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Put,
    Delete,
    /// A put that counts only if, when its turn comes, the key's value is still at the place that it was
    /// moved from: a put or a delete in between wins, however late the move learns of it.
    Move {
        from: ValuePlace,
    },
}

/// Where a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ValuePlace {
    pub(crate) segment_id: u64,
    /// From the start of the segment.
    pub(crate) offset_bytes: u64,
}

/// One key of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: EntryKind,
    pub(crate) encoding: Encoding,
    pub(crate) checksum: u32,
    /// From the start of the payload.
    pub(crate) value_offset_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) raw_bytes: u64,
    pub(crate) key: Box<[u8]>,
}

impl Entry {
    /// Bytes that the entry of a put or a delete takes in a header.
    pub(crate) fn encoded_bytes(key_bytes: usize) -> usize {
        (ENTRY_FIXED_BYTES + key_bytes).next_multiple_of(8)
    }

    /// Bytes that the entry of a move takes in a header.
    pub(crate) fn moved_bytes(key_bytes: usize) -> usize {
        Self::encoded_bytes(key_bytes) + MOVED_FROM_BYTES
    }

    fn encode(&self, header: &mut Vec<u8>) {
        let kind = match self.kind {
            EntryKind::Put => 1,
            EntryKind::Delete => 2,
            EntryKind::Move { .. } => 3,
        };
        header.extend_from_slice(&[kind, self.encoding.to_byte()]);
        header.extend_from_slice(&(self.key.len() as u16).to_le_bytes());
        header.extend_from_slice(&self.checksum.to_le_bytes());
        header.extend_from_slice(&self.value_offset_bytes.to_le_bytes());
        header.extend_from_slice(&self.stored_bytes.to_le_bytes());
        header.extend_from_slice(&self.raw_bytes.to_le_bytes());
        if let EntryKind::Move { from } = self.kind {
            header.extend_from_slice(&from.segment_id.to_le_bytes());
            header.extend_from_slice(&from.offset_bytes.to_le_bytes());
        }
        header.extend_from_slice(&self.key);
        header.resize(header.len().next_multiple_of(8), 0);
    }
}

/// An entry in the bytes of its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryRef<'a> {
    pub(crate) kind: EntryKind,
    pub(crate) encoding: Encoding,
    pub(crate) checksum: u32,
    /// From the start of the payload.
    pub(crate) value_offset_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) raw_bytes: u64,
    pub(crate) key: &'a [u8],
}

impl<'a> EntryRef<'a> {
    /// The entry that `bytes` begins with, and what follows it.
    fn decode(bytes: &'a [u8], payload_bytes: u64) -> Result<(Self, &'a [u8]), FormatError> {
        let mut fields = Fields::new(bytes);
        let kind_number = fields.u8()?;
        let encoding = fields.u8()?;
        let key_bytes = usize::from(fields.u16()?);
        let checksum = fields.u32()?;
        let value_offset_bytes = fields.u64()?;
        let stored_bytes = fields.u64()?;
        let raw_bytes = fields.u64()?;
        if key_bytes == 0 || key_bytes > KEY_BYTES_MAX {
            return Err(FormatError::Damaged("a key's length is out of range"));
        }
        let encoding = Encoding::from_byte(encoding, stored_bytes, raw_bytes)?;
        let end = value_offset_bytes.checked_add(stored_bytes);
        if end.is_none_or(|end| end > payload_bytes) {
            return Err(FormatError::Damaged("a value lies outside the payload"));
        }
        let kind = match kind_number {
            1 => EntryKind::Put,
            2 => EntryKind::Delete,
            3 => EntryKind::Move {
                from: ValuePlace {
                    segment_id: fields.u64()?,
                    offset_bytes: fields.u64()?,
                },
            },
            _ => return Err(FormatError::Damaged("an entry is of an unknown kind")),
        };
        let key = fields.take(key_bytes)?;
        fields.take(Entry::encoded_bytes(key_bytes) - ENTRY_FIXED_BYTES - key_bytes)?;
        let entry = Self {
            kind,
            encoding,
            checksum,
            value_offset_bytes,
            stored_bytes,
            raw_bytes,
            key,
        };
        Ok((entry, fields.rest()))
    }

    #[cfg(any(test, feature = "fuzzing"))]
    fn to_owned(self) -> Entry {
        Entry {
            kind: self.kind,
            encoding: self.encoding,
            checksum: self.checksum,
            value_offset_bytes: self.value_offset_bytes,
            stored_bytes: self.stored_bytes,
            raw_bytes: self.raw_bytes,
            key: self.key.into(),
        }
    }
}

fn check_sum(found: u32, expected: u32) -> Result<(), FormatError> {
    if found == expected {
        Ok(())
    } else {
        Err(FormatError::Damaged("the checksum is wrong"))
    }
}

/// What a value's place in the payload is a multiple of, in bytes.
pub(crate) fn value_alignment(stored_bytes: u64) -> u64 {
    if stored_bytes >= PAGE_BYTES as u64 {
        PAGE_BYTES as u64
    } else {
        8
    }
}

/// The header of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) place: BatchPlace,
    pub(crate) sequence: u64,
    pub(crate) synced_sequence: u64,
    /// Checksum field of the batch before.
    pub(crate) previous_checksum: u32,
    pub(crate) header_bytes: u32,
    pub(crate) payload_bytes: u64,
    pub(crate) checksum: u32,
    /// A number that the writer drew when it opened the store.
    pub(crate) life: u64,
    pub(crate) entries: Vec<Entry>,
}

/// The fields of a header in front of its entries, enough to know how much to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchFields {
    pub(crate) place: BatchPlace,
    pub(crate) sequence: u64,
    pub(crate) synced_sequence: u64,
    pub(crate) previous_checksum: u32,
    pub(crate) header_bytes: u32,
    pub(crate) payload_bytes: u64,
    pub(crate) entry_count: u32,
    pub(crate) checksum: u32,
    pub(crate) life: u64,
}

impl BatchFields {
    fn decode(fields: &mut Fields<'_>) -> Result<Self, FormatError> {
        fields.magic(MAGIC)?;
        let store_id = StoreId(fields.array()?);
        let place = BatchPlace {
            store_id,
            segment_id: fields.u64()?,
            offset_bytes: fields.u64()?,
        };
        let fixed = Self {
            place,
            sequence: fields.u64()?,
            synced_sequence: fields.u64()?,
            previous_checksum: fields.u32()?,
            header_bytes: fields.u32()?,
            payload_bytes: fields.u64()?,
            entry_count: fields.u32()?,
            checksum: fields.u32()?,
            life: fields.u64()?,
        };
        let header_bytes = fixed.header_bytes as usize;
        let page = PAGE_BYTES as u64;
        if header_bytes == 0
            || !header_bytes.is_multiple_of(PAGE_BYTES)
            || header_bytes > HEADER_BYTES_MAX
            || !fixed.payload_bytes.is_multiple_of(page)
            || fixed.entry_count as usize > header_bytes / ENTRY_FIXED_BYTES
        {
            return Err(FormatError::Damaged("a size is out of range"));
        }
        Ok(fixed)
    }

    /// The fields of the header that begins here, if one does that belongs at `place`; nothing else is checked.
    pub(crate) fn peek(start: &[u8], place: &BatchPlace) -> Result<Self, FormatError> {
        let fixed = Self::decode(&mut Fields::new(start))?;
        if fixed.place != *place {
            return Err(FormatError::Damaged("it belongs elsewhere"));
        }
        Ok(fixed)
    }

    /// The fields of the header that `bytes` begins with, if its checksum is right and it belongs at `place`, and
    /// the header.
    pub(crate) fn open<'a>(
        bytes: &'a [u8],
        place: &BatchPlace,
    ) -> Result<(Self, &'a [u8]), FormatError> {
        let fixed = Self::peek(bytes, place)?;
        let header = bytes
            .get(..fixed.header_bytes as usize)
            .ok_or(FormatError::Damaged("it ends inside the header"))?;
        let (before, rest) = header.split_at_checked(CHECKSUM_OFFSET).unwrap_or_default();
        let after = rest.get(4..).unwrap_or_default();
        let checksum = crc32c_of([before, &[0; 4], after]);
        check_sum(checksum, fixed.checksum)?; // mutant: no-header-check
        Ok((fixed, header))
    }

    /// The entries of its header, each with the offset in it at which the entry begins; none behind a wrong one.
    pub(crate) fn entries<'a>(
        &self,
        header: &'a [u8],
    ) -> impl Iterator<Item = Result<(usize, EntryRef<'a>), FormatError>> + use<'a> {
        let payload_bytes = self.payload_bytes;
        let mut rest = header.get(FIXED_BYTES..).unwrap_or_default();
        let mut is_wrong = false;
        (0..self.entry_count).map_while(move |_| {
            if is_wrong {
                return None;
            }
            let at = header.len() - rest.len();
            let decoded = EntryRef::decode(rest, payload_bytes);
            is_wrong = decoded.is_err();
            Some(decoded.map(|(entry, after)| {
                rest = after;
                (at, entry)
            }))
        })
    }

    /// The entry that begins at `at` in its header, or the first, and where the next begins.
    pub(crate) fn next_entry<'a>(
        &self,
        header: &'a [u8],
        at: usize,
    ) -> Result<(EntryRef<'a>, usize), FormatError> {
        let rest = header.get(at.max(FIXED_BYTES)..).unwrap_or_default();
        let (entry, after) = EntryRef::decode(rest, self.payload_bytes)?;
        Ok((entry, header.len() - after.len()))
    }

    /// The entry that begins at `at` in its header.
    pub(crate) fn entry_at<'a>(
        &self,
        header: &'a [u8],
        at: usize,
    ) -> Result<EntryRef<'a>, FormatError> {
        let rest = header.get(at..).unwrap_or_default();
        EntryRef::decode(rest, self.payload_bytes).map(|(entry, _)| entry)
    }

    /// Bytes of header and payload.
    pub(crate) fn batch_bytes(&self) -> u64 {
        u64::from(self.header_bytes).saturating_add(self.payload_bytes)
    }
}

impl BatchHeader {
    /// Bytes of a header whose entries take `entries_bytes`, in whole pages.
    pub(crate) fn header_bytes_for(entries_bytes: usize) -> Option<usize> {
        let bytes = page_ceil((FIXED_BYTES + entries_bytes) as u64)?;
        usize::try_from(bytes)
            .ok()
            .filter(|&bytes| bytes <= HEADER_BYTES_MAX)
    }

    /// The header as bytes, its checksum in place; `checksum` of the value is not looked at.
    pub(crate) fn encode(&self) -> (Vec<u8>, u32) {
        let mut header = Vec::with_capacity(self.header_bytes as usize);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&self.place.store_id.0);
        header.extend_from_slice(&self.place.segment_id.to_le_bytes());
        header.extend_from_slice(&self.place.offset_bytes.to_le_bytes());
        header.extend_from_slice(&self.sequence.to_le_bytes());
        header.extend_from_slice(&self.synced_sequence.to_le_bytes());
        header.extend_from_slice(&self.previous_checksum.to_le_bytes());
        header.extend_from_slice(&self.header_bytes.to_le_bytes());
        header.extend_from_slice(&self.payload_bytes.to_le_bytes());
        header.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(&self.life.to_le_bytes());
        for entry in &self.entries {
            entry.encode(&mut header);
        }
        header.resize(self.header_bytes as usize, 0);
        let checksum = crc32c(&header);
        if let Some(field) = header.get_mut(CHECKSUM_OFFSET..CHECKSUM_OFFSET + 4) {
            field.copy_from_slice(&checksum.to_le_bytes());
        }
        (header, checksum)
    }

    /// How many bytes the header that begins here has, if one does.
    pub(crate) fn peek_header_bytes(
        start: &[u8],
        place: &BatchPlace,
    ) -> Result<usize, FormatError> {
        let fixed = BatchFields::peek(start, place)?;
        Ok(fixed.header_bytes as usize)
    }

    /// The header that `bytes` begins with, if its checksum is right and it belongs at `place`.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn decode(bytes: &[u8], place: &BatchPlace) -> Result<Self, FormatError> {
        let (fixed, header) = BatchFields::open(bytes, place)?;
        let entries = fixed
            .entries(header)
            .map(|entry| Ok(entry?.1.to_owned()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            place: fixed.place,
            sequence: fixed.sequence,
            synced_sequence: fixed.synced_sequence,
            previous_checksum: fixed.previous_checksum,
            header_bytes: fixed.header_bytes,
            payload_bytes: fixed.payload_bytes,
            checksum: fixed.checksum,
            life: fixed.life,
            entries,
        })
    }

    /// Bytes of header and payload.
    pub(crate) fn batch_bytes(&self) -> u64 {
        u64::from(self.header_bytes).saturating_add(self.payload_bytes)
    }
}
