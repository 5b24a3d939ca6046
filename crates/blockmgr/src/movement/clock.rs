//! The time that deadlines are measured in.

use std::fmt;
use std::time::{Duration, Instant};

/// A cancellation is noticed after at most so long.
const SLICE: Duration = Duration::from_millis(2);

/// Tells the time; a simulation has one of its own, so that a seed decides what is late.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Time since an instant of the clock's own, never less than before.
    fn now(&self) -> Duration;

    /// How long a transfer is waited for, in real time, before the clock is asked again; `left` until the deadline.
    /// With zero, whoever waits pushes the transfer once and asks again.
    fn slice(&self, left: Duration) -> Duration {
        left.min(SLICE)
    }
}

/// Real time.
#[derive(Debug)]
pub(super) struct SystemClock(Instant);

impl SystemClock {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
