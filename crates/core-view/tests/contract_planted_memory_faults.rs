//! Buffers, transfers and memory tiers that are broken on purpose, each in one way that the suites must
//! notice.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use core_alloc::{StorageAllocator, StorageType, SystemAllocator};
use core_view::contract::conformance::{self, TransferSource};
use core_view::contract::mock::{MockOperations, Schedule};
use core_view::contract::{
    ContractError, Drive, ErrorKind, Failure, HostTier, MemoryTier, SlotCopy, SlotId, SlotRead,
    SlotWrite, Transfer,
};
use core_view::{Access, BufferMut, BufferOwner};

fn verdict(run: impl FnOnce()) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
}

fn assert_names(fault: &str, verdict: Option<String>, expected: &str) {
    assert!(
        verdict.as_ref().is_some_and(|text| text.contains(expected)),
        "{fault}: {verdict:?}"
    );
}

struct Everlasting;

// SAFETY: the memory of the test below is never freed.
unsafe impl BufferOwner for Everlasting {
    fn access(&self) -> Access {
        Access::ReadWrite
    }
}

#[test]
fn a_maker_that_gives_one_memory_twice_is_caught() {
    let memory = NonNull::from(Box::leak(vec![0_u8; 16 << 10].into_boxed_slice())).cast::<u8>();
    let verdict = verdict(|| {
        conformance::buffer(&mut |len| {
            // SAFETY: a planted lie: others have a buffer of the same memory. The suite touches them one
            // after the other, through raw parts of one allocation.
            unsafe { BufferMut::from_owner(memory, len, Arc::new(Everlasting)) }
        });
    });
    assert_names("shared memory", verdict, "two buffers share memory");
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    SwappedBuffers,
    LostBuffers,
    ForgetsBuffers,
    WrongKind,
    KindOfAbandoned,
    IgnoresHold,
    Hangs,
}

/// Operations with one fault.
struct Broken {
    inner: MockOperations,
    fault: Fault,
}

impl TransferSource for Broken {
    fn start(&self, buffers: Vec<BufferMut>) -> Transfer<Vec<BufferMut>> {
        let fault = self.fault;
        let transfer = self.inner.start(buffers);
        transfer.map_outcome(move |outcome| match (fault, outcome) {
            (Fault::SwappedBuffers, Ok(mut buffers)) => {
                buffers.reverse();
                Ok(buffers)
            }
            (Fault::LostBuffers, Err(failure)) => Err(Failure::from(failure.into_parts().0)),
            (Fault::ForgetsBuffers, Ok(buffers)) => Ok(buffers
                .iter()
                .map(|buffer| BufferMut::from_vec(buffer.to_vec()))
                .collect()),
            (Fault::WrongKind, Err(failure)) => {
                let error = ContractError::new(ErrorKind::NotFound, "planted fault");
                Err(Failure::new(error, failure.into_parts().1.reclaim()))
            }
            (_, outcome) => outcome,
        })
    }

    fn hold(
        &self,
        buffers: Vec<BufferMut>,
    ) -> Option<(Transfer<Vec<BufferMut>>, Box<dyn FnOnce() + Send>)> {
        if self.fault == Fault::IgnoresHold {
            return Some((self.inner.start(buffers), Box::new(|| {})));
        }
        TransferSource::hold(&self.inner, buffers)
    }

    fn abandon(&self, buffers: Vec<BufferMut>) -> Option<Transfer<Vec<BufferMut>>> {
        match self.fault {
            Fault::KindOfAbandoned => {
                let error = ContractError::new(ErrorKind::Io, "planted fault");
                Some(Transfer::ready(Err(Failure::new(error, buffers))))
            }
            Fault::Hangs => {
                let (transfer, completer) = Transfer::pair();
                std::mem::forget(completer);
                Some(transfer)
            }
            _ => TransferSource::abandon(&self.inner, buffers),
        }
    }
}

#[test]
fn every_planted_fault_of_operations_is_named() {
    let faults = [
        (Fault::SwappedBuffers, "other buffers came back"),
        (
            Fault::LostBuffers,
            "the buffers lost or changed by a failure",
        ),
        (Fault::ForgetsBuffers, "other buffers came back"),
        (Fault::WrongKind, "a kind that the contract does not name"),
        (
            Fault::KindOfAbandoned,
            "a kind that the contract does not name",
        ),
        (Fault::IgnoresHold, "a held operation is done"),
        (Fault::Hangs, "the transfer hangs"),
    ];
    let run = |fault| {
        let inner = MockOperations::new(Schedule::failing(3, 0.3));
        verdict(|| conformance::transfer(&Broken { inner, fault }))
    };
    assert_eq!(run(Fault::None), None);
    for (fault, expected) in faults {
        assert_names(&format!("{fault:?}"), run(fault), expected);
    }
}

/// Frees the memory of its operations when they begin, and writes it when they are done.
#[derive(Default)]
struct FreesEarly(Arc<Strays>);

type Stray = (usize, core_view::contract::Completer<Vec<BufferMut>>);

#[derive(Default)]
struct Strays(Mutex<VecDeque<Stray>>);

impl Drive for Strays {
    fn drive(&self, _: Option<Duration>) {
        let stray = self.0.lock().unwrap().pop_front();
        if let Some((address, completer)) = stray {
            let memory = std::ptr::with_exposed_provenance_mut::<u8>(address);
            // SAFETY: a planted use after free: the suite's quarantine, which has the memory now, has
            // not given it back to the allocator, and looks at it later, on this thread.
            unsafe { memory.write(1) };
            let error = ContractError::new(ErrorKind::Abandoned, "planted fault");
            completer.complete(Err(error.into()));
        }
    }
}

impl TransferSource for FreesEarly {
    fn start(&self, mut buffers: Vec<BufferMut>) -> Transfer<Vec<BufferMut>> {
        let (transfer, completer) = Transfer::driven(Arc::clone(&self.0) as _);
        let address = buffers[0].as_mut_ptr().expose_provenance();
        drop(buffers);
        self.0.0.lock().unwrap().push_back((address, completer));
        transfer
    }
}

#[test]
fn an_operation_that_frees_its_memory_early_is_caught() {
    let source = FreesEarly::default();
    let verdict = verdict(|| conformance::transfer(&source));
    assert_names(
        "frees early",
        verdict,
        "was written after it was given back",
    );
}

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
