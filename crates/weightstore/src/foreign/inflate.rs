//! Content that is inflated as it is read.

use std::collections::BTreeMap;
use std::io;

use flate2::{Decompress, FlushDecompress, Status};

use super::archive::damaged;
use super::directory::Entry;
use crate::ByteSource;

/// Bytes that are inflated at once and kept together.
const BLOCK_LEN: usize = 1 << 20;
/// Blocks that are kept at most: reads may be that far behind the foremost one.
const BLOCKS_KEPT: usize = 36;
/// Compressed bytes that are read at once.
const INPUT_LEN: usize = 1 << 16;

/// A stretch of content that was not read to its end yet.
struct Block {
    bytes: Vec<u8>,
    /// How many of them were read.
    delivered: usize,
}

/// What was inflated of an entry so far, and not read.
///
/// Content is inflated once if it is read once, in about the order of the file; who reads a part again has
/// it inflated again from the start.
pub(super) struct Inflater {
    decompress: Decompress,
    input: Vec<u8>,
    /// Where in `input` the next byte is.
    input_at: usize,
    /// Compressed bytes that were read.
    taken: u64,
    /// By their number.
    blocks: BTreeMap<u64, Block>,
    /// Bytes of the content that were inflated.
    produced: u64,
    crc: crc_fast::Digest,
}

impl Inflater {
    pub(super) fn new() -> Self {
        Self {
            decompress: Decompress::new(false),
            input: Vec::new(),
            input_at: 0,
            taken: 0,
            blocks: BTreeMap::new(),
            produced: 0,
            crc: crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32IsoHdlc),
        }
    }

    /// Fills `target` from an offset in the content, which it lies in.
    pub(super) fn read(
        &mut self,
        source: &dyn ByteSource,
        entry: &Entry,
        offset: u64,
        target: &mut [u8],
    ) -> io::Result<()> {
        let (mut at, mut rest) = (offset, target);
        while !rest.is_empty() {
            let number = at / BLOCK_LEN as u64;
            if at >= self.produced {
                self.next_block(source, entry)?;
                continue;
            }
            let Some(block) = self.blocks.get_mut(&number) else {
                *self = Self::new();
                continue;
            };
            let found = block.bytes.get((at % BLOCK_LEN as u64) as usize..);
            let found = found.unwrap_or_default();
            let (part, after) = rest.split_at_mut(found.len().min(rest.len()));
            part.copy_from_slice(found.get(..part.len()).unwrap_or_default());
            block.delivered += part.len();
            if block.delivered >= block.bytes.len() {
                self.blocks.remove(&number);
            }
            at += part.len() as u64;
            rest = after;
        }
        Ok(())
    }

    /// Whether all content was inflated, compared with its checksum and read, but for the first block.
    pub(super) fn is_spent(&self, entry: &Entry) -> bool {
        self.produced == entry.len_bytes && self.blocks.keys().all(|number| *number == 0)
    }

    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.blocks.values().map(|block| block.bytes.len()).sum()
    }

    fn next_block(&mut self, source: &dyn ByteSource, entry: &Entry) -> io::Result<()> {
        let left = entry.len_bytes - self.produced;
        let len = left.min(BLOCK_LEN as u64) as usize;
        if len == 0 {
            return Err(damaged(entry, "ends before it is read"));
        }
        let mut block = vec![0; len];
        let mut filled = 0;
        while filled < len {
            let room = block.get_mut(filled..).unwrap_or_default();
            match self.inflate(source, entry, room)? {
                (0, true) => return Err(damaged(entry, "inflates to fewer bytes than it claims")),
                (made, _) => filled += made,
            }
        }
        self.crc.update(&block);
        let number = self.produced / BLOCK_LEN as u64;
        self.produced += len as u64;
        let block = Block {
            bytes: block,
            delivered: 0,
        };
        self.blocks.insert(number, block);
        if self.blocks.len() > BLOCKS_KEPT {
            self.blocks.pop_first();
        }
        if self.produced == entry.len_bytes {
            self.check_end(source, entry)?;
        }
        Ok(())
    }

    /// Inflates some bytes; returns how many, and whether it was the end.
    fn inflate(
        &mut self,
        source: &dyn ByteSource,
        entry: &Entry,
        room: &mut [u8],
    ) -> io::Result<(usize, bool)> {
        loop {
            if self.input_at == self.input.len() && self.taken < entry.stored_len {
                let len = (entry.stored_len - self.taken).min(INPUT_LEN as u64) as usize;
                self.input.resize(len, 0);
                source.read_exact_at(entry.start + self.taken, &mut self.input)?;
                self.taken += len as u64;
                self.input_at = 0;
            }
            let input = self.input.get(self.input_at..).unwrap_or_default();
            let (before_in, before_out) = (self.decompress.total_in(), self.decompress.total_out());
            let status = self
                .decompress
                .decompress(input, room, FlushDecompress::None)
                .map_err(|_| damaged(entry, "is not what DEFLATE writes"))?;
            let used = (self.decompress.total_in() - before_in) as usize;
            let made = (self.decompress.total_out() - before_out) as usize;
            self.input_at += used;
            let ended = matches!(status, Status::StreamEnd);
            if made > 0 || ended {
                return Ok((made, ended));
            }
            if used == 0 && self.taken == entry.stored_len {
                return Ok((0, true));
            }
        }
    }

    fn check_end(&mut self, source: &dyn ByteSource, entry: &Entry) -> io::Result<()> {
        let mut beyond = [0; 1];
        if !matches!(self.inflate(source, entry, &mut beyond)?, (0, true)) {
            return Err(damaged(entry, "inflates to more bytes than it claims"));
        }
        match entry.crc {
            Some(crc) if self.crc.finalize() as u32 != crc => Err(damaged(
                entry,
                "does not have the checksum of the directory",
            )),
            _ => Ok(()),
        }
    }
}
