//! Reading values, never unchecked.

use core_view::{BufferMut, TensorStorage};

use super::encoding::{DecodeError, decode};
use super::index::Slot;
use super::log::aligned_buffer;
use super::recovery::name_of;
use super::{NvmeError, Shared};
use crate::VolumeFile;
use crate::format::{Encoding, PAGE_BYTES, crc32c};

/// Bytes that one operation reads; longer values are read by several at once.
const READ_BYTES: usize = 2 << 20;

/// How often a read looks again when the segment went away under it.
const LOOKS_MAX: usize = 8;

impl Shared {
    pub(super) fn read_shared(&self, key: &[u8]) -> Result<Option<TensorStorage>, NvmeError> {
        Ok(self.read(key)?.map(TensorStorage::from))
    }

    pub(super) fn read(&self, key: &[u8]) -> Result<Option<BufferMut>, NvmeError> {
        let mut looks = 0;
        loop {
            let Some(slot) = self.index.get(key) else {
                return Ok(None);
            };
            let file = self
                .segments
                .get(slot.segment_id)
                .and_then(|segment| segment.file.clone());
            let Some(file) = file else {
                // The value moved or died between the two look-ups, unless the segment is missing.
                looks += 1;
                if looks < LOOKS_MAX && self.index.get(key) != Some(slot) {
                    continue;
                }
                self.check_open()?;
                return Err(corrupt(key, &slot, "the segment is missing".to_owned()));
            };
            let value = read_stored(&*file, slot.offset_bytes, slot.stored_bytes)?;
            check(key, &slot, &value)?; // mutant: no-read-check
            let value = whole(key, &slot, value)?;
            self.counters.read(value.len());
            return Ok(Some(value));
        }
    }
}

/// Compares a value with the checksum in the index.
pub(super) fn check(key: &[u8], slot: &Slot, value: &[u8]) -> Result<(), NvmeError> {
    let found = crc32c(value);
    if found == slot.checksum {
        return Ok(());
    }
    let reason = format!(
        "its checksum is {found:08x} instead of {:08x}",
        slot.checksum
    );
    Err(corrupt(key, slot, reason))
}

/// The value that checked stored bytes stand for.
pub(super) fn whole(key: &[u8], slot: &Slot, stored: BufferMut) -> Result<BufferMut, NvmeError> {
    if slot.encoding == Encoding::Raw {
        return Ok(stored);
    }
    let len = usize::try_from(slot.raw_bytes).map_err(|_| too_long(slot.raw_bytes))?;
    let mut value = aligned_buffer(len)?;
    match decode(slot.encoding, &stored, &mut value) {
        Ok(()) => Ok(value),
        Err(DecodeError::Damaged) => {
            let reason = "it can't be decompressed".to_owned();
            Err(corrupt(key, slot, reason))
        }
        #[cfg(not(feature = "zstd"))]
        Err(DecodeError::NotBuiltIn(feature)) => Err(NvmeError::NotBuiltIn {
            what: format!("key {:?}", key.escape_ascii().to_string()),
            feature,
        }),
    }
}

fn too_long(len_bytes: u64) -> NvmeError {
    NvmeError::Invalid {
        field: "value",
        reason: format!("{len_bytes} bytes long"),
    }
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

/// The stored bytes of a value, whatever they are.
pub(super) fn read_stored(
    file: &dyn VolumeFile,
    offset_bytes: u64,
    stored_bytes: u64,
) -> Result<BufferMut, NvmeError> {
    let page = PAGE_BYTES as u64;
    let start = offset_bytes - offset_bytes % page;
    let skip = (offset_bytes - start) as usize;
    let len = usize::try_from(stored_bytes).map_err(|_| too_long(stored_bytes))?;
    if len == 0 {
        return Ok(BufferMut::from_vec(Vec::new()));
    }
    let span = skip
        .checked_add(len)
        .and_then(|span| span.checked_next_multiple_of(PAGE_BYTES));
    let span = span.ok_or_else(|| too_long(stored_bytes))?;
    if span > READ_BYTES && start.saturating_add(span as u64) > file.len_bytes()? {
        // No memory for what can't be there, however long somebody says it is.
        let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        return Err(NvmeError::from_io(
            "read",
            file.name().as_str(),
            span as u64,
            error,
        ));
    }
    let target = aligned_buffer(span)?;
    let mut value = if target.len() <= READ_BYTES {
        file.read_blocking(start, target)?
    } else {
        read_parts(file, start, target)?
    };
    let mut value = value.split_off(skip);
    drop(value.split_off(len));
    Ok(value)
}

fn read_parts(
    file: &dyn VolumeFile,
    start: u64,
    target: BufferMut,
) -> Result<BufferMut, NvmeError> {
    let mut at = start;
    let reads: Vec<_> = target
        .split_into(READ_BYTES)
        .into_iter()
        .map(|part| {
            let offset = at;
            at += part.len() as u64;
            file.read(offset, part)
        })
        .collect();
    let mut whole: Option<BufferMut> = None;
    for read in reads {
        let part = read.wait()?;
        match &mut whole {
            None => whole = Some(part),
            Some(whole) => whole.unsplit(part).map_err(|_| NvmeError::Invalid {
                field: "read",
                reason: "the volume gave another buffer back than it took".to_owned(),
            })?,
        }
    }
    Ok(whole.unwrap_or_else(|| BufferMut::from_vec(Vec::new())))
}
