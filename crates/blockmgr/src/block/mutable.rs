//! Blocks that may be written.

use std::fmt;

use core_view::contract::SlotId;

use super::taken::{Taken, TakenSlot};
use super::{CompleteBlock, CompleteBlocks};
use crate::identity::TokenBlock;
use crate::pool::Share;
use crate::{BlockPool, Error, Refused, SequenceHash};

/// A block that is its owner's alone and may be written. Dropping it frees it.
pub struct MutableBlock {
    taken: TakenSlot,
}

impl MutableBlock {
    pub(super) fn new(taken: TakenSlot) -> Self {
        Self { taken }
    }

    /// The slot whose memory the block has.
    pub fn slot(&self) -> SlotId {
        SlotId(self.taken.slot())
    }

    /// Whether the block belongs to this pool.
    pub fn is_of(&self, pool: &BlockPool) -> bool {
        pool.is(self.taken.core())
    }

    /// States that the block has the content of these tokens.
    ///
    /// # Errors
    /// [`Error::BlockTokens`], with the block, if the pool's blocks have another number of tokens.
    pub fn complete(self, tokens: &TokenBlock<'_>) -> Result<CompleteBlock, Refused<Self>> {
        let expected = self.taken.core().block_tokens();
        let found = tokens.tokens.len();
        if found != expected {
            let error = Error::BlockTokens { expected, found };
            return Err(Refused::new(error, self));
        }
        let identity = tokens.identity;
        Ok(CompleteBlock::new(
            self.taken,
            identity.sequence_hash,
            identity.parent,
        ))
    }

    /// States that the block has the content of this identity, which the caller made itself.
    pub fn complete_as(self, sequence_hash: SequenceHash) -> CompleteBlock {
        CompleteBlock::new(self.taken, sequence_hash, None)
    }
}

impl fmt::Debug for MutableBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MutableBlock")
            .field("slot", &self.slot())
            .finish_non_exhaustive()
    }
}

/// Blocks of one pool that are their owner's alone and may be written. Dropping them frees them.
pub struct MutableBlocks {
    taken: Taken,
}

impl MutableBlocks {
    pub(crate) fn new(core: Share, slots: Vec<u32>) -> Self {
        Self {
            taken: Taken::new(core, slots),
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.taken.slots().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.taken.slots().is_empty()
    }

    /// The slots whose memory the blocks have, in order.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = SlotId> + '_ {
        self.taken.slots().iter().map(|&slot| SlotId(slot))
    }

    /// States that the blocks have the content of these identities, in order.
    ///
    /// # Errors
    /// [`Error::IdentityCount`], with the blocks, if there is not one identity for each.
    pub fn complete(self, hashes: &[SequenceHash]) -> Result<CompleteBlocks, Refused<Self>> {
        let (blocks, identities) = (self.len(), hashes.len());
        if blocks != identities {
            let error = Error::IdentityCount { blocks, identities };
            return Err(Refused::new(error, self));
        }
        Ok(CompleteBlocks::new(self.taken, hashes.to_vec(), None))
    }

    /// Takes the blocks from `at` on into a batch of their own; an empty one if there are none.
    pub fn split_off(&mut self, at: usize) -> Self {
        let at = at.min(self.len());
        let slots = self.taken.slots_mut().split_off(at);
        Self::new(self.taken.core().clone(), slots)
    }
}

impl IntoIterator for MutableBlocks {
    type Item = MutableBlock;
    type IntoIter = IntoMutable;

    fn into_iter(mut self) -> IntoMutable {
        // The batch gives its slots from the end.
        self.taken.slots_mut().reverse();
        IntoMutable { taken: self.taken }
    }
}

/// The blocks of a batch, one by one; those not taken are freed.
pub struct IntoMutable {
    taken: Taken,
}

impl Iterator for IntoMutable {
    type Item = MutableBlock;

    fn next(&mut self) -> Option<MutableBlock> {
        let slot = self.taken.slots_mut().pop()?;
        let taken = TakenSlot::new(self.taken.core().clone(), slot);
        Some(MutableBlock::new(taken))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.taken.slots().len();
        (len, Some(len))
    }
}

impl ExactSizeIterator for IntoMutable {}

impl fmt::Debug for MutableBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MutableBlocks")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for IntoMutable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntoMutable")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
