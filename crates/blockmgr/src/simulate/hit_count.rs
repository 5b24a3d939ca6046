//! What a simulation counts.

use std::ops::AddAssign;

/// Blocks asked for and blocks found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HitCount {
    /// Requests.
    pub requests: u64,
    /// Blocks of all requests.
    pub blocks: u64,
    /// Blocks in the leading runs that were found.
    pub hits: u64,
}

impl HitCount {
    /// Hits by blocks; 0 without blocks.
    pub fn rate(&self) -> f64 {
        if self.blocks == 0 {
            0.0
        } else {
            self.hits as f64 / self.blocks as f64
        }
    }

    pub(super) fn add(&mut self, blocks: usize, hits: usize) {
        *self += Self {
            requests: 1,
            blocks: blocks as u64,
            hits: hits as u64,
        };
    }
}

impl AddAssign for HitCount {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.blocks += other.blocks;
        self.hits += other.hits;
    }
}
