//! Host memory as a tier of slots.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use core_alloc::{HostStorage, StorageType};

use super::memory_tier::check_range;
use super::{
    ContractError, ErrorKind, Failure, MemoryTier, SlotCopy, SlotId, SlotRead, SlotWrite, Transfer,
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

/// A slot's count of readers, or this while one operation or lease has it for itself.
const EXCLUSIVE: u32 = u32::MAX;

struct Slab {
    start: NonNull<u8>,
    slot_bytes: usize,
    uses: Box<[AtomicU32]>,
    storage: Box<dyn HostStorage>,
}

// SAFETY: the bytes of a slot are touched only by whoever holds its use count, and the storage is
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
        let start = NonNull::new(storage.as_mut_ptr());
        let (Some(start), true) = (start, slot_count > 0 && u32::try_from(slot_count).is_ok())
        else {
            return Err(
                ContractError::new(ErrorKind::InvalidInput, "make host tier").detail(format!(
                    "{size_bytes} bytes can't be cut into slots of {slot_bytes} bytes"
                )),
            );
        };
        let uses = (0..slot_count).map(|_| AtomicU32::new(0)).collect();
        Ok(Self(Arc::new(Slab {
            start,
            slot_bytes,
            uses,
            storage: Box::new(storage),
        })))
    }

    fn claim(
        &self,
        operation: &'static str,
        slot: SlotId,
        exclusive: bool,
    ) -> Result<Claim<'_>, ContractError> {
        self.0.claim(operation, slot, exclusive)?;
        Ok(Claim {
            slab: &self.0,
            slot,
            exclusive,
        })
    }

    fn write_all(&self, writes: &[SlotWrite]) -> Result<(), ContractError> {
        const OPERATION: &str = "write slots";
        let mut claims = Vec::with_capacity(writes.len());
        for (i, write) in writes.iter().enumerate() {
            let len = write.source.len();
            check_range(
                OPERATION,
                write.slot,
                write.offset_bytes,
                len,
                self.0.slot_bytes,
            )?;
            let claim = self.claim(OPERATION, write.slot, true).map_err(|busy| {
                let mut earlier = writes.iter().take(i);
                if earlier.any(|earlier| earlier.slot == write.slot) {
                    twice(OPERATION, write.slot)
                } else {
                    busy
                }
            })?;
            claims.push(claim);
        }
        for (write, claim) in writes.iter().zip(&claims) {
            let target = claim.at(write.offset_bytes);
            // SAFETY: the range was checked, the claim keeps everybody else out of the slot, and a
            // unique buffer can't overlap a slot that is not leased.
            unsafe { target.copy_from_nonoverlapping(write.source.as_ptr(), write.source.len()) };
        }
        Ok(())
    }

    fn read_all(&self, reads: &mut [SlotRead]) -> Result<(), ContractError> {
        const OPERATION: &str = "read slots";
        let mut claims = Vec::with_capacity(reads.len());
        for read in reads.iter() {
            let len = read.target.len();
            check_range(
                OPERATION,
                read.slot,
                read.offset_bytes,
                len,
                self.0.slot_bytes,
            )?;
            claims.push(self.claim(OPERATION, read.slot, false)?);
        }
        for (read, claim) in reads.iter_mut().zip(&claims) {
            let source = claim.at(read.offset_bytes);
            let len = read.target.len();
            // SAFETY: the range was checked, the claim keeps writers out of the slot, and a unique
            // buffer can't overlap a slot that is not leased.
            unsafe { source.copy_to_nonoverlapping(read.target.as_mut_ptr(), len) };
        }
        Ok(())
    }

    fn copy_all(&self, copies: &[SlotCopy]) -> Result<(), ContractError> {
        const OPERATION: &str = "copy slots";
        let mut claims = Vec::with_capacity(copies.len());
        for (i, copy) in copies.iter().enumerate() {
            let clash = |busy| {
                let mut earlier = copies.iter().take(i);
                let in_batch = |other: &SlotCopy| {
                    [other.source, other.target].contains(&copy.target)
                        || other.target == copy.source
                };
                let clashes = copy.source == copy.target || earlier.any(in_batch);
                if clashes {
                    twice(OPERATION, copy.target)
                } else {
                    busy
                }
            };
            let (len, slot_bytes) = (copy.len_bytes, self.0.slot_bytes);
            check_range(
                OPERATION,
                copy.source,
                copy.source_offset_bytes,
                len,
                slot_bytes,
            )?;
            check_range(
                OPERATION,
                copy.target,
                copy.target_offset_bytes,
                len,
                slot_bytes,
            )?;
            let target = self.claim(OPERATION, copy.target, true).map_err(clash)?;
            let source = self.claim(OPERATION, copy.source, false).map_err(clash)?;
            claims.push((source, target));
        }
        for (copy, (source, target)) in copies.iter().zip(&claims) {
            let source = source.at(copy.source_offset_bytes);
            let target = target.at(copy.target_offset_bytes);
            // SAFETY: both ranges were checked, the slots are different, and the claims keep everybody
            // else out of the one and writers out of the other.
            unsafe { target.copy_from_nonoverlapping(source, copy.len_bytes) };
        }
        Ok(())
    }
}

fn twice(operation: &'static str, slot: SlotId) -> ContractError {
    ContractError::new(ErrorKind::InvalidInput, operation).detail(format!(
        "the batch writes slot {slot} and uses it again; split the batch"
    ))
}

impl Slab {
    fn slot_start(&self, slot: SlotId) -> NonNull<u8> {
        // SAFETY: only slots that passed `claim` or `slot_addr` get here, so that the result lies
        // inside the storage.
        unsafe { self.start.add(slot.0 as usize * self.slot_bytes) }
    }

    fn uses(&self, operation: &'static str, slot: SlotId) -> Result<&AtomicU32, ContractError> {
        self.uses.get(slot.0 as usize).ok_or_else(|| {
            ContractError::new(ErrorKind::InvalidInput, operation).detail(format!(
                "there is no slot {slot}; the tier has {}",
                self.uses.len()
            ))
        })
    }

    fn claim(
        &self,
        operation: &'static str,
        slot: SlotId,
        exclusive: bool,
    ) -> Result<(), ContractError> {
        let uses = self.uses(operation, slot)?;
        let claimed = uses.fetch_update(Ordering::Acquire, Ordering::Relaxed, |count| {
            match (exclusive, count) {
                (true, 0) => Some(EXCLUSIVE),
                (false, count) if count < EXCLUSIVE - 1 => Some(count + 1),
                _ => None,
            }
        });
        claimed.map(drop).map_err(|_| {
            ContractError::new(ErrorKind::Busy, operation).detail(format!(
                "slot {slot} is in use; try again when that is over"
            ))
        })
    }

    fn release(&self, slot: SlotId, exclusive: bool) {
        if let Some(uses) = self.uses.get(slot.0 as usize) {
            if exclusive {
                uses.store(0, Ordering::Release);
            } else {
                uses.fetch_sub(1, Ordering::Release);
            }
        }
    }
}

/// The right to touch a slot during one batch.
struct Claim<'a> {
    slab: &'a Slab,
    slot: SlotId,
    exclusive: bool,
}

impl Claim<'_> {
    fn at(&self, offset: usize) -> *mut u8 {
        self.slab
            .slot_start(self.slot)
            .as_ptr()
            .wrapping_add(offset)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.slab.release(self.slot, self.exclusive);
    }
}

/// A slot that was leased to a buffer.
struct Lease {
    slab: Arc<Slab>,
    slot: SlotId,
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

impl Drop for Lease {
    fn drop(&mut self) {
        self.slab.release(self.slot, true);
    }
}

impl MemoryTier for HostTier {
    fn storage_type(&self) -> StorageType {
        self.0.storage.storage_type()
    }

    fn slot_count(&self) -> u32 {
        self.0.uses.len() as u32
    }

    fn slot_bytes(&self) -> usize {
        self.0.slot_bytes
    }

    fn slot_addr(&self, slot: SlotId) -> Result<u64, ContractError> {
        self.0.uses("address of slot", slot)?;
        Ok(self.0.slot_start(slot).as_ptr().addr() as u64)
    }

    fn lease(&self, slot: SlotId) -> Result<BufferMut, ContractError> {
        self.0.claim("lease slot", slot, true)?;
        let start = self.0.slot_start(slot);
        let lease = Arc::new(Lease {
            slab: Arc::clone(&self.0),
            slot,
        });
        // SAFETY: the exclusive claim, given back when the lease is dropped, keeps everybody else out
        // of these initialised bytes, which live as long as the slab.
        Ok(unsafe { BufferMut::from_owner(start, self.0.slot_bytes, lease) })
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
