//! Memory tiers that are broken on purpose, each in one way that the suite must notice.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod planted;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use core_alloc::{StorageAllocator, StorageType, SystemAllocator};
use core_view::BufferMut;
use core_view::contract::conformance;
use core_view::contract::{
    ContractError, Drive, ErrorKind, Failure, HostTier, MemoryTier, SlotCopy, SlotId, SlotRead,
    SlotWrite, Transfer,
};
use planted::{assert_names, verdict};

#[derive(Debug, Clone, Copy, PartialEq)]
enum TierFault {
    None,
    ShortWrites,
    NeighbourSlot,
    LosesBuffers,
    BeginsRefused,
    TakesDoubled,
    KeepsSlots,
    LeaseOfCopy,
    BusyForever,
    SameAddress,
}

/// A tier with one fault.
#[derive(Debug)]
struct BrokenTier {
    inner: HostTier,
    fault: TierFault,
    kept: Mutex<Vec<BufferMut>>,
}

impl BrokenTier {
    fn new(fault: TierFault) -> Self {
        let storage = SystemAllocator::default().allocate(8 * 256).unwrap();
        Self {
            inner: HostTier::new(storage, 256).unwrap(),
            fault,
            kept: Mutex::default(),
        }
    }

    fn write_one_by_one(&self, writes: Vec<SlotWrite>) -> Transfer<Vec<BufferMut>> {
        let mut sources = Vec::new();
        let mut error = None;
        for write in writes {
            match self.inner.write(vec![write]).wait() {
                Ok(mut done) => sources.append(&mut done),
                Err(failure) => {
                    let (cause, back) = failure.into_parts();
                    error = Some(cause);
                    sources.append(&mut back.reclaim());
                }
            }
        }
        Transfer::ready(match error {
            Some(error) => Err(Failure::new(error, sources)),
            None => Ok(sources),
        })
    }
}

impl MemoryTier for BrokenTier {
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
        let addr = self.inner.slot_addr(slot)?;
        Ok(match self.fault {
            TierFault::SameAddress => addr - u64::from(slot.0) * 64,
            _ => addr,
        })
    }

    fn lease(&self, slot: SlotId) -> Result<BufferMut, ContractError> {
        let lease = self.inner.lease(slot)?;
        Ok(match self.fault {
            TierFault::LeaseOfCopy => BufferMut::from_vec(lease.to_vec()),
            _ => lease,
        })
    }

    fn write(&self, mut writes: Vec<SlotWrite>) -> Transfer<Vec<BufferMut>> {
        match self.fault {
            TierFault::ShortWrites => {
                let tails: Vec<_> = writes
                    .iter_mut()
                    .map(|write| write.source.split_off(write.source.len() / 2))
                    .collect();
                let transfer = self.inner.write(writes);
                transfer.map(|mut heads| {
                    for (head, tail) in heads.iter_mut().zip(tails) {
                        head.unsplit(tail).unwrap();
                    }
                    heads
                })
            }
            TierFault::NeighbourSlot => {
                for write in &mut writes {
                    let next = write.slot.0 + 1;
                    if next == 3 {
                        write.slot = SlotId(5);
                    }
                }
                self.inner.write(writes)
            }
            TierFault::LosesBuffers => self
                .inner
                .write(writes)
                .map_outcome(|outcome| outcome.map_err(|failure| failure.into_parts().0.into())),
            TierFault::BeginsRefused | TierFault::TakesDoubled => self.write_one_by_one(writes),
            TierFault::KeepsSlots => {
                let slots: Vec<_> = writes.iter().map(|write| write.slot).collect();
                let transfer = self.inner.write(writes);
                let leases = slots
                    .into_iter()
                    .filter_map(|slot| self.inner.lease(slot).ok());
                self.kept.lock().unwrap().extend(leases);
                transfer
            }
            TierFault::BusyForever => {
                let sources = writes.into_iter().map(|write| write.source).collect();
                let error = ContractError::new(ErrorKind::Busy, "planted fault");
                Transfer::ready(Err(Failure::new(error, sources)))
            }
            _ => self.inner.write(writes),
        }
    }

    fn read(&self, reads: Vec<SlotRead>) -> Transfer<Vec<BufferMut>> {
        self.inner.read(reads)
    }

    fn copy(&self, copies: Vec<SlotCopy>) -> Transfer<()> {
        self.inner.copy(copies)
    }
}

#[test]
fn every_planted_fault_of_tiers_is_named() {
    let faults = [
        (
            TierFault::ShortWrites,
            "holds other bytes than were written",
        ),
        (
            TierFault::NeighbourSlot,
            "holds other bytes than were written",
        ),
        (
            TierFault::LosesBuffers,
            "the buffers lost or changed by a failure",
        ),
        (
            TierFault::BeginsRefused,
            "it succeeded where it must be refused",
        ),
        (
            TierFault::TakesDoubled,
            "it succeeded where it must be refused",
        ),
        (
            TierFault::KeepsSlots,
            "a kind that the contract does not name",
        ),
        (TierFault::LeaseOfCopy, "a leased slot was leased again"),
        (
            TierFault::BusyForever,
            "a kind that the contract does not name",
        ),
        (TierFault::SameAddress, "two slots overlap"),
    ];
    let run =
        |fault| verdict(|| conformance::memory_tier(&|| Arc::new(BrokenTier::new(fault)) as _));
    assert_eq!(run(TierFault::None), None);
    for (fault, expected) in faults {
        assert_names(&format!("{fault:?}"), run(fault), expected);
    }
}

/// A tier that carries out each write in two steps, and lets others in between.
#[derive(Debug)]
struct TwoWriters {
    inner: HostTier,
    halves: Arc<Halves>,
}

type Step = Box<dyn FnOnce() + Send>;

/// First halves in order, then second halves in reverse.
#[derive(Default)]
struct Halves {
    first: Mutex<VecDeque<Step>>,
    second: Mutex<Vec<Step>>,
}

impl std::fmt::Debug for Halves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Halves").finish_non_exhaustive()
    }
}

impl Drive for Halves {
    fn drive(&self, _: Option<Duration>) {
        let first = self.first.lock().unwrap().pop_front();
        let second = || self.second.lock().unwrap().pop();
        if let Some(step) = first.or_else(second) {
            step();
        }
    }
}

impl MemoryTier for TwoWriters {
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

    fn lease(&self, _: SlotId) -> Result<BufferMut, ContractError> {
        Err(ContractError::new(ErrorKind::Unsupported, "lease slot"))
    }

    fn write(&self, mut writes: Vec<SlotWrite>) -> Transfer<Vec<BufferMut>> {
        let [write] = &mut writes[..] else {
            return self.inner.write(writes);
        };
        let (slot, offset_bytes) = (write.slot, write.offset_bytes);
        let half = write.source.len() / 2;
        let tail = write.source.split_off(half);
        let (transfer, completer) = Transfer::driven(Arc::clone(&self.halves) as _);
        let (inner, halves) = (self.inner.clone(), Arc::clone(&self.halves));
        let first = move || {
            let head = inner.write(writes).wait();
            let last = move || {
                let write = SlotWrite {
                    slot,
                    offset_bytes: offset_bytes + half,
                    source: tail,
                };
                let tail = inner.write(vec![write]).wait();
                completer.complete(head.and_then(|mut head| {
                    head[0].unsplit(tail?.pop().unwrap()).unwrap();
                    Ok(head)
                }));
            };
            halves.second.lock().unwrap().push(Box::new(last));
        };
        self.halves.first.lock().unwrap().push_back(Box::new(first));
        transfer
    }

    fn read(&self, reads: Vec<SlotRead>) -> Transfer<Vec<BufferMut>> {
        self.inner.read(reads)
    }

    fn copy(&self, copies: Vec<SlotCopy>) -> Transfer<()> {
        self.inner.copy(copies)
    }
}

#[test]
fn a_tier_that_lets_two_writers_in_is_caught() {
    let verdict = verdict(|| {
        conformance::memory_tier(&|| {
            let storage = SystemAllocator::default().allocate(8 * 256).unwrap();
            Arc::new(TwoWriters {
                inner: HostTier::new(storage, 256).unwrap(),
                halves: Arc::default(),
            }) as _
        });
    });
    assert_names("two writers", verdict, "mixture");
}
