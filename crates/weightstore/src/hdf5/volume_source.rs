//! A file of a volume, read at any offset.

use std::io;
use std::sync::Arc;

use core_view::BufferMut;
use tier_nvme::{Alignment, VolumeFile};

use crate::ByteSource;

/// Reads through buffers that are aligned as the volume wants them.
#[derive(Debug)]
pub(super) struct VolumeSource {
    file: Arc<dyn VolumeFile>,
    len_bytes: u64,
}

impl VolumeSource {
    pub(super) fn new(file: Arc<dyn VolumeFile>) -> io::Result<Self> {
        let len_bytes = file.len_bytes().map_err(io::Error::other)?;
        Ok(Self { file, len_bytes })
    }
}

impl ByteSource for VolumeSource {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.len_bytes)
    }

    fn read_exact_at(&self, offset_bytes: u64, target: &mut [u8]) -> io::Result<()> {
        let end = offset_bytes.checked_add(target.len() as u64);
        if end.is_none_or(|end| end > self.len_bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if target.is_empty() {
            return Ok(());
        }
        let Alignment {
            memory_bytes,
            offset_bytes: unit,
        } = self.file.alignment();
        let skipped = (offset_bytes % unit as u64) as usize;
        let covered = (skipped + target.len()).next_multiple_of(unit);
        let buffer = BufferMut::zeroed(covered, memory_bytes).map_err(io::Error::other)?;
        let read = self
            .file
            .read_blocking(offset_bytes - skipped as u64, buffer)
            .map_err(io::Error::other)?;
        let found = read
            .get(skipped..skipped + target.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        target.copy_from_slice(found);
        Ok(())
    }
}
