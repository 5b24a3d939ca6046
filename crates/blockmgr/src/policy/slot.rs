//! The number of a place in a pool.

/// A place for one block, counted from 0 within its pool (or shard).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u32);

impl Slot {
    /// The place number `index`.
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The number, for indexing arrays.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}
