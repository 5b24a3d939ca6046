//! What a compaction did.

use super::super::Damage;

/// What a compaction did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionReport {
    /// Segments out of which everything was moved.
    pub segments_compacted: u64,
    /// Segments given back, those that had died by themselves included.
    pub segments_removed: u64,
    /// Segments left alone because a map of them is in use.
    pub segments_pinned: u64,
    /// Values moved.
    pub values_moved: u64,
    /// Bytes of them as they are stored, with the gaps between them.
    pub bytes_moved: u64,
    /// Values that were put or deleted while they were moved, so that the move was in vain.
    pub moves_lost: u64,
    /// Values that stay where they are because the memory limit left no room to move them, for now.
    pub values_too_long: u64,
    /// What could not be read or was not what had been written. It stays where it is, and its segment too.
    pub damage: Vec<Damage>,
}
