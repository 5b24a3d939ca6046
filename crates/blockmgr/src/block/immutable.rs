//! Blocks that are registered and in use.

use std::fmt;

use core_view::contract::SlotId;

use super::WeakBlock;
use crate::pool::Share;
use crate::{BlockPool, SequenceHash};

/// A registered block, kept in its place while this or a clone of it lives. After the last is dropped, the block
/// stays in the pool until it is evicted.
pub struct ImmutableBlock {
    core: Share,
    slot: u32,
}

impl ImmutableBlock {
    /// Takes over one use of a registered block.
    pub(crate) fn new(core: Share, slot: u32) -> Self {
        Self { core, slot }
    }

    /// The slot whose memory the block has.
    pub fn slot(&self) -> SlotId {
        SlotId(self.slot)
    }

    /// Whether the block belongs to this pool.
    pub fn is_of(&self, pool: &BlockPool) -> bool {
        pool.is(&self.core)
    }

    /// Who it is.
    pub fn sequence_hash(&self) -> SequenceHash {
        self.core.identity(self.slot)
    }

    /// A handle that doesn't keep the block.
    pub fn downgrade(&self) -> WeakBlock {
        let generation = self.core.generation(self.slot);
        WeakBlock::new(
            self.core.downgrade(),
            self.slot,
            generation,
            self.sequence_hash(),
        )
    }
}

impl Clone for ImmutableBlock {
    fn clone(&self) -> Self {
        self.core.retain(&[self.slot]);
        Self::new(self.core.clone(), self.slot)
    }
}

impl Drop for ImmutableBlock {
    fn drop(&mut self) {
        self.core.release(&[self.slot]);
    }
}

impl fmt::Debug for ImmutableBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImmutableBlock")
            .field("slot", &self.slot())
            .field("sequence_hash", &self.sequence_hash())
            .finish_non_exhaustive()
    }
}

/// Registered blocks of one pool, in the order of their sequence, kept in their places while this or a clone of it
/// lives.
pub struct ImmutableBlocks {
    core: Share,
    slots: Vec<u32>,
}

impl ImmutableBlocks {
    /// Takes over one use of each of these registered blocks.
    pub(crate) fn new(core: Share, slots: Vec<u32>) -> Self {
        Self { core, slots }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The slots whose memory the blocks have, in order.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = SlotId> + '_ {
        self.slots.iter().map(|&slot| SlotId(slot))
    }

    /// Who they are, in order.
    pub fn sequence_hashes(&self) -> impl ExactSizeIterator<Item = SequenceHash> + '_ {
        self.slots.iter().map(|&slot| self.core.identity(slot))
    }

    /// A handle to one of them.
    pub fn get(&self, index: usize) -> Option<ImmutableBlock> {
        let slot = *self.slots.get(index)?;
        self.core.retain(&[slot]);
        Some(ImmutableBlock::new(self.core.clone(), slot))
    }

    /// Whether the blocks belong to this pool.
    pub fn is_of(&self, pool: &BlockPool) -> bool {
        pool.is(&self.core)
    }

    /// The slots, with a use of each.
    pub(crate) fn into_slots(mut self) -> Vec<u32> {
        std::mem::take(&mut self.slots)
    }

    /// Appends blocks of the same pool.
    ///
    /// # Errors
    /// Hands back blocks of another pool.
    pub fn append(&mut self, mut more: Self) -> Result<(), Self> {
        if !self.core.is_of(&more.core) {
            return Err(more);
        }
        self.slots.append(&mut more.slots);
        Ok(())
    }

    /// Takes the blocks from `at` on into a batch of their own; an empty one if there are none.
    pub fn split_off(&mut self, at: usize) -> Self {
        let slots = self.slots.split_off(at.min(self.slots.len()));
        Self::new(self.core.clone(), slots)
    }
}

impl Clone for ImmutableBlocks {
    fn clone(&self) -> Self {
        self.core.retain(&self.slots);
        Self::new(self.core.clone(), self.slots.clone())
    }
}

impl Drop for ImmutableBlocks {
    fn drop(&mut self) {
        if !self.slots.is_empty() {
            self.core.release(&self.slots);
        }
    }
}

impl From<ImmutableBlock> for ImmutableBlocks {
    fn from(block: ImmutableBlock) -> Self {
        block.core.retain(&[block.slot]);
        Self::new(block.core.clone(), vec![block.slot])
    }
}

impl IntoIterator for ImmutableBlocks {
    type Item = ImmutableBlock;
    type IntoIter = IntoImmutable;

    fn into_iter(mut self) -> IntoImmutable {
        // The batch gives its slots from the end.
        self.slots.reverse();
        IntoImmutable { blocks: self }
    }
}

/// The blocks of a batch, one by one; those not taken are released.
#[derive(Debug)]
pub struct IntoImmutable {
    blocks: ImmutableBlocks,
}

impl Iterator for IntoImmutable {
    type Item = ImmutableBlock;

    fn next(&mut self) -> Option<ImmutableBlock> {
        let slot = self.blocks.slots.pop()?;
        Some(ImmutableBlock::new(self.blocks.core.clone(), slot))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.blocks.len(), Some(self.blocks.len()))
    }
}

impl ExactSizeIterator for IntoImmutable {}

impl fmt::Debug for ImmutableBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImmutableBlocks")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
