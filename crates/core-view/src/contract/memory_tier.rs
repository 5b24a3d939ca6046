//! Slots of memory at stable addresses.

use std::fmt;

use core_alloc::StorageType;

#[cfg(doc)]
use super::ErrorKind;
use super::{ContractError, Transfer};
use crate::BufferMut;

/// The number of a slot within its tier, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u32);

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Bytes on their way from host memory into a slot.
#[derive(Debug)]
pub struct SlotWrite {
    /// Where they go.
    pub slot: SlotId,
    /// First byte within the slot.
    pub offset_bytes: usize,
    /// What is copied, all of it.
    pub source: BufferMut,
}

/// Bytes on their way from a slot into host memory.
#[derive(Debug)]
pub struct SlotRead {
    /// Where they come from.
    pub slot: SlotId,
    /// First byte within the slot.
    pub offset_bytes: usize,
    /// What is filled, all of it.
    pub target: BufferMut,
}

/// Bytes on their way between two slots of one tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotCopy {
    /// Where they come from.
    pub source: SlotId,
    /// First byte within the source slot.
    pub source_offset_bytes: usize,
    /// Where they go.
    pub target: SlotId,
    /// First byte within the target slot.
    pub target_offset_bytes: usize,
    /// How many.
    pub len_bytes: usize,
}

/// Memory of one kind (system, pinned, a device) in slots of one size, copied in batches.
///
/// A slot that one operation writes, or that is leased, is out of reach of every other, from the call
/// on until the operation is done or the lease is dropped; a slot that is read may be read by others,
/// but not written or leased. A batch that names a slot out of reach is refused as
/// [`ErrorKind::Busy`] before anything of the batch is copied. So two users of one slot can't race,
/// whatever they do; [`SlotTable`](super::SlotTable) sees to it for implementations. A slot is free
/// again when the transfer is done. Between tiers, a slot of a host tier is leased and given to the
/// other tier's [`write`](MemoryTier::write) or [`read`](MemoryTier::read), without a copy in between.
///
/// Where a queue is at its bound, any batch is [`ErrorKind::Busy`]. A batch that fails on the way leaves
/// the slots it was to write unspecified.
pub trait MemoryTier: fmt::Debug + Send + Sync {
    /// The kind of the memory.
    fn storage_type(&self) -> StorageType;

    /// Number of slots.
    fn slot_count(&self) -> u32;

    /// Bytes a slot.
    fn slot_bytes(&self) -> usize;

    /// The address of a slot in its own address space: for kernels and registration, not for the host
    /// to dereference.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if there is no such slot.
    fn slot_addr(&self, slot: SlotId) -> Result<u64, ContractError>;

    /// The slot's own memory, for the caller alone until the buffer and everything split or frozen from
    /// it is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] while the slot is in use, [`ErrorKind::Unsupported`] where the host can't
    /// reach the memory, [`ErrorKind::InvalidInput`] if there is no such slot.
    fn lease(&self, slot: SlotId) -> Result<BufferMut, ContractError>;

    /// Copies host memory into slots; the sources come back in order.
    ///
    /// # Errors
    /// Through the transfer, with the sources: [`ErrorKind::Busy`], [`ErrorKind::InvalidInput`] for a
    /// range outside a slot or a slot that the batch writes twice; a device's own failure.
    fn write(&self, writes: Vec<SlotWrite>) -> Transfer<Vec<BufferMut>>;

    /// Copies slots into host memory; the targets come back in order.
    ///
    /// # Errors
    /// As [`MemoryTier::write`], with the targets.
    fn read(&self, reads: Vec<SlotRead>) -> Transfer<Vec<BufferMut>>;

    /// Copies between slots of this tier.
    ///
    /// # Errors
    /// As [`MemoryTier::write`]; a slot that the batch both reads and writes is
    /// [`ErrorKind::InvalidInput`] too.
    fn copy(&self, copies: Vec<SlotCopy>) -> Transfer<()>;
}
