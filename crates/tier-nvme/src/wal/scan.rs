//! Reading groups from the files of a log.

use std::sync::Arc;

use core_view::BufferMut;

use super::files::{LogFile, page_buffer};
use crate::format::{FormatError, GroupHeader, GroupPlace, PAGE_BYTES, Records, StoreId};
use crate::{NvmeError, VolumeFile};

/// Bytes that are read at once while headers are looked for.
const WINDOW_BYTES: u64 = 256 << 10;

/// Reads one file, from the front to the back.
#[derive(Debug)]
pub(super) struct Scan {
    file: Arc<LogFile>,
    handle: Arc<dyn VolumeFile>,
    log_id: StoreId,
    /// How much of the file there is.
    end_bytes: u64,
    window_at: u64,
    window: Option<BufferMut>,
}

impl Scan {
    pub(super) fn new(file: &Arc<LogFile>, log_id: StoreId) -> Result<Self, NvmeError> {
        let handle = file.handle()?;
        let end_bytes = handle.len_bytes()?.min(file.file_bytes);
        Ok(Self {
            file: Arc::clone(file),
            handle,
            log_id,
            end_bytes,
            window_at: 0,
            window: None,
        })
    }

    pub(super) fn file(&self) -> &Arc<LogFile> {
        &self.file
    }

    pub(super) fn end_bytes(&self) -> u64 {
        self.end_bytes
    }

    /// The page at `offset_bytes`, `None` at the end of the file.
    pub(super) fn page(&mut self, offset_bytes: u64) -> Result<Option<&[u8]>, NvmeError> {
        let page = PAGE_BYTES as u64;
        if offset_bytes
            .checked_add(page)
            .is_none_or(|end| end > self.end_bytes)
        {
            return Ok(None);
        }
        let window_bytes = self.window.as_ref().map_or(0, |window| window.len() as u64);
        if offset_bytes < self.window_at || offset_bytes + page > self.window_at + window_bytes {
            let bytes = WINDOW_BYTES.min(self.end_bytes - offset_bytes);
            let target = match self.window.take() {
                Some(window) if window.len() as u64 == bytes - bytes % page => window,
                _ => page_buffer((bytes - bytes % page) as usize)?,
            };
            self.window = Some(self.handle.read_blocking(offset_bytes, target)?);
            self.window_at = offset_bytes;
        }
        let from = (offset_bytes - self.window_at) as usize;
        let window = self.window.as_deref().unwrap_or_default();
        Ok(window.get(from..from + PAGE_BYTES))
    }

    /// The header of the group at `offset_bytes`, if one belongs there and has room.
    pub(super) fn header(&mut self, offset_bytes: u64) -> Result<Option<GroupHeader>, NvmeError> {
        let place = GroupPlace {
            log_id: self.log_id,
            number: self.file.number,
            offset_bytes,
        };
        let end_bytes = self.end_bytes;
        let Some(page) = self.page(offset_bytes)? else {
            return Ok(None);
        };
        let header = GroupHeader::decode(page, &place).ok();
        Ok(header.filter(|header| header.end_bytes() <= end_bytes))
    }

    /// All of a group, whose header was read from this file.
    pub(super) fn group(&self, header: &GroupHeader) -> Result<BufferMut, NvmeError> {
        let target = page_buffer(header.disk_bytes() as usize)?;
        Ok(self
            .handle
            .read_blocking(header.place.offset_bytes, target)?)
    }

    /// Writes a group again.
    pub(super) fn rewrite(&self, header: &GroupHeader) -> Result<(), NvmeError> {
        let group = self.group(header)?;
        self.handle.write(header.place.offset_bytes, group).wait()?;
        Ok(())
    }

    /// What a group that can't be used is reported as.
    pub(super) fn corrupt(&self, offset_bytes: u64, reason: &str) -> NvmeError {
        NvmeError::Corrupt {
            structure: "log group",
            location: format!("{} at {offset_bytes}", self.file.name),
            reason: reason.to_owned(),
        }
    }
}

/// Checks every record of a group.
pub(super) fn check_group(header: &GroupHeader, group: &[u8]) -> Result<(), FormatError> {
    Records::check(header, group)
}
