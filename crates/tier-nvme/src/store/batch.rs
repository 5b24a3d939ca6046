//! What a caller wants changed, and how it is laid out before it is committed.

use core_view::BufferMut;

use super::encoding::{CompressionType, encode};
use super::index::Slot;
use super::log::aligned_buffer;
use crate::format::{
    BatchHeader, Encoding, Entry, EntryKind, KEY_BYTES_MAX, PAGE_BYTES, crc32c, value_alignment,
};
use crate::{Alignment, NvmeError};

/// Changes that happen together or not at all. Of several changes of one key the last counts.
#[derive(Debug, Default)]
#[must_use = "a batch does nothing until it is written"]
pub struct WriteBatch {
    changes: Vec<(Vec<u8>, Option<BufferMut>)>,
}

impl WriteBatch {
    /// No changes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores `value` under `key`. Memory aligned to a page goes to the device as it is; other memory is
    /// copied once.
    pub fn put(mut self, key: impl Into<Vec<u8>>, value: impl Into<BufferMut>) -> Self {
        self.changes.push((key.into(), Some(value.into())));
        self
    }

    /// Removes `key`.
    pub fn delete(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.changes.push((key.into(), None));
        self
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// A value smaller than a page, or whole aligned pages.
#[derive(Debug)]
enum Stored {
    Packed(BufferMut),
    Pages(Vec<BufferMut>),
}

#[derive(Debug)]
struct DraftEntry {
    kind: EntryKind,
    key: Box<[u8]>,
    encoding: Encoding,
    checksum: u32,
    stored_bytes: u64,
    raw_bytes: u64,
    value: Option<Stored>,
}

/// A batch with its values checksummed and aligned: all that can be done before its place is known.
#[derive(Debug, Default)]
pub(super) struct Draft {
    entries: Vec<DraftEntry>,
    entries_bytes: usize,
    packed_bytes: usize,
    page_bytes: usize,
}

impl Draft {
    pub(super) fn new(
        batch: WriteBatch,
        alignment: Alignment,
        compression: CompressionType,
    ) -> Result<Self, NvmeError> {
        let mut draft = Self::default();
        for (key, value) in batch.changes {
            draft.add(key, value, alignment, compression)?;
        }
        Ok(draft)
    }

    fn add(
        &mut self,
        key: Vec<u8>,
        value: Option<BufferMut>,
        alignment: Alignment,
        compression: CompressionType,
    ) -> Result<(), NvmeError> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            let reason = format!("{} bytes, allowed are 1 to {KEY_BYTES_MAX}", key.len());
            return Err(NvmeError::Invalid {
                field: "key",
                reason,
            });
        }
        self.entries_bytes += Entry::encoded_bytes(key.len());
        let mut entry = DraftEntry {
            kind: EntryKind::Delete,
            key: key.into(),
            encoding: Encoding::Raw,
            checksum: 0,
            stored_bytes: 0,
            raw_bytes: 0,
            value: None,
        };
        if let Some(value) = value {
            let encoded = encode(value, compression)?;
            let stored = encoded.stored;
            entry.kind = EntryKind::Put;
            entry.encoding = encoded.encoding;
            entry.checksum = crc32c(&stored);
            entry.stored_bytes = stored.len() as u64;
            entry.raw_bytes = encoded.raw_bytes;
            entry.value = Some(self.take_in(stored, alignment)?);
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Adds a value that moves from `slot`: its stored bytes go on as they are, with their checksum.
    pub(super) fn add_move(
        &mut self,
        key: &[u8],
        slot: &Slot,
        stored: BufferMut,
        alignment: Alignment,
    ) -> Result<(), NvmeError> {
        self.entries_bytes += Entry::moved_bytes(key.len());
        let value = self.take_in(stored, alignment)?;
        self.entries.push(DraftEntry {
            kind: EntryKind::Move { from: slot.place() },
            key: key.into(),
            encoding: slot.encoding,
            checksum: slot.checksum,
            stored_bytes: slot.stored_bytes,
            raw_bytes: slot.raw_bytes,
            value: Some(value),
        });
        Ok(())
    }

    fn take_in(&mut self, value: BufferMut, alignment: Alignment) -> Result<Stored, NvmeError> {
        Ok(if value.len() < PAGE_BYTES {
            self.packed_bytes += value.len().next_multiple_of(8);
            Stored::Packed(value)
        } else {
            self.page_bytes += value.len().next_multiple_of(PAGE_BYTES);
            Stored::Pages(pages(value, alignment)?)
        })
    }

    /// Takes the entries of `other` in after its own.
    pub(super) fn append(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.entries_bytes += other.entries_bytes;
        self.packed_bytes += other.packed_bytes;
        self.page_bytes += other.page_bytes;
    }

    /// Bytes that the batch takes in a segment; `None` if its header would be too long.
    pub(super) fn batch_bytes(&self) -> Option<u64> {
        self.batch_bytes_with(&Self::default())
    }

    /// Bytes that the batch takes once it has taken `other` in; `None` if its header would be too long.
    pub(super) fn batch_bytes_with(&self, other: &Self) -> Option<u64> {
        let header_bytes = BatchHeader::header_bytes_for(self.entries_bytes + other.entries_bytes)?;
        let packed_bytes = (self.packed_bytes + other.packed_bytes).next_multiple_of(PAGE_BYTES);
        Some((header_bytes + packed_bytes + self.page_bytes + other.page_bytes) as u64)
    }

    /// Whether it adds values, and not only takes some away.
    pub(super) fn puts(&self) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.kind != EntryKind::Delete)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes in memory that wait to be written.
    pub(super) fn payload_bytes(&self) -> usize {
        self.packed_bytes + self.page_bytes
    }

    /// Lays the batch out: the header of `template` completed, and the buffers that follow one another
    /// from its place on.
    pub(super) fn lay_out(
        self,
        mut template: BatchHeader,
    ) -> Result<(BatchHeader, Vec<BufferMut>), NvmeError> {
        let header_bytes = BatchHeader::header_bytes_for(self.entries_bytes).unwrap_or(usize::MAX);
        let packed_bytes = self.packed_bytes.next_multiple_of(PAGE_BYTES);
        let mut front = aligned_buffer(header_bytes.saturating_add(packed_bytes))?;
        let (header, packed) = front.split_at_mut(header_bytes);
        let (mut packed_at, mut pages_at) = (0_usize, packed_bytes as u64);
        let mut sources = Vec::new();
        for draft in self.entries {
            let unit = value_alignment(draft.stored_bytes);
            let value_offset_bytes = match draft.value {
                None => 0,
                Some(Stored::Packed(value)) => {
                    let at = packed_at;
                    packed[at..at + value.len()].copy_from_slice(&value);
                    packed_at += value.len().next_multiple_of(unit as usize);
                    at as u64
                }
                Some(Stored::Pages(pages)) => {
                    let at = pages_at;
                    pages_at += draft.stored_bytes.next_multiple_of(unit);
                    sources.extend(pages);
                    at
                }
            };
            template.entries.push(Entry {
                kind: draft.kind,
                encoding: draft.encoding,
                checksum: draft.checksum,
                value_offset_bytes,
                stored_bytes: draft.stored_bytes,
                raw_bytes: draft.raw_bytes,
                key: draft.key,
            });
        }
        template.header_bytes = header_bytes as u32;
        template.payload_bytes = pages_at;
        let (encoded, checksum) = template.encode();
        header.copy_from_slice(&encoded);
        template.checksum = checksum;
        sources.insert(0, front);
        Ok((template, sources))
    }
}

/// The value as aligned whole pages: as it is, but for a last page that is not full, or a copy.
fn pages(mut value: BufferMut, alignment: Alignment) -> Result<Vec<BufferMut>, NvmeError> {
    if !value.is_aligned_to(alignment.memory_bytes) {
        let mut copy = aligned_buffer(value.len().next_multiple_of(PAGE_BYTES))?;
        copy[..value.len()].copy_from_slice(&value);
        return Ok(vec![copy]);
    }
    let whole = value.len() - value.len() % PAGE_BYTES;
    if whole == value.len() {
        return Ok(vec![value]);
    }
    let rest = value.split_off(whole);
    let mut last = aligned_buffer(PAGE_BYTES)?;
    last[..rest.len()].copy_from_slice(&rest);
    Ok(vec![value, last])
}
