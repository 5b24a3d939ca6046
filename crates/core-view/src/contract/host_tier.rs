//! Host memory as a tier of slots.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use core_alloc::{HostStorage, StorageType};

use super::{
    ContractError, ErrorKind, Failure, MemoryTier, SlotClaims, SlotCopy, SlotId, SlotRead,
    SlotTable, SlotWrite, Transfer,
};
use crate::{Access, BufferMut, BufferOwner};

/// A [`MemoryTier`] over one slab of host memory (system or pinned); copies are done on the calling
/// thread.
///
/// ```
/// use core_alloc::{StorageAllocator, SystemAllocator};
/// use core_view::contract::{HostTier, MemoryTier, SlotId, SlotRead, SlotWrite};
/// use core_view::BufferMut;
///
/// let tier = HostTier::new(SystemAllocator::default().allocate(64 * 1024)?, 4096)?;
/// let source = BufferMut::from_vec(vec![7; 4096]);
/// tier.write(vec![SlotWrite { slot: SlotId(3), offset_bytes: 0, source }]).wait()?;
/// let target = BufferMut::zeroed(4096, 128)?;
/// let read = tier.read(vec![SlotRead { slot: SlotId(3), offset_bytes: 0, target }]).wait()?;
/// assert!(read[0].iter().all(|&byte| byte == 7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct HostTier(Arc<Slab>);

struct Slab {
    start: NonNull<u8>,
    table: SlotTable,
    storage: Box<dyn HostStorage>,
}

// SAFETY: the bytes of a slot are touched only by whoever holds its claim, and the storage is
// `Send + Sync`.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl HostTier {
    /// Cuts `storage` into slots of `slot_bytes`; a shorter rest stays unused.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if not even one slot fits, or more than `u32::MAX`.
    pub fn new<S: HostStorage>(mut storage: S, slot_bytes: usize) -> Result<Self, ContractError> {
        let size_bytes = storage.size();
        let slot_count = size_bytes.checked_div(slot_bytes).unwrap_or(0);
        let slot_count = u32::try_from(slot_count).ok().filter(|&count| count > 0);
        let start = NonNull::new(storage.as_mut_ptr());
        let (Some(start), Some(slot_count)) = (start, slot_count) else {
            return Err(
                ContractError::new(ErrorKind::InvalidInput, "make host tier").detail(format!(
                    "{size_bytes} bytes can't be cut into 1 to {} slots of {slot_bytes} bytes",
                    u32::MAX
                )),
            );
        };
        Ok(Self(Arc::new(Slab {
            start,
            table: SlotTable::new(slot_count, slot_bytes),
            storage: Box::new(storage),
        })))
    }

    fn write_all(&self, writes: &[SlotWrite]) -> Result<(), ContractError> {
        let _claims = self.0.table.claim_writes(writes)?;
        for write in writes {
            let target = self.0.at(write.slot, write.offset_bytes);
            // SAFETY: the range was checked, the claim keeps everybody else out of the slot, and a
            // unique buffer can't overlap a slot that is not leased.
            unsafe { target.copy_from_nonoverlapping(write.source.as_ptr(), write.source.len()) };
        }
        Ok(())
    }

    fn read_all(&self, reads: &mut [SlotRead]) -> Result<(), ContractError> {
        let _claims = self.0.table.claim_reads(reads)?;
        for read in reads {
            let source = self.0.at(read.slot, read.offset_bytes);
            let len = read.target.len();
            // SAFETY: the range was checked, the claim keeps writers out of the slot, and a unique
            // buffer can't overlap a slot that is not leased.
            unsafe { source.copy_to_nonoverlapping(read.target.as_mut_ptr(), len) };
        }
        Ok(())
    }

    fn copy_all(&self, copies: &[SlotCopy]) -> Result<(), ContractError> {
        let _claims = self.0.table.claim_copies(copies)?;
        for copy in copies {
            let source = self.0.at(copy.source, copy.source_offset_bytes);
            let target = self.0.at(copy.target, copy.target_offset_bytes);
            // SAFETY: both ranges were checked, the slots are different, and the claims keep everybody
            // else out of the one and writers out of the other.
            unsafe { target.copy_from_nonoverlapping(source, copy.len_bytes) };
        }
        Ok(())
    }
}

impl Slab {
    /// The address of a byte of a slot; of use only inside the storage.
    fn at(&self, slot: SlotId, offset: usize) -> *mut u8 {
        let slot_start = (slot.0 as usize).wrapping_mul(self.table.slot_bytes());
        self.start
            .as_ptr()
            .wrapping_add(slot_start)
            .wrapping_add(offset)
    }
}

/// A slot that was leased to a buffer: given up first, then the memory.
struct Lease {
    _claim: SlotClaims,
    slab: Arc<Slab>,
}

// SAFETY: the slab lives as long as the lease, and the exclusive claim keeps everybody else out.
unsafe impl BufferOwner for Lease {
    fn storage_type(&self) -> StorageType {
        self.slab.storage.storage_type()
    }

    fn access(&self) -> Access {
        Access::ReadWrite
    }
}

impl MemoryTier for HostTier {
    fn storage_type(&self) -> StorageType {
        self.0.storage.storage_type()
    }

    fn slot_count(&self) -> u32 {
        self.0.table.slot_count()
    }

    fn slot_bytes(&self) -> usize {
        self.0.table.slot_bytes()
    }

    fn slot_addr(&self, slot: SlotId) -> Result<u64, ContractError> {
        self.0.table.check_slot("address of slot", slot)?;
        Ok(self.0.at(slot, 0).addr() as u64)
    }

    fn lease(&self, slot: SlotId) -> Result<BufferMut, ContractError> {
        let claim = self.0.table.claim_lease(slot)?;
        let Some(start) = NonNull::new(self.0.at(slot, 0)) else {
            return Err(ContractError::new(ErrorKind::InvalidInput, "lease slot"));
        };
        let lease = Arc::new(Lease {
            _claim: claim,
            slab: Arc::clone(&self.0),
        });
        // SAFETY: the exclusive claim, given back when the lease is dropped, keeps everybody else out
        // of these initialised bytes, which live as long as the slab.
        Ok(unsafe { BufferMut::from_owner(start, self.slot_bytes(), lease) })
    }

    fn write(&self, writes: Vec<SlotWrite>) -> Transfer<Vec<BufferMut>> {
        let result = self.write_all(&writes);
        let sources = writes.into_iter().map(|write| write.source).collect();
        Transfer::ready(give_back(result, sources))
    }

    fn read(&self, mut reads: Vec<SlotRead>) -> Transfer<Vec<BufferMut>> {
        let result = self.read_all(&mut reads);
        let targets = reads.into_iter().map(|read| read.target).collect();
        Transfer::ready(give_back(result, targets))
    }

    fn copy(&self, copies: Vec<SlotCopy>) -> Transfer<()> {
        Transfer::ready(self.copy_all(&copies).map_err(Failure::from))
    }
}

fn give_back(
    result: Result<(), ContractError>,
    buffers: Vec<BufferMut>,
) -> Result<Vec<BufferMut>, Failure> {
    match result {
        Ok(()) => Ok(buffers),
        Err(error) => Err(Failure::new(error, buffers)),
    }
}

impl fmt::Debug for HostTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostTier")
            .field("storage_type", &self.storage_type())
            .field("slot_count", &self.slot_count())
            .field("slot_bytes", &self.slot_bytes())
            .finish()
    }
}
