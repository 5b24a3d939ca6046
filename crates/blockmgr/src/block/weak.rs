//! Blocks that may be gone.

use super::ImmutableBlock;
use crate::SequenceHash;
use crate::pool::WeakShare;

/// Remembers a registered block without keeping it.
#[derive(Debug, Clone)]
pub struct WeakBlock {
    core: WeakShare,
    slot: u32,
    generation: u32,
    hash: SequenceHash,
}

impl WeakBlock {
    pub(super) fn new(core: WeakShare, slot: u32, generation: u32, hash: SequenceHash) -> Self {
        Self {
            core,
            slot,
            generation,
            hash,
        }
    }

    /// Who the block is or was.
    pub fn sequence_hash(&self) -> SequenceHash {
        self.hash
    }

    /// The block, if the pool still has it, here or in another slot. `None` once it left, or the pool is gone.
    pub fn upgrade(&self) -> Option<ImmutableBlock> {
        let core = self.core.upgrade()?;
        if core.upgrade(self.slot, self.generation, self.hash) {
            return Some(ImmutableBlock::new(core, self.slot));
        }
        let slot = core.match_one(self.hash)?;
        Some(ImmutableBlock::new(core, slot))
    }
}
