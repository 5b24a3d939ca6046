//! The payload of a batch on its way to the device, piece by piece.

use std::collections::VecDeque;

use core_view::BufferMut;
use core_view::contract::Transfer;

use super::buffers::Buffers;
use crate::format::{Crc32c, PAGE_BYTES};
use crate::{NvmeError, VolumeFile};

/// Bytes that go to the device in one operation.
pub(super) const WRITE_BYTES: usize = 2 << 20;

/// Bytes of a batch's first operation, which has nothing to overlap with while it is put together. Each later
/// one is twice as long.
const FIRST_WRITE_BYTES: usize = 256 << 10;

/// Aligned values below this length are copied next to their neighbours: one long buffer is cheaper to
/// submit than many short ones.
pub(super) const COPY_BELOW_BYTES: usize = 32 << 10;

/// Bytes of copies that may be on their way at once.
pub(super) const STAGE_BYTES_MAX: usize = 8 << 20;

/// Whether a value goes to the device from where it is, but for a last page that is not full.
pub(super) fn goes_as_it_is(value: &BufferMut, memory_bytes: usize) -> bool {
    value.len() >= COPY_BELOW_BYTES && value.is_aligned_to(memory_bytes)
}

/// Writes values one after the other, each on a page, and takes their checksums on the way: while one piece is
/// being written, the checksum of the next is taken.
///
/// Where one operation ends and the next begins follows from the lengths of the values alone.
pub(super) struct PieceWriter<'a> {
    file: &'a dyn VolumeFile,
    buffers: &'a Buffers,
    memory_bytes: usize,
    /// Where the batch begins; its first buffer comes last.
    batch_offset_bytes: u64,
    /// Where the next operation goes.
    offset_bytes: u64,
    /// Copied bytes that are still to come: no more memory than that is taken.
    to_copy_bytes: usize,
    group: Vec<BufferMut>,
    group_bytes: usize,
    /// Bytes at which the group is submitted.
    group_bytes_max: usize,
    stage: Option<Stage>,
    staged_bytes: usize,
    group_staged_bytes: usize,
    writes: VecDeque<(Transfer<Vec<BufferMut>>, usize)>,
    failure: Option<NvmeError>,
}

/// Memory that copies go into, filled from its start.
struct Stage {
    block: BufferMut,
    filled_bytes: usize,
}

impl<'a> PieceWriter<'a> {
    /// Writes behind the first `front_bytes` of the batch at `batch_offset_bytes`; `to_copy_bytes` of the
    /// values do not go as they are.
    pub(super) fn new(
        file: &'a dyn VolumeFile,
        buffers: &'a Buffers,
        memory_bytes: usize,
        (batch_offset_bytes, front_bytes): (u64, usize),
        to_copy_bytes: usize,
    ) -> Self {
        Self {
            file,
            buffers,
            memory_bytes,
            batch_offset_bytes,
            offset_bytes: batch_offset_bytes + front_bytes as u64,
            to_copy_bytes,
            group: Vec::new(),
            group_bytes: 0,
            group_bytes_max: FIRST_WRITE_BYTES,
            stage: None,
            staged_bytes: 0,
            group_staged_bytes: 0,
            writes: VecDeque::new(),
            failure: None,
        }
    }

    /// Adds a value, and returns its checksum.
    ///
    /// # Errors
    /// [`NvmeError::Transfer`] if there is no memory to copy it to.
    pub(super) fn add(&mut self, value: BufferMut) -> Result<u32, NvmeError> {
        let as_it_is = goes_as_it_is(&value, self.memory_bytes);
        let mut checksum = Crc32c::default();
        let mut rest = value;
        while !rest.is_empty() {
            let room = self.group_bytes_max - self.group_bytes;
            let mut part = rest.split_to(rest.len().min(room));
            checksum.update(&part);
            if as_it_is {
                let tail = part.split_off(part.len() - part.len() % PAGE_BYTES);
                self.append(part);
                self.copy(&tail)?;
            } else {
                self.copy(&part)?;
            }
            if self.group_bytes >= self.group_bytes_max {
                self.submit();
                self.group_bytes_max = WRITE_BYTES.min(2 * self.group_bytes_max);
            }
        }
        Ok(checksum.finish())
    }

    /// Writes the first bytes of the batch, in one operation with the rest if that is short, and waits until
    /// everything is written.
    ///
    /// # Errors
    /// The failure of any of the writes, after all have ended.
    pub(super) fn finish(mut self, front: BufferMut) -> Result<(), NvmeError> {
        if self.writes.is_empty() && self.group_bytes + front.len() <= WRITE_BYTES {
            self.cut_stage();
            self.group.insert(0, front);
            let sources = std::mem::take(&mut self.group);
            let write = self.file.write_vectored(self.batch_offset_bytes, sources);
            self.writes.push_back((write, 0));
        } else {
            self.submit();
            let write = self
                .file
                .write_vectored(self.batch_offset_bytes, vec![front]);
            self.writes.push_back((write, 0));
        }
        self.wait_for_all()
    }

    /// Waits for what was submitted: the log may not move on while anything is in flight.
    pub(super) fn wait_for_all(mut self) -> Result<(), NvmeError> {
        while self.wait_for_one() {}
        self.failure.map_or(Ok(()), Err)
    }

    fn wait_for_one(&mut self) -> bool {
        let Some((write, staged_bytes)) = self.writes.pop_front() else {
            return false;
        };
        if let Err(failure) = write.wait() {
            self.failure.get_or_insert(NvmeError::from(failure));
        }
        self.staged_bytes -= staged_bytes;
        true
    }

    fn append(&mut self, part: BufferMut) {
        if !part.is_empty() {
            self.cut_stage();
            self.group_bytes += part.len();
            self.group.push(part);
        }
    }

    /// Copies bytes behind what was copied before, and zeros up to the end of the page.
    fn copy(&mut self, mut bytes: &[u8]) -> Result<(), NvmeError> {
        while !bytes.is_empty() {
            let mut stage = match self.stage.take() {
                Some(stage) => stage,
                None => self.new_stage()?,
            };
            let target = &mut stage.block[stage.filled_bytes..];
            let (now, later) = bytes.split_at(bytes.len().min(target.len()));
            let padded = now.len().next_multiple_of(PAGE_BYTES);
            target[..now.len()].copy_from_slice(now);
            target[now.len()..padded].fill(0);
            stage.filled_bytes += padded;
            self.group_bytes += padded;
            self.group_staged_bytes += padded;
            let is_full = stage.filled_bytes == stage.block.len();
            self.stage = Some(stage);
            if is_full {
                self.cut_stage();
                self.stage = None;
            }
            bytes = later;
        }
        Ok(())
    }

    fn new_stage(&mut self) -> Result<Stage, NvmeError> {
        while self.staged_bytes + WRITE_BYTES > STAGE_BYTES_MAX && self.wait_for_one() {}
        let len_bytes = self.to_copy_bytes.clamp(PAGE_BYTES, WRITE_BYTES);
        self.to_copy_bytes -= len_bytes.min(self.to_copy_bytes);
        Ok(Stage {
            block: self.buffers.lend_reserved(len_bytes)?,
            filled_bytes: 0,
        })
    }

    /// Appends what was copied to the group.
    fn cut_stage(&mut self) {
        if let Some(stage) = &mut self.stage
            && stage.filled_bytes > 0
        {
            self.group.push(stage.block.split_to(stage.filled_bytes));
            stage.filled_bytes = 0;
        }
    }

    fn submit(&mut self) {
        self.cut_stage();
        if self.group.is_empty() {
            return;
        }
        let sources = std::mem::take(&mut self.group);
        let write = self.file.write_vectored(self.offset_bytes, sources);
        let staged_bytes = std::mem::take(&mut self.group_staged_bytes);
        self.staged_bytes += staged_bytes;
        self.offset_bytes += std::mem::take(&mut self.group_bytes) as u64;
        self.writes.push_back((write, staged_bytes));
    }
}
