//! How the memory that is set aside for compaction is divided.

use crate::format::PAGE_BYTES;

/// The part of all that the shorter uses get, each: one of so many.
const PART: usize = 8;
/// Bytes read at once where values are smaller, at most: neighbours come along.
const WINDOW_BYTES_MAX: usize = 512 << 10;
/// Bytes of keys and places that a search of the index finds at most.
const LIST_BYTES_MAX: usize = 1 << 20;

/// Bytes of memory for each of what a compaction holds at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    /// The header of a batch.
    pub(super) header_bytes: usize,
    /// Values that are read together with their neighbours.
    pub(super) window_bytes: usize,
    /// Keys and places of values that are to be moved.
    pub(super) list_bytes: usize,
    /// Values on their way, with what their commit takes.
    pub(super) values_bytes: u64,
}

impl Share {
    pub(super) fn of(memory_bytes: u64) -> Self {
        let part_bytes = memory_bytes as usize / PART;
        let header_bytes = part_bytes - part_bytes % PAGE_BYTES;
        let window_bytes = header_bytes.min(WINDOW_BYTES_MAX);
        let list_bytes = part_bytes.min(LIST_BYTES_MAX);
        let rest = memory_bytes as usize - header_bytes - window_bytes - list_bytes;
        Self {
            header_bytes,
            window_bytes,
            list_bytes,
            values_bytes: rest as u64,
        }
    }
}
