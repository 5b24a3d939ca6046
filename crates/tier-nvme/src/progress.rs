//! How far a read, write or sync has come, and what follows from the outcome of a call.
//!
//! Engines of real files and the simulated volume resume what ended early by this, and by nothing else.

use std::io;
use std::ops::Range;
use std::time::Duration;

/// How often a call that is put off (EINTR, EAGAIN, EBUSY) is made again in a row.
const RETRIES_MAX: u32 = 200;

/// How often in a row a call may transfer less than the alignment.
const STALLS_MAX: u32 = 3;

const BACKOFF_MAX: Duration = Duration::from_millis(10);

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
    Sync,
}

/// What follows from the outcome of a call.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Make the next call.
    Again,
    /// Make the next call after this time.
    Later(Duration),
    /// All bytes are transferred.
    Done,
    /// The operation has failed.
    Failed(io::Error),
}

/// Told of what did not go in one call.
pub(crate) trait Tally {
    /// A call transferred less than it was asked to.
    fn count_short(&self);
    /// A call was put off and is made again.
    fn count_retry(&self);
}

/// How far an operation is.
#[derive(Debug)]
pub(crate) struct Progress {
    direction: Direction,
    len_bytes: usize,
    done_bytes: usize,
    /// What offsets must be multiples of.
    unit_bytes: usize,
    retries: u32,
    stalls: u32,
}

impl Progress {
    pub(crate) fn new(direction: Direction, len_bytes: usize, unit_bytes: usize) -> Self {
        Self {
            direction,
            len_bytes,
            done_bytes: 0,
            unit_bytes: unit_bytes.max(1),
            retries: 0,
            stalls: 0,
        }
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    pub(crate) fn done_bytes(&self) -> usize {
        self.done_bytes
    }

    /// The bytes of the next call, at most `limit_bytes`.
    pub(crate) fn next_range(&self, limit_bytes: usize) -> Range<usize> {
        let len = (self.len_bytes - self.done_bytes).min(limit_bytes);
        self.done_bytes..self.done_bytes + len
    }

    /// Takes in the outcome of a call.
    pub(crate) fn advance(&mut self, outcome: io::Result<usize>, tally: &impl Tally) -> Verdict {
        match outcome {
            Ok(_) if self.direction == Direction::Sync => Verdict::Done,
            Ok(transferred_bytes) => self.advance_by(transferred_bytes, tally),
            // What a failed sync has made durable is unknown, and the kernel forgets the failure: a
            // second call would report success for data that is lost.
            Err(error) if self.direction == Direction::Sync => Verdict::Failed(error),
            Err(error) => self.retry(error, tally),
        }
    }

    fn advance_by(&mut self, transferred_bytes: usize, tally: &impl Tally) -> Verdict {
        self.retries = 0;
        let reached = self
            .done_bytes
            .saturating_add(transferred_bytes)
            .min(self.len_bytes);
        if reached == self.len_bytes {
            self.done_bytes = reached;
            return Verdict::Done;
        }
        tally.count_short();
        // The next call must be aligned, so that a part of a unit is transferred again.
        let reached = reached - reached % self.unit_bytes;
        if reached > self.done_bytes {
            self.done_bytes = reached;
            self.stalls = 0;
            return Verdict::Again;
        }
        self.stalls += 1;
        let is_read = self.direction == Direction::Read;
        if self.stalls < STALLS_MAX && !(is_read && transferred_bytes == 0) {
            return Verdict::Again;
        }
        Verdict::Failed(if is_read {
            io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected end of file")
        } else {
            io::Error::new(io::ErrorKind::WriteZero, "the write makes no progress")
        })
    }

    fn retry(&mut self, error: io::Error, tally: &impl Tally) -> Verdict {
        let interrupted = error.kind() == io::ErrorKind::Interrupted;
        let put_off = matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy
        );
        self.retries += 1;
        if !(interrupted || put_off) || self.retries > RETRIES_MAX {
            return Verdict::Failed(error);
        }
        tally.count_retry();
        if interrupted {
            return Verdict::Again;
        }
        let backoff = Duration::from_micros(20) * self.retries.min(1000);
        Verdict::Later(backoff.min(BACKOFF_MAX))
    }
}
