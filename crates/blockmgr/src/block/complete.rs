//! Blocks that are filled and not yet known.

use std::fmt;

use core_view::contract::SlotId;

use super::taken::{Taken, TakenSlot};
use super::{MutableBlock, MutableBlocks};
use crate::pool::Share;
use crate::{Error, Refused, SequenceHash};

/// A filled block with its identity. Dropping it frees it.
pub struct CompleteBlock {
    taken: TakenSlot,
    hash: SequenceHash,
    parent: Option<SequenceHash>,
}

impl CompleteBlock {
    pub(super) fn new(taken: TakenSlot, hash: SequenceHash, parent: Option<SequenceHash>) -> Self {
        Self {
            taken,
            hash,
            parent,
        }
    }

    /// The slot whose memory the block has.
    pub fn slot(&self) -> SlotId {
        SlotId(self.taken.slot())
    }

    /// Who it is.
    pub fn sequence_hash(&self) -> SequenceHash {
        self.hash
    }

    /// Gives the identity up, to fill the block anew.
    pub fn reopen(self) -> MutableBlock {
        MutableBlock::new(self.taken)
    }

    pub(crate) fn is_of(&self, core: &Share) -> bool {
        core.is_of(self.taken.core())
    }

    pub(crate) fn into_parts(self) -> (Share, u32, SequenceHash, Option<SequenceHash>) {
        let (core, slot) = self.taken.into_parts();
        (core, slot, self.hash, self.parent)
    }
}

impl fmt::Debug for CompleteBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompleteBlock")
            .field("slot", &self.slot())
            .field("sequence_hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// Filled blocks of one pool with their identities. Dropping them frees them.
pub struct CompleteBlocks {
    taken: Taken,
    hashes: Vec<SequenceHash>,
    /// Of the first, if it is known.
    parent: Option<SequenceHash>,
}

impl CompleteBlocks {
    pub(super) fn new(
        taken: Taken,
        hashes: Vec<SequenceHash>,
        parent: Option<SequenceHash>,
    ) -> Self {
        Self {
            taken,
            hashes,
            parent,
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The slots whose memory the blocks have, in order.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = SlotId> + '_ {
        self.taken.slots().iter().map(|&slot| SlotId(slot))
    }

    /// Who they are, in order.
    pub fn sequence_hashes(&self) -> &[SequenceHash] {
        &self.hashes
    }

    /// The same, with the block before the first, which tells the policy what chain they continue. Blocks of a
    /// sequence that was matched before don't need it.
    pub fn with_parent(mut self, parent: SequenceHash) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Adds a block at the end.
    ///
    /// # Errors
    /// [`Error::ForeignBlock`], with the block, if it is of another pool.
    pub fn push(&mut self, block: CompleteBlock) -> Result<(), Refused<CompleteBlock>> {
        if !block.is_of(self.taken.core()) {
            return Err(Refused::new(Error::ForeignBlock, block));
        }
        if self.is_empty() {
            self.parent = block.parent;
        }
        self.hashes.push(block.hash);
        block.taken.move_into(&mut self.taken);
        Ok(())
    }

    /// Gives the identities up, to fill the blocks anew.
    pub fn reopen(self) -> MutableBlocks {
        let (core, slots) = self.taken.into_parts();
        MutableBlocks::new(core, slots)
    }

    pub(crate) fn is_of(&self, core: &Share) -> bool {
        core.is_of(self.taken.core())
    }

    pub(crate) fn parent(&self) -> Option<SequenceHash> {
        self.parent
    }

    pub(crate) fn into_parts(self) -> (Share, Vec<u32>, Vec<SequenceHash>) {
        let (core, slots) = self.taken.into_parts();
        (core, slots, self.hashes)
    }
}

impl From<CompleteBlock> for CompleteBlocks {
    fn from(block: CompleteBlock) -> Self {
        let (core, slot, hash, parent) = block.into_parts();
        Self::new(Taken::new(core, vec![slot]), vec![hash], parent)
    }
}

impl fmt::Debug for CompleteBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompleteBlocks")
            .field("sequence_hashes", &self.hashes)
            .finish_non_exhaustive()
    }
}
