//! Operations on their way to a simulated disk.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use core_view::BufferMut;
use core_view::contract::{Completer, ContractError, ErrorKind, Failure};

use super::disk::Disk;
use crate::progress::{Direction, Progress, Tally, Verdict};
use crate::{FileName, NvmeError};

/// A read, write or sync on its way.
pub(super) struct Flying {
    /// Place in the order of submission.
    pub(super) number: u64,
    pub(super) due: Duration,
    /// Power cycle in which it was submitted.
    pub(super) cycle: u64,
    pub(super) inode: u64,
    name: FileName,
    offset_bytes: u64,
    progress: Progress,
    work: Work,
}

/// What the operation owns until it is done.
pub(super) enum Work {
    Read(BufferMut, Completer<BufferMut>),
    Write(BufferMut, Completer<BufferMut>),
    /// The buffers' bytes in one piece, unless there is one buffer only, and the buffers.
    WriteVectored(Vec<u8>, Vec<BufferMut>, Completer<Vec<BufferMut>>),
    Sync(Completer<()>),
}

/// What an attempt led to.
pub(super) enum Attempted {
    /// Another attempt follows, after this time.
    Later(Duration),
    /// It is over.
    Over(Result<(), ContractError>),
}

/// Counts what the loop resumed.
#[derive(Default)]
struct Resumed(Cell<u64>);

impl Tally for Resumed {
    fn count_short(&self) {
        self.0.set(self.0.get() + 1);
    }

    fn count_retry(&self) {}
}

fn whole<'a>(gathered: &'a [u8], buffers: &'a [BufferMut]) -> &'a [u8] {
    match buffers {
        [buffer] => buffer,
        _ => gathered,
    }
}

impl Flying {
    /// An operation of `len_bytes`; number and time are given when it is submitted.
    pub(super) fn new(
        cycle: u64,
        inode: u64,
        name: FileName,
        (offset_bytes, len_bytes): (u64, usize),
        work: Work,
    ) -> Self {
        let direction = match work {
            Work::Read(..) => Direction::Read,
            Work::Write(..) | Work::WriteVectored(..) => Direction::Write,
            Work::Sync(_) => Direction::Sync,
        };
        let unit_bytes = super::ALIGNMENT.offset_bytes;
        Self {
            number: 0,
            due: Duration::ZERO,
            cycle,
            inode,
            name,
            offset_bytes,
            progress: Progress::new(direction, len_bytes, unit_bytes),
            work,
        }
    }

    fn should_stop(&self) -> bool {
        let now = Instant::now();
        match &self.work {
            Work::Read(_, completer) | Work::Write(_, completer) => completer.should_stop(now),
            Work::WriteVectored(_, _, completer) => completer.should_stop(now),
            Work::Sync(completer) => completer.should_stop(now),
        }
    }

    /// Makes one call to the disk, and finds what follows from it by the loop of the real engines.
    pub(super) fn attempt(&mut self, disk: &mut Disk) -> Attempted {
        if self.progress.done_bytes() == 0 && self.should_stop() {
            return Attempted::Over(Err(self.cancelled()));
        }
        let range = self.progress.next_range(usize::MAX);
        let offset_bytes = self.offset_bytes + range.start as u64;
        let (cycle, inode) = (self.cycle, self.inode);
        let outcome = match &mut self.work {
            Work::Read(target, _) => disk.read(cycle, inode, offset_bytes, &mut target[range]),
            Work::Write(source, _) => disk.write(cycle, inode, offset_bytes, &source[range]),
            Work::WriteVectored(gathered, buffers, _) => {
                let source = whole(gathered, buffers);
                disk.write(cycle, inode, offset_bytes, &source[range])
            }
            Work::Sync(_) => disk.sync(cycle, inode).map(|()| 0),
        };
        let resumed = Resumed::default();
        let verdict = self.progress.advance(outcome, &resumed);
        disk.counts.short_transfers += resumed.0.get();
        match verdict {
            Verdict::Again => Attempted::Later(Duration::ZERO),
            Verdict::Later(_) if self.should_stop() => Attempted::Over(Err(self.cancelled())),
            Verdict::Later(backoff) => Attempted::Later(backoff),
            Verdict::Done => Attempted::Over(Ok(())),
            Verdict::Failed(error) => Attempted::Over(Err(self.error(error))),
        }
    }

    /// What it still would have written: the file, the offset, the bytes.
    pub(super) fn unwritten(&self) -> Option<(u64, usize, &[u8])> {
        let range = self.progress.next_range(usize::MAX);
        let at = self.offset_bytes as usize + range.start;
        match &self.work {
            Work::Write(source, _) => Some((self.inode, at, source.get(range)?)),
            Work::WriteVectored(gathered, buffers, _) => {
                Some((self.inode, at, whole(gathered, buffers).get(range)?))
            }
            Work::Read(..) | Work::Sync(_) => None,
        }
    }

    fn operation(&self) -> &'static str {
        match self.work {
            Work::Read(..) => "read",
            Work::Write(..) | Work::WriteVectored(..) => "write",
            Work::Sync(_) => "sync",
        }
    }

    pub(super) fn error(&self, error: io::Error) -> ContractError {
        NvmeError::from_io(self.operation(), self.name.as_str(), 0, error).into()
    }

    fn cancelled(&self) -> ContractError {
        ContractError::new(ErrorKind::Cancelled, self.operation())
            .detail(format!("{}: it was asked to stop", self.name))
    }

    /// Gives the buffers back and tells the transfer; no lock may be held.
    pub(super) fn finish(self, outcome: Result<(), ContractError>) {
        match self.work {
            Work::Read(buffer, completer) | Work::Write(buffer, completer) => {
                completer.complete(match outcome {
                    Ok(()) => Ok(buffer),
                    Err(error) => Err(Failure::new(error, vec![buffer])),
                });
            }
            Work::WriteVectored(_, buffers, completer) => completer.complete(match outcome {
                Ok(()) => Ok(buffers),
                Err(error) => Err(Failure::new(error, buffers)),
            }),
            Work::Sync(completer) => completer.complete(outcome.map_err(Failure::from)),
        }
    }
}
