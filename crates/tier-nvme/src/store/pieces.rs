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

/// Whether so many bytes side by side are worth a buffer of their own.
pub(super) fn is_long(len_bytes: usize) -> bool {
    len_bytes >= COPY_BELOW_BYTES
}

/// Bytes of a value that are copied, with what fills its last page.
pub(super) fn copied_bytes(len_bytes: usize, goes_as_it_is: bool) -> usize {
    let whole_bytes = len_bytes.next_multiple_of(PAGE_BYTES);
    match goes_as_it_is {
        true => whole_bytes - (len_bytes - len_bytes % PAGE_BYTES),
        false => whole_bytes,
    }
}

/// Tells which values go to the device from where they are, but for a last page that is not full, and how many
/// bytes of all of them are copied. Values that lie side by side in memory count as one.
pub(super) fn tell_runs(values: &[(usize, BufferMut)], memory_bytes: usize) -> (Vec<bool>, usize) {
    let mut as_they_are = Vec::with_capacity(values.len());
    let mut copied = 0;
    let follows = |(_, value): &(usize, BufferMut), (_, next): &(usize, BufferMut)| {
        value.len().is_multiple_of(PAGE_BYTES) && value.as_ptr_range().end == next.as_ptr()
    };
    for run in values.chunk_by(follows) {
        let run_bytes = run.iter().map(|(_, value)| value.len()).sum();
        let is_aligned = run
            .iter()
            .all(|(_, value)| value.is_aligned_to(memory_bytes));
        let goes_as_it_is = is_long(run_bytes) && is_aligned;
        for (_, value) in run {
            as_they_are.push(goes_as_it_is);
            copied += copied_bytes(value.len(), goes_as_it_is);
        }
    }
    (as_they_are, copied)
}

/// Writes values one after the other, each on a page, and takes the checksums that are not known on the way: while one
/// piece is being written, the checksum of the next is taken.
///
/// Where one operation ends and the next begins follows from the lengths of the values alone.
pub(super) struct PieceWriter<'a> {
    file: &'a dyn VolumeFile,
    buffers: &'a Buffers,
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
    /// What was copied: giving it back costs time that the device need not wait for.
    copied: Vec<BufferMut>,
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
        (batch_offset_bytes, front_bytes): (u64, usize),
        to_copy_bytes: usize,
    ) -> Self {
        Self {
            file,
            buffers,
            batch_offset_bytes,
            offset_bytes: batch_offset_bytes + front_bytes as u64,
            to_copy_bytes,
            group: Vec::new(),
            group_bytes: 0,
            group_bytes_max: FIRST_WRITE_BYTES,
            stage: None,
            staged_bytes: 0,
            group_staged_bytes: 0,
            copied: Vec::new(),
            writes: VecDeque::new(),
            failure: None,
        }
    }

    /// Adds a value, which goes as it is or is copied, and returns its checksum, which may be `known`.
    ///
    /// # Errors
    /// [`NvmeError::Transfer`] if there is no memory to copy it to.
    pub(super) fn add(
        &mut self,
        value: BufferMut,
        as_it_is: bool,
        known: Option<u32>,
    ) -> Result<u32, NvmeError> {
        let mut checksum = Crc32c::default();
        let is_taken = known.is_none() || cfg!(debug_assertions);
        let mut rest = Some(value);
        while let Some(mut part) = rest.take() {
            let room = self.group_bytes_max - self.group_bytes;
            if part.len() > room {
                rest = Some(part.split_off(room));
            }
            if is_taken {
                checksum.update(&part);
            }
            let tail_bytes = match as_it_is {
                true => part.len() % PAGE_BYTES,
                false => part.len(),
            };
            if tail_bytes > 0 {
                self.append_with_tail(part, tail_bytes)?;
            } else {
                self.append(part);
            }
            if self.group_bytes >= self.group_bytes_max {
                self.submit();
                self.group_bytes_max = WRITE_BYTES.min(2 * self.group_bytes_max);
            }
        }
        match known {
            Some(known) => {
                debug_assert_eq!(known, checksum.finish());
                Ok(known)
            }
            None => Ok(checksum.finish()),
        }
    }

    /// Adds a part of which the last bytes are copied.
    fn append_with_tail(
        &mut self,
        mut part: BufferMut,
        tail_bytes: usize,
    ) -> Result<(), NvmeError> {
        let tail = match part.len() - tail_bytes {
            0 => part,
            at => {
                let tail = part.split_off(at);
                self.append(part);
                tail
            }
        };
        self.copy(&tail)?;
        self.copied.push(tail);
        Ok(())
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
        self.copied.clear();
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
        self.cut_stage();
        self.group_bytes += part.len();
        let part = match self.group.last_mut() {
            Some(last) => last.unsplit(part).err(),
            None => Some(part),
        };
        self.group.extend(part);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(len_bytes: usize) -> BufferMut {
        BufferMut::zeroed(len_bytes, PAGE_BYTES).unwrap()
    }

    fn told(values: Vec<BufferMut>) -> (Vec<bool>, usize) {
        let values: Vec<_> = values.into_iter().enumerate().collect();
        tell_runs(&values, PAGE_BYTES)
    }

    #[test]
    fn short_values_side_by_side_go_as_they_are() {
        let count = COPY_BELOW_BYTES / PAGE_BYTES;
        let parts = || memory(COPY_BELOW_BYTES).split_into(PAGE_BYTES);
        assert_eq!(told(parts()), (vec![true; count], 0));
        let mut reversed = parts();
        reversed.reverse();
        assert_eq!(told(reversed), (vec![false; count], COPY_BELOW_BYTES));
        let mut fewer = parts();
        fewer.pop();
        let bytes = COPY_BELOW_BYTES - PAGE_BYTES;
        assert_eq!(told(fewer), (vec![false; count - 1], bytes));
    }

    #[test]
    fn a_page_that_is_not_full_ends_a_run() {
        let mut first = memory(2 * COPY_BELOW_BYTES);
        let mut second = first.split_off(COPY_BELOW_BYTES + 100);
        let third = second.split_off(COPY_BELOW_BYTES - 100 - PAGE_BYTES);
        assert!(third.is_aligned_to(PAGE_BYTES) && !second.is_aligned_to(PAGE_BYTES));
        let copied = PAGE_BYTES + (COPY_BELOW_BYTES - PAGE_BYTES) + PAGE_BYTES;
        assert_eq!(
            told(vec![first, second, third]),
            (vec![true, false, false], copied)
        );
    }
}
