//! What a caller wants changed, and how it is laid out before it is committed.

use core_view::BufferMut;

use super::buffers::Buffers;
use super::checked::CheckedValue;
use super::encoding::{CompressionType, encode, scratch_bytes};
use super::index::Slot;
use super::memory::Reservation;
use super::pieces::{STAGE_BYTES_MAX, WRITE_BYTES, copied_bytes, is_long};
use crate::format::{
    BatchHeader, Encoding, Entry, EntryKind, KEY_BYTES_MAX, PAGE_BYTES, crc32c, value_alignment,
};
use crate::{Alignment, NvmeError};

/// Changes that happen together or not at all. Of several changes of one key the last counts.
#[derive(Debug, Default)]
#[must_use = "a batch does nothing until it is written"]
pub struct WriteBatch {
    changes: Vec<(Vec<u8>, Option<NewValue>)>,
}

/// A value that is to be stored.
#[derive(Debug)]
struct NewValue {
    bytes: BufferMut,
    /// If it was taken before.
    checksum: Option<u32>,
}

impl WriteBatch {
    /// No changes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// No changes yet, with room for `changes` of them.
    pub fn with_capacity(changes: usize) -> Self {
        Self {
            changes: Vec::with_capacity(changes),
        }
    }

    /// Stores `value` under `key`. Memory aligned to a page goes to the device as it is; other memory is
    /// copied once, and so are short values unless they lie side by side in one buffer that was
    /// [split](BufferMut::split_into), in the order in which they are put.
    pub fn put(mut self, key: impl Into<Vec<u8>>, value: impl Into<BufferMut>) -> Self {
        let value = NewValue {
            bytes: value.into(),
            checksum: None,
        };
        self.changes.push((key.into(), Some(value)));
        self
    }

    /// As [`WriteBatch::put`], for a value whose checksum is taken already.
    pub fn put_checked(mut self, key: impl Into<Vec<u8>>, value: CheckedValue) -> Self {
        let (bytes, checksum) = value.into_parts();
        let value = NewValue {
            bytes,
            checksum: Some(checksum),
        };
        self.changes.push((key.into(), Some(value)));
        self
    }

    /// Removes `key`.
    pub fn delete(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.changes.push((key.into(), None));
        self
    }

    /// The keys of a batch that only removes.
    pub(super) fn removed_keys(&self) -> Option<Vec<Vec<u8>>> {
        let keys = self.changes.iter().map(|(key, value)| match value {
            Some(_) => None,
            None => Some(key.clone()),
        });
        keys.collect()
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

#[derive(Debug)]
struct DraftEntry {
    kind: EntryKind,
    key: Box<[u8]>,
    encoding: Encoding,
    raw_bytes: u64,
    value: Option<BufferMut>,
    /// That of the value, if it is known.
    checksum: Option<u32>,
}

/// Bytes of memory that a change takes beside its key, before it is laid out and after.
const CHANGE_BYTES: usize =
    size_of::<DraftEntry>() + size_of::<Entry>() + size_of::<Option<u32>>() + 2 * ALLOCATION_BYTES;
/// What the allocator takes for itself, for a key or a value.
const ALLOCATION_BYTES: usize = 32;

/// A batch whose lengths are known: all that deciding its place needs.
#[derive(Debug, Default)]
pub(super) struct Draft {
    entries: Vec<DraftEntry>,
    entries_bytes: usize,
    packed_bytes: usize,
    page_bytes: usize,
    /// An upper bound: what lies side by side is not known yet.
    copied_bytes: usize,
    /// Memory of the index for its keys.
    index_memory: Option<Reservation>,
}

impl Draft {
    pub(super) fn new(batch: WriteBatch, alignment: Alignment) -> Result<Self, NvmeError> {
        let mut draft = Self {
            entries: Vec::with_capacity(batch.changes.len()),
            ..Self::default()
        };
        for (key, value) in batch.changes {
            draft.add(key, value, alignment)?;
        }
        Ok(draft)
    }

    fn add(
        &mut self,
        key: Vec<u8>,
        value: Option<NewValue>,
        alignment: Alignment,
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
            raw_bytes: 0,
            value: None,
            checksum: None,
        };
        if let Some(NewValue { bytes, checksum }) = value {
            entry.kind = EntryKind::Put;
            entry.raw_bytes = bytes.len() as u64;
            self.count(&bytes, alignment);
            entry.value = Some(bytes);
            entry.checksum = checksum;
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Bytes of memory that [`compress`](Self::compress) takes beside those of the draft.
    pub(super) fn scratch_bytes(&self, compression: CompressionType, buffers: &Buffers) -> u64 {
        Self::scratch_bytes_for(self.longest_bytes(), compression, buffers)
    }

    /// The same for a draft whose longest value has `len_bytes`.
    pub(super) fn scratch_bytes_for(
        len_bytes: usize,
        compression: CompressionType,
        buffers: &Buffers,
    ) -> u64 {
        match scratch_bytes(len_bytes, compression) {
            0 => 0,
            // The value may be there compressed, which is shorter by a tenth, and as it was at once.
            bytes => (buffers.block_bytes(bytes) + len_bytes) as u64,
        }
    }

    fn longest_bytes(&self) -> usize {
        let lens = self.entries.iter().map(|entry| entry.raw_bytes as usize);
        lens.max().unwrap_or(0)
    }

    /// Compresses the values where that is worth it, and counts anew.
    pub(super) fn compress(
        &mut self,
        compression: CompressionType,
        alignment: Alignment,
        buffers: &Buffers,
    ) -> Result<(), NvmeError> {
        let bytes = scratch_bytes(self.longest_bytes(), compression);
        if bytes == 0 {
            return Ok(());
        }
        let mut scratch = buffers.lend_reserved(bytes)?;
        (self.packed_bytes, self.page_bytes, self.copied_bytes) = (0, 0, 0);
        for number in 0..self.entries.len() {
            let entry = &mut self.entries[number];
            let Some(value) = entry.value.take() else {
                continue;
            };
            let lend = |len_bytes| buffers.lend_reserved(len_bytes);
            let encoded = encode(value, compression, &mut scratch, lend)?;
            entry.encoding = encoded.encoding;
            // What was compressed are other bytes.
            entry.checksum = entry.checksum.filter(|_| entry.encoding == Encoding::Raw);
            self.count(&encoded.stored, alignment);
            self.entries[number].value = Some(encoded.stored);
        }
        Ok(())
    }

    /// Adds a value that moves from `slot`: its stored bytes, which were checked, go on as they are.
    pub(super) fn add_move(
        &mut self,
        key: &[u8],
        slot: &Slot,
        stored: BufferMut,
        alignment: Alignment,
    ) {
        self.entries_bytes += Entry::moved_bytes(key.len());
        self.count(&stored, alignment);
        self.entries.push(DraftEntry {
            kind: EntryKind::Move { from: slot.place() },
            key: key.into(),
            encoding: slot.encoding,
            raw_bytes: slot.raw_bytes,
            value: Some(stored),
            checksum: None,
        });
    }

    fn count(&mut self, value: &BufferMut, alignment: Alignment) {
        if value.len() < PAGE_BYTES {
            self.packed_bytes += value.len().next_multiple_of(8);
            return;
        }
        self.page_bytes += value.len().next_multiple_of(PAGE_BYTES);
        let goes_as_it_is = is_long(value.len()) && value.is_aligned_to(alignment.memory_bytes);
        self.copied_bytes += copied_bytes(value.len(), goes_as_it_is);
    }

    /// Takes the entries of `other` in after its own.
    pub(super) fn append(&mut self, other: Self) {
        if self.entries.is_empty() {
            *self = other;
            return;
        }
        self.entries.extend(other.entries);
        self.entries_bytes += other.entries_bytes;
        self.packed_bytes += other.packed_bytes;
        self.page_bytes += other.page_bytes;
        self.copied_bytes += other.copied_bytes;
        if let Some(memory) = other.index_memory {
            self.hold(memory);
        }
    }

    /// The keys that it puts.
    pub(super) fn put_keys(&self) -> impl Iterator<Item = &[u8]> {
        let puts = |entry: &&DraftEntry| entry.kind == EntryKind::Put;
        self.entries.iter().filter(puts).map(|entry| &*entry.key)
    }

    /// Keeps memory of the index until its keys are in it.
    pub(super) fn hold(&mut self, memory: Reservation) {
        match &mut self.index_memory {
            Some(held) => held.absorb(memory),
            held => *held = Some(memory),
        }
    }

    /// Gives up the memory of the index.
    pub(super) fn take_index_memory(&mut self) -> Option<Reservation> {
        self.index_memory.take()
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

    /// Whether it needs space that it does not give back: a move does, a delete hardly any.
    pub(super) fn adds(&self) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.kind == EntryKind::Put)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes in memory that wait to be written.
    pub(super) fn payload_bytes(&self) -> usize {
        self.packed_bytes + self.page_bytes
    }

    /// Bytes of memory that the batch takes until it is committed: the values, the changes, the header, and copies.
    pub(super) fn memory_bytes(&self) -> u64 {
        let header_bytes = BatchHeader::header_bytes_for(self.entries_bytes).unwrap_or(0);
        let packed_bytes = self.packed_bytes.next_multiple_of(PAGE_BYTES);
        let copied_bytes = self.copied_bytes.min(STAGE_BYTES_MAX + WRITE_BYTES);
        let pooled_bytes = header_bytes + packed_bytes + copied_bytes;
        let changes_bytes = self.entries.len() * CHANGE_BYTES + self.entries_bytes;
        // The header is put together beside the place that it goes to; what is pooled may be an eighth longer.
        (self.payload_bytes() + changes_bytes + header_bytes + pooled_bytes + pooled_bytes / 8)
            as u64
    }

    /// Most bytes of memory that a value which moves takes, with its part of the commit.
    pub(super) fn moved_memory_bytes(key_bytes: usize, stored_bytes: u64) -> u64 {
        let pages_bytes = stored_bytes.next_multiple_of(PAGE_BYTES as u64);
        // A long one is read to a page, and goes on from there but for its end.
        let value_bytes = match usize::try_from(stored_bytes).is_ok_and(is_long) {
            true => pages_bytes + PAGE_BYTES as u64,
            false => 2 * pages_bytes,
        };
        let entry_bytes = 4 * Entry::moved_bytes(key_bytes) + CHANGE_BYTES;
        value_bytes + value_bytes / 8 + entry_bytes as u64
    }

    /// Lays the batch out: completes the header of `template` but for what the values' bytes decide.
    pub(super) fn lay_out(self, mut template: BatchHeader) -> Layout {
        let header_bytes = BatchHeader::header_bytes_for(self.entries_bytes).unwrap_or(usize::MAX);
        let packed_bytes = self.packed_bytes.next_multiple_of(PAGE_BYTES);
        let (mut packed_at, mut pages_at) = (0, packed_bytes as u64);
        let mut packed = Vec::new();
        let mut paged =
            Vec::with_capacity(self.page_bytes.min(PAGE_BYTES * self.entries.len()) / PAGE_BYTES);
        template.entries.reserve_exact(self.entries.len());
        let known = self.entries.iter().map(|entry| entry.checksum).collect();
        for (number, draft) in self.entries.into_iter().enumerate() {
            let stored_bytes = draft.value.as_ref().map_or(0, |value| value.len() as u64);
            let (values, at) = if stored_bytes < PAGE_BYTES as u64 {
                (&mut packed, &mut packed_at)
            } else {
                (&mut paged, &mut pages_at)
            };
            let mut value_offset_bytes = 0;
            if let Some(value) = draft.value {
                value_offset_bytes = *at;
                *at += stored_bytes.next_multiple_of(value_alignment(stored_bytes));
                values.push((number, value));
            }
            template.entries.push(Entry {
                kind: draft.kind,
                encoding: draft.encoding,
                checksum: 0,
                value_offset_bytes,
                stored_bytes,
                raw_bytes: draft.raw_bytes,
                key: draft.key,
            });
        }
        template.header_bytes = header_bytes as u32;
        template.payload_bytes = pages_at;
        Layout {
            header: template,
            packed_bytes,
            packed,
            paged,
            known,
        }
    }
}

/// A batch laid out: what goes where, but for checksums.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) header: BatchHeader,
    /// Bytes of the pages that values shorter than a page share.
    packed_bytes: usize,
    /// Values shorter than a page, with the number of their entry.
    packed: Vec<(usize, BufferMut)>,
    /// The others, in the order in which they lie on the device.
    pub(super) paged: Vec<(usize, BufferMut)>,
    /// The checksums that were taken before, by the number of the entry.
    pub(super) known: Vec<Option<u32>>,
}

impl Layout {
    /// Bytes of the header and of the values that are packed behind it.
    pub(super) fn front_bytes(&self) -> usize {
        (self.header.header_bytes as usize).saturating_add(self.packed_bytes)
    }

    /// Puts the short values behind where the header goes in `front`.
    pub(super) fn pack(&mut self, front: &mut [u8]) {
        front.fill(0);
        let packed = &mut front[self.header.header_bytes as usize..];
        for (number, value) in self.packed.drain(..) {
            let entry = &mut self.header.entries[number];
            let at = entry.value_offset_bytes as usize;
            packed[at..at + value.len()].copy_from_slice(&value);
            let known = self.known.get(number).copied().flatten();
            debug_assert!(known.is_none_or(|known| known == crc32c(&value)));
            entry.checksum = known.unwrap_or_else(|| crc32c(&value));
        }
    }

    /// Completes the header in `front`.
    pub(super) fn seal(&mut self, front: &mut [u8]) {
        let (encoded, checksum) = self.header.encode();
        front[..encoded.len()].copy_from_slice(&encoded);
        self.header.checksum = checksum;
    }
}
