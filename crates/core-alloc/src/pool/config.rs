//! How much a pool may keep.

use super::size_class::SizeClasses;
use crate::slots::SLOTS_MAX;
use crate::{Alignment, StorageError};

/// The largest block that a pool can be told to keep.
const BLOCK_MAX_BYTES: usize = 1 << 46;

/// The bounds of a [`Pool`](super::Pool).
#[derive(Debug, Clone, Copy)]
pub struct PoolConfig {
    retained_max_bytes: usize,
    blocks_max: u32,
    block_max_bytes: usize,
    alignment: Option<Alignment>,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            retained_max_bytes: 1 << 30,
            blocks_max: 1 << 20,
            block_max_bytes: 1 << 30,
            alignment: None,
        }
    }
}

impl PoolConfig {
    /// The most bytes of blocks that are kept for reuse, those in use at the time included: 1 GiB
    /// by default. Blocks above it are freed when they are given back.
    #[must_use]
    pub fn with_retained_max_bytes(mut self, retained_max_bytes: usize) -> Self {
        self.retained_max_bytes = retained_max_bytes;
        self
    }

    /// The most blocks that are kept for reuse, those in use included: 2²⁰ by default.
    #[must_use]
    pub fn with_blocks_max(mut self, blocks_max: u32) -> Self {
        self.blocks_max = blocks_max;
        self
    }

    /// The largest request that is served from kept blocks: 1 GiB by default. Larger ones go straight
    /// to the allocator inside, at their exact size.
    #[must_use]
    pub fn with_block_max_bytes(mut self, block_max_bytes: usize) -> Self {
        self.block_max_bytes = block_max_bytes;
        self
    }

    /// What block sizes are multiples of: by default the alignment of the allocator inside. Requests
    /// of at least eight times this waste at most an eighth.
    #[must_use]
    pub fn with_alignment(mut self, alignment: Alignment) -> Self {
        self.alignment = Some(alignment);
        self
    }

    pub(super) fn retained_max_bytes(&self) -> usize {
        self.retained_max_bytes
    }

    pub(super) fn blocks_max(&self) -> u32 {
        self.blocks_max
    }

    pub(super) fn classes(
        &self,
        inner_alignment_bytes: usize,
    ) -> Result<SizeClasses, StorageError> {
        let invalid = |field, reason| Err(StorageError::InvalidConfig { field, reason });
        if self.blocks_max > SLOTS_MAX {
            return invalid(
                "blocks_max",
                format!("{} is above {SLOTS_MAX}", self.blocks_max),
            );
        }
        if !(1..=BLOCK_MAX_BYTES).contains(&self.block_max_bytes) {
            let reason = format!(
                "{} is not from 1 to {BLOCK_MAX_BYTES}",
                self.block_max_bytes
            );
            return invalid("block_max_bytes", reason);
        }
        let granule = match self.alignment {
            Some(alignment) => alignment,
            None => Alignment::new(inner_alignment_bytes)?,
        };
        if granule.bytes() > BLOCK_MAX_BYTES {
            return invalid("alignment", format!("{} is too large", granule.bytes()));
        }
        Ok(SizeClasses::new(granule.bytes(), self.block_max_bytes))
    }
}
