//! The structures on disk, as bytes; `docs/formats/nvme.md` describes them.
//!
//! Everything here takes bytes that nobody has checked: lengths are compared before anything is
//! allocated, and a wrong byte is an error, never a panic.
#![deny(clippy::indexing_slicing)]

mod batch;
mod bytes;
mod checkpoint;
mod encoding;
mod segment;
pub(crate) mod slab;
mod superblock;
#[cfg(test)]
mod tests;
mod wal;

pub(crate) use batch::{
    BatchFields, BatchHeader, BatchPlace, Entry, EntryKind, EntryRef, KEY_BYTES_MAX, ValuePlace,
    value_alignment,
};
pub(crate) use checkpoint::{
    BLOCK_BYTES_MAX, BlockReader, BlockWriter, CheckpointHeader, IndexRecord, LEFT_OVER,
    SegmentRecord, SegmentTable, checkpoint_file_bytes,
};
pub(crate) use encoding::{Encoding, RAW_PER_STORED_MAX};
pub(crate) use segment::{SEGMENT_NAME_PREFIX, SegmentHeader, segment_id, segment_name};
pub(crate) use superblock::{FEATURE_MOVES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, Superblock};
pub(crate) use wal::{
    ChainLink, FILE_BYTES_MAX as WAL_FILE_BYTES_MAX, FILE_BYTES_MIN as WAL_FILE_BYTES_MIN,
    GROUP_BYTES_MAX, GROUP_HEADER_BYTES, GroupHeader, GroupPlace, Records, WalFileHeader,
    record_bytes, record_header,
};

/// Unit of placement in bytes.
pub(crate) const PAGE_BYTES: usize = 4096;

/// Newest version of each structure that is understood, and the one that is written.
pub(crate) const VERSION: u32 = 1;

/// Highest segment id, sequence and generation: no store lives to count that far, and the next number
/// exists.
pub(crate) const COUNT_MAX: u64 = u64::MAX >> 1;

/// Identifies a store, so that a file of another one is never taken for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreId(pub(crate) [u8; 16]);

/// Why bytes are not the structure that they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FormatError {
    /// The bytes are not a whole structure, or a field is out of range.
    Damaged(&'static str),
    /// The structure is of a version not known here.
    NewerVersion(u32),
}

impl FormatError {
    /// The reason in words.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Damaged(reason) => (*reason).to_owned(),
            Self::NewerVersion(version) => format!("unknown version {version}"),
        }
    }
}

/// CRC-32C of `bytes`.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// CRC-32C of bytes that come in parts.
pub(crate) struct Crc32c(crc_fast::Digest);

impl Default for Crc32c {
    fn default() -> Self {
        Self(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }
}

impl Crc32c {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(&self) -> u32 {
        self.0.finalize() as u32
    }
}

/// CRC-32C of several slices, one after the other.
pub(crate) fn crc32c_of<'a>(slices: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    for slice in slices {
        digest.update(slice);
    }
    digest.finalize() as u32
}

/// Rounds up to whole pages.
pub(crate) fn page_ceil(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(PAGE_BYTES as u64)
}
