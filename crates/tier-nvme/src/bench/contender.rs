//! Who does a piece of work, and how long it takes.

use std::error::Error;
use std::time::{Duration, Instant};

use super::{Action, Work};
use crate::real::ProcessUsage;

/// Why a measurement failed.
pub type BenchError = Box<dyn Error + Send + Sync>;

/// Does pieces of work, a turn at a time. Turns are numbered by whoever measures, the same for all contenders.
pub trait Contender {
    /// Its name in tables.
    fn name(&self) -> String;

    /// Whether what it put is on the device, whatever happens to the power, when `run` returns.
    fn is_durable(&self) -> bool;

    /// Gets ready for a turn: values to be put are made, values to be got are there and in no cache of the kernel.
    /// None of it is timed.
    ///
    /// # Errors
    /// Whatever goes wrong.
    fn prepare(&mut self, work: &Work, turn: u64) -> Result<(), BenchError>;

    /// Does the work of a turn.
    ///
    /// # Errors
    /// Whatever goes wrong; a value that is not the right one.
    fn run(&mut self, work: &Work, turn: u64) -> Result<(), BenchError>;
}

/// What a turn took.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// Time on the clock.
    pub elapsed: Duration,
    /// Processor time of the whole process meanwhile.
    pub cpu: Duration,
    /// Bytes that the process wrote, getting ready included, for what is put off until then.
    pub written_bytes: u64,
}

/// Lets a contender take a turn.
///
/// # Errors
/// Its own.
pub fn measure(
    contender: &mut dyn Contender,
    work: &Work,
    turn: u64,
) -> Result<Sample, BenchError> {
    let before = ProcessUsage::now();
    contender.prepare(work, turn)?;
    let ready = ProcessUsage::now();
    let started = Instant::now();
    contender.run(work, turn)?;
    let elapsed = started.elapsed();
    let done = ProcessUsage::now();
    let written_since = match work.action {
        Action::Put => before,
        Action::Get => ready,
    };
    Ok(Sample {
        elapsed,
        cpu: done.since(ready).cpu,
        written_bytes: done.since(written_since).written_bytes,
    })
}
