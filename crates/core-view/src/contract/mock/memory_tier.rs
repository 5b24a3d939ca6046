//! A memory tier whose copies happen when a schedule says.

use std::ptr::NonNull;
use std::sync::Arc;

use core_alloc::StorageType;

use super::executor::{Executor, Work};
use super::schedule::Fault;
use super::{Dice, FaultCounts, Schedule};
use crate::contract::{
    ContractError, ErrorKind, Failure, MemoryTier, SlotClaims, SlotCopy, SlotId, SlotRead,
    SlotTable, SlotWrite, Transfer,
};
use crate::{Access, BufferMut, BufferOwner};

/// Another tier, its copies delayed, reordered and made to fail by a [`Schedule`].
///
/// The slots of a batch are out of reach from the call on, as they are on a device. The tier within is
/// to be used through this one alone.
#[derive(Debug)]
pub struct MockTier<M> {
    inner: Arc<M>,
    table: SlotTable,
    executor: Executor,
}

impl<M: MemoryTier + 'static> MockTier<M> {
    /// `inner` under `schedule`.
    pub fn new(inner: M, schedule: Schedule) -> Self {
        Self {
            table: SlotTable::new(inner.slot_count(), inner.slot_bytes()),
            inner: Arc::new(inner),
            executor: Executor::new(schedule),
        }
    }

    /// The faults that came about so far.
    pub fn fault_counts(&self) -> FaultCounts {
        self.executor.faults().counts()
    }

    /// Carries out one batch that is queued, chosen by the seed; `false` if there is none.
    pub fn step(&self) -> bool {
        self.executor.step()
    }

    /// Submits a batch that was claimed, or refuses it.
    fn batch<B: Send + 'static, T: Send + 'static>(
        &self,
        operation: &'static str,
        claims: Result<SlotClaims, ContractError>,
        batch: B,
        give_back: fn((B, SlotClaims)) -> Vec<BufferMut>,
        begin: impl FnOnce(&M, B) -> Transfer<T> + Send + 'static,
        take_back: fn(T) -> Vec<BufferMut>,
    ) -> Result<Transfer<T>, (ContractError, B)> {
        let claims = match claims {
            Ok(claims) => claims,
            Err(error) => return Err((error, batch)),
        };
        let (inner, faults) = (Arc::clone(&self.inner), self.executor.schedule().faults);
        let counters = Arc::clone(self.executor.faults());
        let carry_out = move |(batch, claims): (B, SlotClaims), mut dice: Dice| {
            let error = ContractError::new(ErrorKind::Io, operation).detail("the schedule says so");
            match faults.draw(&mut dice) {
                Some(Fault::Refused) => {
                    counters.note(Fault::Refused);
                    Transfer::ready(Err(Failure::new(error, give_back((batch, claims)))))
                }
                fault => begin(&inner, batch).map_outcome(move |outcome| {
                    drop(claims);
                    match fault {
                        Some(Fault::Torn) => {
                            counters.note(Fault::Torn);
                            outcome.and_then(|done| Err(Failure::new(error, take_back(done))))
                        }
                        _ => outcome,
                    }
                }),
            }
        };
        Ok(self.executor.submit(Work {
            operation,
            input: (batch, claims),
            give_back,
            carry_out: Box::new(carry_out),
        }))
    }
}

fn sources(writes: Vec<SlotWrite>) -> Vec<BufferMut> {
    writes.into_iter().map(|write| write.source).collect()
}

fn targets(reads: Vec<SlotRead>) -> Vec<BufferMut> {
    reads.into_iter().map(|read| read.target).collect()
}

impl<M: MemoryTier + 'static> MemoryTier for MockTier<M> {
    fn storage_type(&self) -> StorageType {
        self.inner.storage_type()
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
        let claim = self.table.claim_lease(slot)?;
        let mut buffer = self.inner.lease(slot)?;
        let Some(start) = NonNull::new(buffer.as_mut_ptr()) else {
            return Err(ContractError::new(ErrorKind::Unsupported, "lease slot"));
        };
        let len = buffer.len();
        let lease = Arc::new(Lease { buffer, claim });
        // SAFETY: the lease owns the buffer, whose bytes nobody else reaches and which is not touched
        // but through this pointer from now on.
        Ok(unsafe { BufferMut::from_owner(start, len, lease) })
    }

    fn write(&self, writes: Vec<SlotWrite>) -> Transfer<Vec<BufferMut>> {
        self.batch(
            "write slots",
            self.table.claim_writes(&writes),
            writes,
            |(writes, _)| sources(writes),
            |inner, writes| inner.write(writes),
            |sources| sources,
        )
        .unwrap_or_else(|(error, writes)| {
            Transfer::ready(Err(Failure::new(error, sources(writes))))
        })
    }

    fn read(&self, reads: Vec<SlotRead>) -> Transfer<Vec<BufferMut>> {
        self.batch(
            "read slots",
            self.table.claim_reads(&reads),
            reads,
            |(reads, _)| targets(reads),
            |inner, reads| inner.read(reads),
            |targets| targets,
        )
        .unwrap_or_else(|(error, reads)| Transfer::ready(Err(Failure::new(error, targets(reads)))))
    }

    fn copy(&self, copies: Vec<SlotCopy>) -> Transfer<()> {
        self.batch(
            "copy slots",
            self.table.claim_copies(&copies),
            copies,
            |_| Vec::new(),
            |inner, copies| inner.copy(copies),
            |()| Vec::new(),
        )
        .unwrap_or_else(|(error, _)| Transfer::ready(Err(error.into())))
    }
}

/// A slot that was leased from the tier within: its own lease ends first, then the claim here.
struct Lease {
    buffer: BufferMut,
    #[expect(dead_code, reason = "it is held until the lease is dropped")]
    claim: SlotClaims,
}

// SAFETY: the buffer's memory lives as long as the buffer, and nobody else reaches it.
unsafe impl BufferOwner for Lease {
    fn storage_type(&self) -> StorageType {
        self.buffer.storage_type()
    }

    fn access(&self) -> Access {
        Access::ReadWrite
    }
}
