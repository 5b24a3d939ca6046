//! What a pool tells others.

use core_view::contract::SlotId;

use crate::SequenceHash;

/// A block that left the pool to make room. Its slot belongs to nobody until the hook returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvictedBlock {
    /// Where its bytes still are.
    pub slot: SlotId,
    /// Who it is.
    pub sequence_hash: SequenceHash,
}

/// Offered what a pool evicts, to keep it in a lower tier.
pub trait EvictionHook: Send + Sync {
    /// These blocks left the pool. Their bytes stay in place until this returns, on the thread that needs the
    /// room; no lock of the pool is held.
    fn evicted(&self, blocks: &[EvictedBlock]);
}

/// A change of what a pool has, for routers and indexes elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockEvent {
    /// The pool has the block and it can be matched.
    Stored {
        /// Grows from event to event of a pool; of two events of one block the larger is the later.
        sequence: u64,
        /// The block.
        sequence_hash: SequenceHash,
    },
    /// The pool no longer has the block.
    Removed {
        /// As for [`BlockEvent::Stored`].
        sequence: u64,
        /// The block.
        sequence_hash: SequenceHash,
    },
}

/// Told what a pool has.
pub trait EventSink: Send + Sync {
    /// The changes of one call to the pool, in order; no lock of the pool is held. Calls of other threads may
    /// report later changes earlier.
    fn publish(&self, events: &[BlockEvent]);
}
