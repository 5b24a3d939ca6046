//! Records that are written, synced and acknowledged together, while they are in memory.

use std::sync::Arc;

use core_view::BufferMut;
use crc_fast::{CrcAlgorithm, Digest};

use super::Lsn;
use super::files::LogFile;
use super::followers::{Acknowledgement, Announcement, Followers};
use super::scan::check_group;
use crate::NvmeError;
use crate::format::{
    ChainLink, GROUP_HEADER_BYTES, GroupHeader, GroupPlace, PAGE_BYTES, StoreId, record_bytes,
    record_header,
};

/// Unit in which memory for groups is taken.
pub(super) const CHUNK_BYTES: usize = 128 << 10;

/// Memory for groups, used again and again.
#[derive(Debug, Default)]
pub(super) struct ChunkPool {
    free: Vec<BufferMut>,
    used: usize,
}

impl ChunkPool {
    /// Bytes of the chunks that are in use.
    pub(super) fn used_bytes(&self) -> usize {
        self.used * CHUNK_BYTES
    }

    fn take(&mut self) -> Result<BufferMut, NvmeError> {
        let chunk = match self.free.pop() {
            Some(chunk) => chunk,
            None => BufferMut::zeroed(CHUNK_BYTES, PAGE_BYTES)
                .map_err(|error| NvmeError::Transfer(error.into()))?,
        };
        self.used += 1;
        Ok(chunk)
    }

    /// Takes chunks back, and keeps as many as `keep_bytes` allow.
    pub(super) fn give_back(&mut self, chunks: Vec<BufferMut>, keep_bytes: usize) {
        self.used -= chunks.len();
        for chunk in chunks {
            if (self.free.len() + self.used + 1) * CHUNK_BYTES <= keep_bytes.max(CHUNK_BYTES) {
                self.free.push(chunk);
            }
        }
    }
}

/// A group that takes records.
#[derive(Debug)]
pub(super) struct OpenGroup {
    pub(super) file: Arc<LogFile>,
    pub(super) offset_bytes: u64,
    chunks: Vec<BufferMut>,
    len_bytes: usize,
    first_lsn: u64,
    record_count: u32,
    records_digest: Digest,
    acknowledgements: Vec<Acknowledgement>,
    followers: Option<Arc<Followers>>,
    /// Written though it has no records: it says that what came before is durable.
    pub(super) is_mark: bool,
}

/// A group on its way to the device.
#[derive(Debug)]
pub(super) struct SealedGroup {
    pub(super) file: Arc<LogFile>,
    pub(super) header: GroupHeader,
    /// The file's header, if the group is its first.
    pub(super) file_header: Option<ChainLink>,
    pub(super) chunks: Vec<BufferMut>,
    /// What the last chunk has behind the group.
    pub(super) unused: Option<BufferMut>,
    pub(super) acknowledgements: Vec<Acknowledgement>,
}

impl OpenGroup {
    pub(super) fn new(file: Arc<LogFile>, offset_bytes: u64, first_lsn: u64) -> Self {
        Self {
            file,
            offset_bytes,
            chunks: Vec::new(),
            len_bytes: GROUP_HEADER_BYTES,
            first_lsn,
            record_count: 0,
            records_digest: Digest::new(CrcAlgorithm::Crc32Iscsi),
            acknowledgements: Vec::new(),
            followers: None,
            is_mark: false,
        }
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.record_count == 0 && !self.is_mark
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    pub(super) fn next_lsn(&self) -> u64 {
        self.first_lsn + u64::from(self.record_count)
    }

    /// Where the next group begins.
    pub(super) fn end_bytes(&self) -> u64 {
        let len = if self.is_empty() { 0 } else { self.len_bytes };
        self.offset_bytes + len.next_multiple_of(PAGE_BYTES) as u64
    }

    /// Takes the memory that `more_bytes` of records need; nothing changes if it can't be had.
    pub(super) fn reserve(
        &mut self,
        pool: &mut ChunkPool,
        more_bytes: usize,
    ) -> Result<(), NvmeError> {
        let before = self.chunks.len();
        while self.chunks.len() * CHUNK_BYTES < self.len_bytes + more_bytes {
            match pool.take() {
                Ok(chunk) => self.chunks.push(chunk),
                Err(error) => {
                    pool.give_back(self.chunks.split_off(before), 0);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Copies a record in; its memory was reserved.
    pub(super) fn push(&mut self, log_id: StoreId, payload: &[u8]) -> Lsn {
        let lsn = self.next_lsn();
        let header = record_header(log_id, lsn, payload);
        self.records_digest.update(&header);
        let begin = self.len_bytes;
        self.copy(begin, &header);
        self.copy(begin + header.len(), payload);
        let end = begin + record_bytes(payload.len()).unwrap_or(0);
        let padding = end - begin - header.len() - payload.len();
        self.copy(end - padding, &[0; 8][..padding]);
        self.len_bytes = end;
        self.record_count += 1;
        Lsn::new(lsn)
    }

    /// Remembers whom to tell when the group is durable.
    pub(super) fn acknowledge(&mut self, acknowledgement: Acknowledgement) {
        self.acknowledgements.push(acknowledgement);
    }

    /// Where to wait for the group.
    pub(super) fn follow(&mut self) -> Arc<Followers> {
        let acknowledgements = &mut self.acknowledgements;
        let followers = self.followers.get_or_insert_with(|| {
            let (announcement, followers) = Announcement::new();
            acknowledgements.push(Acknowledgement::Followers(announcement));
            followers
        });
        Arc::clone(followers)
    }

    fn copy(&mut self, mut at: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let chunk = &mut self.chunks[at / CHUNK_BYTES][at % CHUNK_BYTES..];
            let (part, rest) = bytes.split_at(bytes.len().min(chunk.len()));
            chunk[..part.len()].copy_from_slice(part);
            at += part.len();
            bytes = rest;
        }
    }

    /// Ends the group, which follows `link`.
    pub(super) fn seal(
        mut self,
        log_id: StoreId,
        life: u64,
        link: ChainLink,
        synced_sequence: u64,
    ) -> SealedGroup {
        let mut header = GroupHeader {
            place: GroupPlace {
                log_id,
                number: self.file.number,
                offset_bytes: self.offset_bytes,
            },
            sequence: link.sequence + 1,
            synced_sequence,
            first_lsn: self.first_lsn,
            life,
            previous_checksum: link.checksum,
            record_count: self.record_count,
            group_bytes: self.len_bytes as u32,
            records_checksum: self.records_digest.finalize() as u32,
            checksum: 0,
        };
        let bytes = header.encode();
        self.copy(0, &bytes);
        let end = self.len_bytes.next_multiple_of(PAGE_BYTES);
        let padding = end - self.len_bytes;
        self.copy(self.len_bytes, &[0; PAGE_BYTES][..padding]);
        let last_bytes = end - (self.chunks.len().saturating_sub(1)) * CHUNK_BYTES;
        let unused = match self.chunks.last_mut() {
            Some(last) if last_bytes < last.len() => Some(last.split_off(last_bytes)),
            _ => None,
        };
        let is_first = self.offset_bytes == PAGE_BYTES as u64;
        SealedGroup {
            file: self.file,
            header,
            file_header: is_first.then_some(link),
            chunks: self.chunks,
            unused,
            acknowledgements: self.acknowledgements,
        }
    }

    /// Gives up the group: its memory, and whom to tell.
    pub(super) fn into_parts(self) -> (Vec<BufferMut>, Vec<Acknowledgement>) {
        (self.chunks, self.acknowledgements)
    }
}

impl SealedGroup {
    /// The memory that is to be written, and the rest.
    pub(super) fn split(mut self) -> (Vec<BufferMut>, Self) {
        (std::mem::take(&mut self.chunks), self)
    }

    /// With the memory that came back.
    pub(super) fn with_chunks(self, chunks: Vec<BufferMut>) -> Self {
        Self { chunks, ..self }
    }

    /// Whether memory that came back from a write that was refused still holds the group.
    pub(super) fn is_whole(&self) -> bool {
        let mut bytes = Vec::with_capacity(self.header.disk_bytes() as usize);
        self.chunks
            .iter()
            .for_each(|chunk| bytes.extend_from_slice(chunk));
        let end = self.header.group_bytes as usize;
        bytes.len() as u64 == self.header.disk_bytes()
            && bytes.starts_with(&self.header.clone().encode())
            && check_group(&self.header, &bytes).is_ok()
            && bytes.iter().skip(end).all(|&byte| byte == 0)
    }

    /// The memory, and whom to tell.
    pub(super) fn into_parts(self) -> (Vec<BufferMut>, Vec<Acknowledgement>) {
        let mut chunks = self.chunks;
        if let (Some(last), Some(unused)) = (chunks.last_mut(), self.unused)
            && last.unsplit(unused).is_err()
        {
            // Never so: they were one buffer. A shorter chunk would be of no use.
            let last = chunks.len() - 1;
            chunks.truncate(last);
        }
        (chunks, self.acknowledgements)
    }
}
