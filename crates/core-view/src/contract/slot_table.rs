//! Who may touch which slot.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{ContractError, ErrorKind, SlotCopy, SlotId, SlotRead, SlotWrite};

/// A slot's count of readers, or this while one operation or lease has it for itself.
const EXCLUSIVE: u32 = u32::MAX;

/// Keeps the users of a tier's slots apart, as [`MemoryTier`](super::MemoryTier) demands: many readers
/// or one writer or lease for each slot, and a batch as a whole or not at all.
///
/// For implementations of the tier. It never waits: a slot in use is [`ErrorKind::Busy`].
///
/// ```
/// use core_view::contract::{ErrorKind, SlotId, SlotTable};
///
/// let table = SlotTable::new(8, 4096);
/// let lease = table.claim_lease(SlotId(3))?;
/// assert_eq!(table.claim_lease(SlotId(3)).unwrap_err().kind(), ErrorKind::Busy);
/// drop(lease);
/// table.claim_lease(SlotId(3))?;
/// # Ok::<(), core_view::contract::ContractError>(())
/// ```
#[derive(Clone)]
pub struct SlotTable(Arc<Table>);

struct Table {
    slot_bytes: usize,
    uses: Box<[AtomicU32]>,
}

impl SlotTable {
    /// A table of `slot_count` free slots of `slot_bytes` each.
    pub fn new(slot_count: u32, slot_bytes: usize) -> Self {
        let uses = (0..slot_count).map(|_| AtomicU32::new(0)).collect();
        Self(Arc::new(Table { slot_bytes, uses }))
    }

    /// Number of slots.
    pub fn slot_count(&self) -> u32 {
        u32::try_from(self.0.uses.len()).unwrap_or(u32::MAX)
    }

    /// Bytes a slot.
    pub fn slot_bytes(&self) -> usize {
        self.0.slot_bytes
    }

    /// Checks that there is such a slot.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if not.
    pub fn check_slot(&self, operation: &'static str, slot: SlotId) -> Result<(), ContractError> {
        self.0.uses(operation, slot).map(drop)
    }

    /// Claims a slot for one user alone.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] while it is in use, [`ErrorKind::InvalidInput`] if there is no such slot.
    pub fn claim_lease(&self, slot: SlotId) -> Result<SlotClaims, ContractError> {
        let mut claims = self.claims(1);
        claims.add("lease slot", slot, true)?;
        Ok(claims)
    }

    /// Checks a batch of writes, and claims each of its slots for it alone.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] while a slot is in use; [`ErrorKind::InvalidInput`] for a range outside its
    /// slot, or a slot that the batch writes twice. Nothing is claimed then.
    pub fn claim_writes(&self, writes: &[SlotWrite]) -> Result<SlotClaims, ContractError> {
        const OPERATION: &str = "write slots";
        let mut claims = self.claims(writes.len());
        for (i, write) in writes.iter().enumerate() {
            let len = write.source.len();
            self.check_range(OPERATION, write.slot, write.offset_bytes, len)?;
            claims.add(OPERATION, write.slot, true).map_err(|error| {
                let mut earlier = writes.iter().take(i);
                if earlier.any(|earlier| earlier.slot == write.slot) {
                    used_again(OPERATION, write.slot)
                } else {
                    error
                }
            })?;
        }
        Ok(claims)
    }

    /// Checks a batch of reads, and keeps writers out of its slots.
    ///
    /// # Errors
    /// As [`SlotTable::claim_writes`]; one slot may be read twice.
    pub fn claim_reads(&self, reads: &[SlotRead]) -> Result<SlotClaims, ContractError> {
        const OPERATION: &str = "read slots";
        let mut claims = self.claims(reads.len());
        for read in reads {
            let len = read.target.len();
            self.check_range(OPERATION, read.slot, read.offset_bytes, len)?;
            claims.add(OPERATION, read.slot, false)?;
        }
        Ok(claims)
    }

    /// Checks a batch of copies, and claims its targets and sources.
    ///
    /// # Errors
    /// As [`SlotTable::claim_writes`]; a slot that is both source and target is
    /// [`ErrorKind::InvalidInput`].
    pub fn claim_copies(&self, copies: &[SlotCopy]) -> Result<SlotClaims, ContractError> {
        const OPERATION: &str = "copy slots";
        let mut claims = self.claims(2 * copies.len());
        for (i, copy) in copies.iter().enumerate() {
            let len = copy.len_bytes;
            self.check_range(OPERATION, copy.source, copy.source_offset_bytes, len)?;
            self.check_range(OPERATION, copy.target, copy.target_offset_bytes, len)?;
            let in_batch = |other: &SlotCopy| {
                [other.source, other.target].contains(&copy.target) || other.target == copy.source
            };
            let blame = |error| {
                if copy.source == copy.target || copies.iter().take(i).any(in_batch) {
                    used_again(OPERATION, copy.target)
                } else {
                    error
                }
            };
            claims.add(OPERATION, copy.target, true).map_err(blame)?;
            claims.add(OPERATION, copy.source, false).map_err(blame)?;
        }
        Ok(claims)
    }

    fn claims(&self, count: usize) -> SlotClaims {
        SlotClaims {
            table: Arc::clone(&self.0),
            held: Vec::with_capacity(count),
        }
    }

    fn check_range(
        &self,
        operation: &'static str,
        slot: SlotId,
        offset: usize,
        len: usize,
    ) -> Result<(), ContractError> {
        let slot_bytes = self.0.slot_bytes;
        if offset.checked_add(len).is_some_and(|end| end <= slot_bytes) {
            return Ok(());
        }
        Err(
            ContractError::new(ErrorKind::InvalidInput, operation).detail(format!(
                "{len} bytes at offset {offset} of slot {slot} pass its {slot_bytes} bytes"
            )),
        )
    }
}

impl fmt::Debug for SlotTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotTable")
            .field("slot_count", &self.slot_count())
            .field("slot_bytes", &self.slot_bytes())
            .finish()
    }
}

fn used_again(operation: &'static str, slot: SlotId) -> ContractError {
    ContractError::new(ErrorKind::InvalidInput, operation).detail(format!(
        "the batch writes slot {slot} and uses it again; split the batch"
    ))
}

impl Table {
    fn uses(&self, operation: &'static str, slot: SlotId) -> Result<&AtomicU32, ContractError> {
        let uses = usize::try_from(slot.0).ok().and_then(|i| self.uses.get(i));
        uses.ok_or_else(|| {
            ContractError::new(ErrorKind::InvalidInput, operation).detail(format!(
                "there is no slot {slot}; the tier has {}",
                self.uses.len()
            ))
        })
    }
}

/// The right to touch some slots, given back when it is dropped.
#[must_use = "the claim is over when this is dropped"]
pub struct SlotClaims {
    table: Arc<Table>,
    held: Vec<(SlotId, bool)>,
}

impl SlotClaims {
    fn add(
        &mut self,
        operation: &'static str,
        slot: SlotId,
        exclusive: bool,
    ) -> Result<(), ContractError> {
        let uses = self.table.uses(operation, slot)?;
        let claimed = uses.fetch_update(Ordering::Acquire, Ordering::Relaxed, |count| {
            match (exclusive, count) {
                (true, 0) => Some(EXCLUSIVE),
                (false, count) if count < EXCLUSIVE - 1 => Some(count + 1),
                _ => None,
            }
        });
        if claimed.is_err() {
            return Err(
                ContractError::new(ErrorKind::Busy, operation).detail(format!(
                    "slot {slot} is in use; try again when that is over"
                )),
            );
        }
        self.held.push((slot, exclusive));
        Ok(())
    }
}

impl Drop for SlotClaims {
    fn drop(&mut self) {
        for &(slot, exclusive) in &self.held {
            match self.table.uses("release slot", slot) {
                Ok(uses) if exclusive => uses.store(0, Ordering::Release),
                Ok(uses) => {
                    uses.fetch_sub(1, Ordering::Release);
                }
                Err(_) => {}
            }
        }
    }
}

impl fmt::Debug for SlotClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.held).finish()
    }
}
