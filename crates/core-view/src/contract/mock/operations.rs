//! Operations that do nothing but take time.

use super::executor::{Executor, Held, Work};
use super::schedule::Fault;
use super::{Dice, Faults, Schedule};
use crate::BufferMut;
use crate::contract::{ContractError, ErrorKind, Failure, Transfer};

/// Starts operations that take buffers and give them back, when and how a [`Schedule`] says.
///
/// ```
/// use core_view::BufferMut;
/// use core_view::contract::mock::{MockOperations, Schedule};
///
/// let operations = MockOperations::new(Schedule::driven(7));
/// let transfer = operations.start(vec![BufferMut::from_vec(vec![1; 64])]);
/// assert!(!transfer.is_done());
/// assert!(operations.step());
/// assert_eq!(transfer.wait()?.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MockOperations(Executor);

/// An operation that goes on until it is let go, or cancelled. Dropped, it goes on for ever.
#[derive(Debug)]
pub struct HeldOperation(Held);

impl HeldOperation {
    /// Lets the operation end.
    pub fn release(self) {
        self.0.release();
    }
}

impl MockOperations {
    /// Operations under `schedule`.
    pub fn new(schedule: Schedule) -> Self {
        Self(Executor::new(schedule))
    }

    /// Starts an operation that gives `buffers` back in order.
    pub fn start(&self, buffers: Vec<BufferMut>) -> Transfer<Vec<BufferMut>> {
        let faults = self.0.schedule().faults;
        self.0.submit(work(faults, buffers))
    }

    /// Starts an operation that does not end by itself.
    pub fn hold(&self, buffers: Vec<BufferMut>) -> (Transfer<Vec<BufferMut>>, HeldOperation) {
        let (transfer, held) = self.0.hold(work(Faults::NONE, buffers));
        (transfer, HeldOperation(held))
    }

    /// Starts an operation whose worker goes away at once.
    pub fn abandon(&self, buffers: Vec<BufferMut>) -> Transfer<Vec<BufferMut>> {
        let (transfer, completer) = Transfer::pair();
        drop((completer, buffers));
        transfer
    }

    /// Carries out one operation that is queued, chosen by the seed; `false` if there is none.
    pub fn step(&self) -> bool {
        self.0.step()
    }
}

fn work(faults: Faults, buffers: Vec<BufferMut>) -> Work<Vec<BufferMut>, Vec<BufferMut>> {
    let carry_out = move |buffers, mut dice: Dice| {
        let outcome = match faults.draw(&mut dice) {
            Some(Fault::Refused | Fault::Torn) => {
                let error = ContractError::new(ErrorKind::Io, "mock operation")
                    .detail("the schedule says so");
                Err(Failure::new(error, buffers))
            }
            Some(Fault::Flipped) | None => Ok(buffers),
        };
        Transfer::ready(outcome)
    };
    Work {
        operation: "mock operation",
        input: buffers,
        give_back: |buffers| buffers,
        carry_out: Box::new(carry_out),
    }
}
