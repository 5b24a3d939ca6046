//! Memory that the host can't reach.

use core_alloc::StorageType;

use crate::BufferMut;
use crate::contract::{
    ContractError, ErrorKind, MemoryTier, SlotCopy, SlotId, SlotRead, SlotWrite, Transfer,
};

/// Another tier as the memory of a device: its slots can't be leased, so that what comes and goes is staged.
///
/// ```
/// use core_alloc::{StorageAllocator, StorageType, SystemAllocator};
/// use core_view::contract::mock::MockDevice;
/// use core_view::contract::{ErrorKind, HostTier, MemoryTier, SlotId};
///
/// let host = HostTier::new(SystemAllocator::default().allocate(64 * 1024)?, 4096)?;
/// let device = MockDevice::new(host);
/// assert_eq!(device.storage_type(), StorageType::Device(0));
/// let lease = device.lease(SlotId(3));
/// assert_eq!(lease.unwrap_err().kind(), ErrorKind::Unsupported);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MockDevice<M> {
    inner: M,
}

impl<M: MemoryTier> MockDevice<M> {
    /// The slots of `inner`, out of the host's reach.
    pub fn new(inner: M) -> Self {
        Self { inner }
    }
}

impl<M: MemoryTier> MemoryTier for MockDevice<M> {
    fn storage_type(&self) -> StorageType {
        StorageType::Device(0)
    }

    fn slot_count(&self) -> u32 {
        self.inner.slot_count()
    }

    fn slot_bytes(&self) -> usize {
        self.inner.slot_bytes()
    }

    fn slot_addr(&self, slot: SlotId) -> Result<u64, ContractError> {
        self.inner.slot_addr(slot)
    }

    fn lease(&self, slot: SlotId) -> Result<BufferMut, ContractError> {
        self.slot_addr(slot)?;
        Err(ContractError::new(ErrorKind::Unsupported, "lease slot"))
    }

    fn write(&self, writes: Vec<SlotWrite>) -> Transfer<Vec<BufferMut>> {
        self.inner.write(writes)
    }

    fn read(&self, reads: Vec<SlotRead>) -> Transfer<Vec<BufferMut>> {
        self.inner.read(reads)
    }

    fn copy(&self, copies: Vec<SlotCopy>) -> Transfer<()> {
        self.inner.copy(copies)
    }
}
