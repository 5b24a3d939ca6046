//! Reading values, never unchecked.

use core_view::contract::{ContractError, ErrorKind, Failure};
use core_view::{BufferMut, TensorStorage};

use super::buffers::Buffers;
use super::encoding::{DecodeError, decode};
use super::fetch::{Extent, fetch};
use super::index::Slot;
use super::log::Segment;
use super::memory::MemoryKind;
use super::recovery::name_of;
use super::{NvmeError, Shared};
use crate::VolumeFile;
use crate::format::{Crc32c, Encoding, PAGE_BYTES, crc32c};

/// Operations that read one long value.
const DEPTH: usize = 4;

/// Reads of more than this are compared with the file's length before there is memory for them, in bytes.
const TRUSTED_BYTES: usize = 2 << 20;

/// How often a read looks again when the value went away under it.
const LOOKS_MAX: usize = 8;

impl Shared {
    pub(super) fn read_shared(&self, key: &[u8]) -> Result<Option<TensorStorage>, NvmeError> {
        if !self.cache.is_on() {
            return Ok(self.read(key)?.map(TensorStorage::from));
        }
        self.look_up(key, |slot, segment| {
            if let Some(storage) = self.cache.get(slot) {
                self.counters.read(storage.len());
                return Ok(storage);
            }
            let storage =
                TensorStorage::from(self.read_slot(key, slot, segment, MemoryKind::Cache)?);
            self.counters.read(storage.len());
            self.cache.insert(slot, &storage);
            self.forget_dead(key, slot);
            Ok(storage)
        })
    }

    /// Keeps a value that was read for the next one who asks.
    pub(super) fn remember(&self, key: &[u8], slot: &Slot, value: &[u8]) {
        if !self.cache.wants(slot, value.len()) {
            return;
        }
        let copy = || self.buffers.copy_of(MemoryKind::Cache, value);
        let copy = copy().or_else(|_| {
            self.cache.give_back(value.len());
            copy()
        });
        match copy {
            Ok(copy) => {
                self.cache.insert(slot, &TensorStorage::from(copy));
                self.forget_dead(key, slot);
            }
            // It is kept another time.
            Err(_) => self.cache.count_refusal(),
        }
    }

    /// Who changed the key between the look-up and now found nothing to take out of the cache.
    fn forget_dead(&self, key: &[u8], slot: &Slot) {
        if self.index.get(key) != Some(*slot) {
            self.cache.remove(slot);
        }
    }

    /// A copy of the value, if it is in the cache.
    pub(super) fn cached(&self, slot: &Slot) -> Option<BufferMut> {
        let storage = self.cache.get(slot)?;
        let copy = self.copy_of(storage.as_slice()).ok()?;
        self.counters.read(copy.len());
        Some(copy)
    }

    /// A copy for the caller.
    pub(super) fn copy_of(&self, value: &[u8]) -> Result<BufferMut, NvmeError> {
        self.with_room(value.len(), || {
            self.buffers.copy_of(MemoryKind::Buffers, value)
        })
    }

    /// Memory of any contents, of whole pages.
    pub(super) fn lend(&self, kind: MemoryKind, len_bytes: usize) -> Result<BufferMut, NvmeError> {
        self.with_room(len_bytes, || self.buffers.lend(kind, len_bytes))
    }

    /// What was read ahead goes before anything fails for want of memory, and then what the cache has.
    pub(super) fn with_room<T>(
        &self,
        len_bytes: usize,
        take: impl Fn() -> Result<T, NvmeError>,
    ) -> Result<T, NvmeError> {
        loop {
            match take() {
                Err(NvmeError::MemoryLimit { .. })
                    if self.prefetcher.give_back() || self.cache.give_back(len_bytes) => {}
                outcome => return outcome,
            }
        }
    }

    /// `len` bytes from `skip` on. Small ones go to memory of their own, so that they hold no page.
    pub(super) fn cut(
        &self,
        kind: MemoryKind,
        mut buffer: BufferMut,
        skip: usize,
        len: usize,
    ) -> Result<BufferMut, NvmeError> {
        if len < PAGE_BYTES {
            let value = &buffer[skip..skip + len];
            return self.with_room(len, || self.buffers.copy_of(kind, value));
        }
        let mut value = buffer.split_off(skip);
        drop(value.split_off(len));
        Ok(value)
    }

    pub(super) fn read(&self, key: &[u8]) -> Result<Option<BufferMut>, NvmeError> {
        self.look_up(key, |slot, segment| {
            if let Some(value) = self.cached(slot) {
                return Ok(value);
            }
            let value = self.read_slot(key, slot, segment, MemoryKind::Buffers)?;
            self.counters.read(value.len());
            self.remember(key, slot, &value);
            Ok(value)
        })
    }

    /// As [`read`](Self::read), in one call on this thread that waits for no thread of the engine.
    pub(super) fn read_here(&self, key: &[u8]) -> Result<Option<BufferMut>, NvmeError> {
        self.look_up(key, |slot, segment| {
            let file = segment.file.as_ref().ok_or_else(|| missing(key, slot))?;
            let (extent, len) = extent_of(slot)?;
            if len == 0 {
                return Ok(BufferMut::from_vec(Vec::new()));
            }
            let target = self.lend(MemoryKind::Buffers, extent.len_bytes)?;
            let skip = (slot.offset_bytes - extent.start_bytes) as usize;
            let buffer = file.read_blocking(extent.start_bytes, target)?;
            let stored = self.cut(MemoryKind::Buffers, buffer, skip, len)?;
            check(key, slot, &stored)?;
            let value = self.decoded(key, slot, stored, MemoryKind::Buffers)?;
            self.counters.read(value.len());
            Ok(value)
        })
    }

    /// Reads the value under `key` with `read`, again if it moved or was replaced meanwhile.
    fn look_up<T>(
        &self,
        key: &[u8],
        mut read: impl FnMut(&Slot, &Segment) -> Result<T, NvmeError>,
    ) -> Result<Option<T>, NvmeError> {
        let mut looks = 0;
        loop {
            let Some(slot) = self.index.get(key) else {
                return Ok(None);
            };
            let outcome = match self.segments.get(slot.segment_id) {
                Some(segment) => read(&slot, &segment),
                None => Err(missing(key, &slot)),
            };
            match outcome {
                Ok(value) => return Ok(Some(value)),
                // A segment that nothing lives in any more may be gone, or written again.
                Err(_) if looks < LOOKS_MAX && self.index.get(key) != Some(slot) => looks += 1,
                Err(error) => {
                    self.check_open()?;
                    return Err(error);
                }
            }
        }
    }

    fn read_slot(
        &self,
        key: &[u8],
        slot: &Slot,
        segment: &Segment,
        kind: MemoryKind,
    ) -> Result<BufferMut, NvmeError> {
        let file = segment.file.as_ref().ok_or_else(|| missing(key, slot))?;
        let (extent, len) = extent_of(slot)?;
        if len == 0 {
            return Ok(BufferMut::from_vec(Vec::new()));
        }
        let mut target = self.lend(kind, extent.len_bytes)?;
        let skip = (slot.offset_bytes - extent.start_bytes) as usize;
        let is_small = self.prefetcher.is_for(extent);
        if is_small && self.prefetcher.take(segment.id, extent, &mut target) {
            self.read_ahead(segment, extent);
            // What is wrong with it is told by what is on the device.
            if crc32c(&target[skip..skip + len]) == slot.checksum {
                let stored = self.cut(kind, target, skip, len)?;
                return self.decoded(key, slot, stored, kind);
            }
        }
        let fetched = fetch(&**file, extent.start_bytes, target, skip..skip + len, DEPTH)?;
        check_sum(key, slot, fetched.checksum)?; // mutant: no-read-check
        if is_small {
            self.read_ahead(segment, extent);
        }
        let stored = self.cut(kind, fetched.buffer, skip, len)?;
        self.decoded(key, slot, stored, kind)
    }

    fn read_ahead(&self, segment: &Segment, extent: Extent) {
        let lend = |len| self.buffers.lend(MemoryKind::ReadAhead, len).ok();
        self.prefetcher.note(segment, extent, lend);
    }

    /// The value that checked stored bytes stand for.
    pub(super) fn decoded(
        &self,
        key: &[u8],
        slot: &Slot,
        stored: BufferMut,
        kind: MemoryKind,
    ) -> Result<BufferMut, NvmeError> {
        if slot.encoding == Encoding::Raw {
            return Ok(stored);
        }
        let len = usize::try_from(slot.raw_bytes).map_err(|_| too_long(slot.raw_bytes))?;
        let mut value = self.lend(kind, len)?;
        drop(value.split_off(len));
        decode_into(key, slot, &stored, &mut value)?;
        drop(stored);
        self.cut(kind, value, 0, len)
    }

    /// Reads into memory of the caller's, and tells how long the value is.
    pub(super) fn read_into(
        &self,
        key: &[u8],
        target: BufferMut,
    ) -> Result<(BufferMut, Option<usize>), Failure> {
        let mut lent = Some(target);
        let outcome = self.look_up(key, |slot, segment| {
            let len = usize::try_from(slot.raw_bytes).map_err(|_| too_long(slot.raw_bytes))?;
            let buffer = lent.take().ok_or_else(|| NvmeError::Invalid {
                field: "target",
                reason: "the volume kept it after a failure".to_owned(),
            })?;
            if buffer.len() < len {
                let reason = format!("{} bytes for a value of {len}", buffer.len());
                lent = Some(buffer);
                return Err(NvmeError::Invalid {
                    field: "target",
                    reason,
                });
            }
            let (buffer, outcome) = self.fill(key, slot, segment, buffer);
            lent = buffer;
            outcome.map(|()| len)
        });
        match (outcome, lent) {
            (Ok(len), Some(target)) => {
                self.counters.read(len.unwrap_or(0));
                Ok((target, len))
            }
            (Ok(_), None) => Err(ContractError::new(ErrorKind::Io, "read value")
                .detail("the volume kept the buffer")
                .into()),
            (Err(error), lent) => Err(Failure::new(error.into(), Vec::from_iter(lent))),
        }
    }

    /// Fills the front of `target`, which is long enough, with a value.
    fn fill(
        &self,
        key: &[u8],
        slot: &Slot,
        segment: &Segment,
        mut target: BufferMut,
    ) -> (Option<BufferMut>, Result<(), NvmeError>) {
        if let Some(storage) = self.cache.get(slot) {
            target[..storage.len()].copy_from_slice(storage.as_slice());
            return (Some(target), Ok(()));
        }
        let direct = segment.file.as_ref().and_then(|file| {
            let (extent, len) = extent_of(slot).ok()?;
            let is_direct = slot.encoding == Encoding::Raw
                && extent.start_bytes == slot.offset_bytes
                && target.len() >= extent.len_bytes
                && target.is_aligned_to(self.alignment.memory_bytes);
            (is_direct && len > 0).then_some((file, extent, len))
        });
        let Some((file, extent, len)) = direct else {
            let value = self.read_slot(key, slot, segment, MemoryKind::Buffers);
            let outcome = value.map(|value| {
                self.remember(key, slot, &value);
                target[..value.len()].copy_from_slice(&value);
            });
            return (Some(target), outcome);
        };
        let rest = target.split_off(extent.len_bytes);
        match fetch(&**file, extent.start_bytes, target, 0..len, DEPTH) {
            Ok(fetched) => {
                let mut target = fetched.buffer;
                // They are parts of one buffer.
                drop(target.unsplit(rest));
                let checked = check_sum(key, slot, fetched.checksum);
                if checked.is_ok() {
                    self.remember(key, slot, &target[..len]);
                }
                (Some(target), checked)
            }
            Err(error) => (None, Err(error)),
        }
    }
}

/// The pages of a value's stored bytes, and how many bytes those are.
pub(super) fn extent_of(slot: &Slot) -> Result<(Extent, usize), NvmeError> {
    let too_long = || too_long(slot.stored_bytes);
    let extent = Extent::covering(slot.offset_bytes, slot.stored_bytes).ok_or_else(too_long)?;
    let len = usize::try_from(slot.stored_bytes).map_err(|_| too_long())?;
    Ok((extent, len))
}

/// Compares a value with the checksum in the index.
pub(super) fn check(key: &[u8], slot: &Slot, value: &[u8]) -> Result<(), NvmeError> {
    check_sum(key, slot, crc32c(value))
}

/// Compares a value's checksum with the one in the index.
pub(super) fn check_sum(key: &[u8], slot: &Slot, found: u32) -> Result<(), NvmeError> {
    if found == slot.checksum {
        return Ok(());
    }
    let reason = format!(
        "its checksum is {found:08x} instead of {:08x}",
        slot.checksum
    );
    Err(corrupt(key, slot, reason))
}

pub(super) fn decode_into(
    key: &[u8],
    slot: &Slot,
    stored: &[u8],
    target: &mut [u8],
) -> Result<(), NvmeError> {
    decode(slot.encoding, stored, target).map_err(|error| match error {
        DecodeError::Damaged => corrupt(key, slot, "it can't be decompressed".to_owned()),
        #[cfg(not(feature = "zstd"))]
        DecodeError::NotBuiltIn(feature) => NvmeError::NotBuiltIn {
            what: format!("key {:?}", key.escape_ascii().to_string()),
            feature,
        },
    })
}

fn too_long(len_bytes: u64) -> NvmeError {
    NvmeError::Invalid {
        field: "value",
        reason: format!("{len_bytes} bytes long"),
    }
}

fn missing(key: &[u8], slot: &Slot) -> NvmeError {
    corrupt(key, slot, "the segment is missing".to_owned())
}

fn corrupt(key: &[u8], slot: &Slot, reason: String) -> NvmeError {
    let location = format!(
        "key {:?} in {} at {}",
        key.escape_ascii().to_string(),
        name_of(slot.segment_id),
        slot.offset_bytes
    );
    NvmeError::Corrupt {
        structure: "value",
        location,
        reason,
    }
}

/// The stored bytes of a value, whatever they are, in memory that `lend` gives: whole pages.
pub(super) fn read_stored(
    file: &dyn VolumeFile,
    offset_bytes: u64,
    stored_bytes: u64,
    lend: impl FnOnce(usize) -> Result<BufferMut, NvmeError>,
) -> Result<BufferMut, NvmeError> {
    if stored_bytes == 0 {
        return Ok(BufferMut::from_vec(Vec::new()));
    }
    let extent = trusted_extent(file, offset_bytes, stored_bytes)?;
    let target = lend(extent.len_bytes)?;
    let fetched = fetch(file, extent.start_bytes, target, 0..0, DEPTH)?;
    let mut value = fetched.buffer;
    let mut value = value.split_off((offset_bytes - extent.start_bytes) as usize);
    drop(value.split_off(stored_bytes as usize));
    Ok(value)
}

/// The pages around a range that somebody says is there.
fn trusted_extent(
    file: &dyn VolumeFile,
    offset_bytes: u64,
    len_bytes: u64,
) -> Result<Extent, NvmeError> {
    let extent = Extent::covering(offset_bytes, len_bytes);
    let extent = extent.ok_or_else(|| too_long(len_bytes))?;
    if extent.len_bytes > TRUSTED_BYTES && extent.end_bytes() > file.len_bytes()? {
        // No memory for what can't be there, however long somebody says it is.
        let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let (path, bytes) = (file.name().as_str(), extent.len_bytes as u64);
        return Err(NvmeError::from_io("read", path, bytes, error));
    }
    Ok(extent)
}

/// The checksum of a range, of which no more than `part_bytes`, whole pages, are in memory at once.
pub(super) fn checksum_at(
    file: &dyn VolumeFile,
    buffers: &Buffers,
    (offset_bytes, len_bytes): (u64, u64),
    part_bytes: usize,
) -> Result<u32, NvmeError> {
    if len_bytes == 0 {
        return Ok(crc32c(&[]));
    }
    let extent = trusted_extent(file, offset_bytes, len_bytes)?;
    let skip = (offset_bytes - extent.start_bytes) as usize;
    if extent.len_bytes <= part_bytes {
        let target = buffers.lend_reserved(extent.len_bytes)?;
        let checked = skip..skip + len_bytes as usize;
        return Ok(fetch(file, extent.start_bytes, target, checked, DEPTH)?.checksum);
    }
    let (mut digest, mut skip, mut left) = (Crc32c::default(), skip, len_bytes as usize);
    for part in parts(extent, part_bytes) {
        let target = buffers.lend_reserved(part.len_bytes)?;
        let read = fetch(file, part.start_bytes, target, 0..0, DEPTH)?.buffer;
        let wanted = read.get(skip..).unwrap_or_default();
        let wanted = wanted.get(..left).unwrap_or(wanted);
        digest.update(wanted);
        (skip, left) = (0, left - wanted.len());
    }
    Ok(digest.finish())
}

/// The parts of an extent, one after the other, whole pages, none longer than `part_bytes`.
pub(super) fn parts(extent: Extent, part_bytes: usize) -> impl Iterator<Item = Extent> {
    let part_bytes = (part_bytes - part_bytes % PAGE_BYTES).max(PAGE_BYTES);
    (0..extent.len_bytes)
        .step_by(part_bytes)
        .map(move |at| Extent {
            start_bytes: extent.start_bytes + at as u64,
            len_bytes: part_bytes.min(extent.len_bytes - at),
        })
}
