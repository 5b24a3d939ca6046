//! Buffers and operations that are broken on purpose, each in one way that the suites must
//! notice.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod planted;

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use core_view::contract::conformance::{self, TransferSource};
use core_view::contract::mock::{MockOperations, Schedule};
use core_view::contract::{Completer, ContractError, Drive, ErrorKind, Failure, Transfer};
use core_view::{Access, BufferMut, BufferOwner};
use planted::{assert_names, verdict};

struct Everlasting;

// SAFETY: the memory of the test below is never freed.
unsafe impl BufferOwner for Everlasting {
    fn access(&self) -> Access {
        Access::ReadWrite
    }
}

#[test]
fn a_maker_that_gives_one_memory_twice_is_caught() {
    static mut MEMORY: [u8; 16 << 10] = [0; 16 << 10];
    let memory = NonNull::new(&raw mut MEMORY).unwrap().cast::<u8>();
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

/// Sides of operations that nobody will ever complete, kept where leak checkers see them.
static FORGOTTEN: Mutex<Vec<Completer<Vec<BufferMut>>>> = Mutex::new(Vec::new());

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
                FORGOTTEN.lock().unwrap().push(completer);
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

type Stray = (usize, Completer<Vec<BufferMut>>);

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

impl Drop for FreesEarly {
    fn drop(&mut self) {
        let strays = std::mem::take(&mut *self.0.0.lock().unwrap());
        drop(strays);
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
