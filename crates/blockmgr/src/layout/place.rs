//! Places in memory.

use std::ops::Range;

/// A piece of memory that a layout needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Its length.
    pub len_bytes: usize,
    /// What its address must be a multiple of.
    pub alignment: usize,
}

/// Bytes of a block that lie together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockPiece {
    /// The region's number.
    pub region: usize,
    /// Where in the region.
    pub range_bytes: Range<usize>,
}

/// Where a layer of a block is: the element `[outer, token, head, dim]` begins `offset_bytes` and each index times its
/// stride behind the start of the region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerPlace {
    /// The region's number.
    pub region: usize,
    /// Of the first element.
    pub offset_bytes: usize,
    /// Planes, tokens, heads, elements of a head.
    pub extents: [usize; 4],
    /// Strides of the same, in bytes.
    pub strides_bytes: [usize; 4],
}
