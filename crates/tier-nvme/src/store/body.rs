//! Reading the body of a checkpoint from front to back.

use std::sync::Arc;

use super::NvmeError;
use super::scan::ScanMemory;
use super::stream::Stream;
use crate::VolumeFile;
use crate::format::{
    BLOCK_BYTES_MAX, BlockReader, CheckpointHeader, FormatError, IndexRecord, LEFT_OVER,
    PAGE_BYTES, SegmentTable,
};

/// Why a body can't be had.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is not what was written.
    Damaged(FormatError),
    /// It can't be read.
    Failed(NvmeError),
}

impl From<FormatError> for Unread {
    fn from(error: FormatError) -> Self {
        Self::Damaged(error)
    }
}

impl From<NvmeError> for Unread {
    fn from(error: NvmeError) -> Self {
        Self::Failed(error)
    }
}

/// Whole records of a body.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u64,
}

/// A body of which the segments are known.
pub(super) struct Body {
    blocks: Blocks,
    pub(super) segments: Arc<SegmentTable>,
    /// Entries that were not handed on yet.
    left: u64,
    /// Bytes that were read and not handed on.
    pending: Vec<u8>,
    /// Bytes of records that are handed on at once: those of several shards, so that two who take them in seldom meet.
    piece_bytes: usize,
}

impl Body {
    /// Checks the numbers of the header and reads the segments.
    pub(super) fn open(
        file: Arc<dyn VolumeFile>,
        header: &CheckpointHeader,
        segment_bytes: u64,
        memory: &ScanMemory,
    ) -> Result<Self, Unread> {
        header.check_numbers(segment_bytes)?;
        let file_bytes = header.file_bytes();
        let len_bytes = file.len_bytes()?;
        let file_bytes = file_bytes
            .filter(|&bytes| bytes <= len_bytes)
            .ok_or(FormatError::Damaged("the file is too short"))?;
        let mut blocks = Blocks {
            stream: Stream::new(file, file_bytes, memory.windows()),
            reader: BlockReader::new(header),
            at: PAGE_BYTES as u64,
        };
        blocks.stream.read_all();
        let mut pending = Vec::new();
        // It grows by what is there, whatever is claimed.
        while (pending.len() as u64) < header.segment_record_bytes() && blocks.read(&mut pending)? {
        }
        let mut rest = pending.as_slice();
        let segments = SegmentTable::decode(header, &mut rest, segment_bytes)?;
        let rest = rest.to_vec();
        let piece_bytes = memory.piece_bytes();
        let mut pending = Vec::with_capacity(rest.len().max(piece_bytes) + BLOCK_BYTES_MAX);
        pending.extend_from_slice(&rest);
        Ok(Self {
            blocks,
            segments: Arc::new(segments),
            left: header.entry_count,
            pending,
            piece_bytes,
        })
    }

    /// The next records, whose contents nobody has looked at; `None` once all are there and nothing is left over.
    pub(super) fn next_records(&mut self) -> Result<Option<Records>, Unread> {
        while self.pending.len() < self.piece_bytes && self.blocks.read(&mut self.pending)? {}
        let (count, end) = IndexRecord::whole(&self.pending);
        if count == 0 {
            if self.left > 0 {
                return Err(FormatError::Damaged("it ends inside a field").into());
            }
            if !self.pending.is_empty() {
                return Err(FormatError::Damaged(LEFT_OVER).into());
            }
            return Ok(None);
        }
        self.left = self
            .left
            .checked_sub(count)
            .ok_or(FormatError::Damaged(LEFT_OVER))?;
        let mut bytes = Vec::with_capacity(self.piece_bytes + BLOCK_BYTES_MAX);
        bytes.extend_from_slice(self.pending.get(end..).unwrap_or_default());
        std::mem::swap(&mut bytes, &mut self.pending);
        bytes.truncate(end);
        Ok(Some(Records { bytes, count }))
    }
}

/// The blocks of a body.
struct Blocks {
    stream: Stream,
    reader: BlockReader,
    at: u64,
}

impl Blocks {
    /// Appends the next block; `false` if there is none.
    fn read(&mut self, target: &mut Vec<u8>) -> Result<bool, Unread> {
        let too_short = FormatError::Damaged("the body is shorter than the header says");
        let start = self
            .stream
            .bytes_at(self.at, BlockReader::HEADER_BYTES as u64)?;
        let start = match start {
            Some(start) => start,
            // Behind the last one there may be nothing.
            None => &[],
        };
        let Some(len_bytes) = self.reader.next_bytes(start)? else {
            return Ok(false);
        };
        let block = self.stream.bytes_at(self.at, len_bytes as u64)?;
        target.extend_from_slice(self.reader.open(block.ok_or(too_short)?)?);
        self.at += len_bytes as u64;
        Ok(true)
    }
}
