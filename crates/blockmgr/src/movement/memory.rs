//! Tiers in memory: a pool of blocks over slots.

use std::sync::Arc;

use core_alloc::StorageType;
use core_view::BufferMut;
use core_view::contract::{ErrorKind, Failure, MemoryTier, SlotId, SlotRead, SlotWrite, Transfer};

use super::patience::{Late, Patience, Waited};
use super::staging::Staging;
use super::{DropReason, TierId};
use crate::{BlockPool, Error};

/// Slots of memory with the pool that knows what is in them.
#[derive(Debug)]
pub(super) struct MemoryLevel {
    pub(super) id: TierId,
    pub(super) memory: Arc<dyn MemoryTier>,
    pub(super) pool: BlockPool,
    block_bytes: usize,
}

/// Why a batch ended early.
pub(super) struct Stop {
    /// The blocks before this one are well.
    pub(super) index: usize,
    pub(super) reason: DropReason,
    pub(super) late: Option<Late>,
    /// Blocks that the source can't have any more.
    pub(super) lost: Vec<usize>,
}

impl Stop {
    pub(super) fn at(index: usize, reason: DropReason) -> Self {
        Self {
            index,
            reason,
            late: None,
            lost: Vec::new(),
        }
    }
}

/// Host memory to fill for slots: the slots' own, or staged.
pub(super) struct Targets {
    pub(super) buffers: Vec<BufferMut>,
    pub(super) staged: usize,
}

pub(super) fn buffers_of(outcome: Result<Vec<BufferMut>, Failure>) -> Vec<BufferMut> {
    outcome.unwrap_or_else(|failure| failure.into_parts().1.reclaim())
}

impl MemoryLevel {
    pub(super) fn new(
        id: TierId,
        memory: Arc<dyn MemoryTier>,
        pool: BlockPool,
        block_bytes: usize,
    ) -> Result<Self, Error> {
        let invalid = |field, value: usize, reason| Error::InvalidConfig {
            field,
            value: value.to_string(),
            reason,
        };
        if pool.capacity_blocks() > memory.slot_count() as usize {
            return Err(invalid(
                "capacity_blocks",
                pool.capacity_blocks(),
                "the tier has fewer slots; give it more memory",
            ));
        }
        if memory.slot_bytes() < block_bytes {
            return Err(invalid(
                "slot_bytes",
                memory.slot_bytes(),
                "a block of the layout is longer; cut the memory into longer slots",
            ));
        }
        Ok(Self {
            id,
            memory,
            pool,
            block_bytes,
        })
    }

    /// The slots' own memory where the host reaches it, and staging buffers elsewhere.
    pub(super) fn targets(
        &self,
        slots: &[SlotId],
        staging: &Staging,
    ) -> Result<Targets, DropReason> {
        let kind = self.memory.storage_type();
        if matches!(kind, StorageType::System | StorageType::Pinned) {
            let leased: Result<Vec<_>, _> =
                slots.iter().map(|&slot| self.memory.lease(slot)).collect();
            match leased {
                Ok(mut buffers) => {
                    for buffer in &mut buffers {
                        drop(buffer.split_off(self.block_bytes));
                    }
                    return Ok(Targets { buffers, staged: 0 });
                }
                // The host's, and yet not as it is: of another layout, for example.
                Err(error) if error.kind() == ErrorKind::Unsupported => {}
                Err(_) => return Err(DropReason::Failed),
            }
        }
        let buffers = staging.take(slots.len());
        if buffers.len() < slots.len() {
            let staged = buffers.len();
            staging.give(buffers, staged);
            return Err(DropReason::Stalled);
        }
        let staged = buffers.len();
        Ok(Targets { buffers, staged })
    }

    /// Reads slots into buffers of a block each.
    pub(super) fn read(
        &self,
        slots: &[SlotId],
        buffers: Vec<BufferMut>,
    ) -> Transfer<Vec<BufferMut>> {
        let reads = slots.iter().zip(buffers).map(|(&slot, target)| SlotRead {
            slot,
            offset_bytes: 0,
            target,
        });
        self.memory.read(reads.collect())
    }

    /// Puts filled targets where they belong.
    pub(super) fn deliver(
        &self,
        slots: &[SlotId],
        targets: Targets,
        staging: &Staging,
        patience: &Patience,
    ) -> Result<(), Stop> {
        if targets.staged == 0 {
            return Ok(());
        }
        let writes = slots
            .iter()
            .zip(targets.buffers)
            .map(|(&slot, source)| SlotWrite {
                slot,
                offset_bytes: 0,
                source,
            });
        let transfer = self.memory.write(writes.collect());
        settle(transfer, targets.staged, staging, patience).map(|buffers| {
            staging.give(buffers, targets.staged);
        })
    }
}

/// Waits for a batch that fails or succeeds as a whole. Staged buffers go back if it failed.
pub(super) fn settle(
    transfer: Transfer<Vec<BufferMut>>,
    staged: usize,
    staging: &Staging,
    patience: &Patience,
) -> Result<Vec<BufferMut>, Stop> {
    match patience.wait(transfer) {
        Waited::Done(Ok(buffers)) => Ok(buffers),
        Waited::Done(Err(failure)) => {
            let reason = patience.reason(failure.kind());
            let buffers = failure.into_parts().1.reclaim();
            if staged > 0 {
                staging.give(buffers, staged);
            }
            Err(Stop::at(0, reason))
        }
        Waited::Late(reason, transfer) => Err(Stop {
            index: 0,
            reason,
            late: Some(Late::new(transfer, buffers_of, staged)),
            lost: Vec::new(),
        }),
    }
}
