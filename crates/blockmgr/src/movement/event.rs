//! What is told of moves.

use super::TierId;
use crate::SequenceHash;

/// A step of a block's way between tiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MoveEvent {
    /// The block is about to be written to the tier. If that fails nothing follows at once; whatever it left below
    /// memory is removed before long.
    Began {
        /// Where it goes.
        target: TierId,
        /// The block.
        sequence_hash: SequenceHash,
    },
    /// The block is in the target; durably, if that is below memory and its store is durable.
    Moved {
        /// Where it was, and still may be.
        source: TierId,
        /// Where it is now too.
        target: TierId,
        /// The block.
        sequence_hash: SequenceHash,
    },
    /// The block is about to leave a tier below memory.
    Removing {
        /// The tier.
        tier: TierId,
        /// The block.
        sequence_hash: SequenceHash,
    },
    /// The block has left a tier below memory; durably, if its store is durable.
    Removed {
        /// The tier.
        tier: TierId,
        /// The block.
        sequence_hash: SequenceHash,
    },
}

/// Told of moves: for routers, and for tests that must know what was acknowledged.
pub trait MoveSink: Send + Sync {
    /// The events of one batch; no lock of a pool is held. The next batch waits for this to return.
    fn publish(&self, events: &[MoveEvent]);
}
