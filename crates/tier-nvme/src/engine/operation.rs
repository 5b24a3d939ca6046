//! One read, write or sync: what it works on, how far it is, and whom to tell.

use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use core_view::BufferMut;
use core_view::contract::{Completer, ContractError, ErrorKind, Failure, Transfer};

use super::{Counters, OpenFile};
use crate::error::is_full;
use crate::progress::{Direction, Progress, Verdict};

/// Most bytes of one call to the kernel, which takes a little less than 2 GiB.
const ATTEMPT_BYTES_MAX: usize = 1 << 30;

/// Most buffers of one call to the kernel (IOV_MAX).
const ATTEMPT_BUFFERS_MAX: usize = 1024;

/// A read, write or sync, with everything that the kernel needs to carry it out.
#[derive(Debug)]
pub(crate) struct Operation {
    file: Arc<OpenFile>,
    offset_bytes: u64,
    progress: Progress,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// Without a completer, whoever carries the read out takes the outcome.
    Read(BufferMut, Option<Completer<BufferMut>>),
    Write(BufferMut, Completer<BufferMut>),
    WriteVectored(Vec<BufferMut>, Completer<Vec<BufferMut>>),
    Sync(Completer<()>),
}

/// The next call to make for an operation.
pub(super) enum Attempt<'a> {
    Read(&'a mut [u8]),
    Write(&'a [u8]),
    WriteVectored(Vec<IoSlice<'a>>),
    Sync,
}

/// What follows from the outcome of a call.
#[derive(Debug)]
pub(super) enum Next {
    /// Make the next call.
    Again,
    /// Make the next call after this time.
    Later(Duration),
    /// All bytes are transferred.
    Done,
    /// The operation has failed.
    Failed(ContractError),
}

impl Operation {
    /// Fills `target` from `offset_bytes`; alignment is checked by the caller.
    pub(crate) fn read(
        file: Arc<OpenFile>,
        offset_bytes: u64,
        target: BufferMut,
    ) -> (Self, Transfer<BufferMut>) {
        let (transfer, completer) = Transfer::pair();
        let len_bytes = target.len();
        let work = Work::Read(target, Some(completer));
        (Self::new(file, offset_bytes, len_bytes, work), transfer)
    }

    /// As [`read`](Self::read), for a thread that carries the read out and ends it by
    /// [`finish_read`](Self::finish_read).
    pub(crate) fn read_here(file: Arc<OpenFile>, offset_bytes: u64, target: BufferMut) -> Self {
        let len_bytes = target.len();
        Self::new(file, offset_bytes, len_bytes, Work::Read(target, None))
    }

    /// Gives a read that has none a transfer.
    pub(crate) fn with_transfer(mut self) -> (Self, Transfer<BufferMut>) {
        let (transfer, completer) = Transfer::pair();
        if let Work::Read(_, place) = &mut self.work {
            *place = Some(completer);
        }
        (self, transfer)
    }

    /// Writes `source` at `offset_bytes`; alignment is checked by the caller.
    pub(crate) fn write(
        file: Arc<OpenFile>,
        offset_bytes: u64,
        source: BufferMut,
    ) -> (Self, Transfer<BufferMut>) {
        let (transfer, completer) = Transfer::pair();
        let len_bytes = source.len();
        let work = Work::Write(source, completer);
        (Self::new(file, offset_bytes, len_bytes, work), transfer)
    }

    /// Writes `sources`, `len_bytes` together, one after the other from `offset_bytes`.
    pub(crate) fn write_vectored(
        file: Arc<OpenFile>,
        offset_bytes: u64,
        sources: Vec<BufferMut>,
        len_bytes: usize,
    ) -> (Self, Transfer<Vec<BufferMut>>) {
        let (transfer, completer) = Transfer::pair();
        let work = Work::WriteVectored(sources, completer);
        (Self::new(file, offset_bytes, len_bytes, work), transfer)
    }

    /// Makes all writes that are done durable, with the file's length.
    pub(crate) fn sync(file: Arc<OpenFile>) -> (Self, Transfer<()>) {
        let (transfer, completer) = Transfer::pair();
        (Self::new(file, 0, 0, Work::Sync(completer)), transfer)
    }

    fn new(file: Arc<OpenFile>, offset_bytes: u64, len_bytes: usize, work: Work) -> Self {
        let direction = match work {
            Work::Read(..) => Direction::Read,
            Work::Write(..) | Work::WriteVectored(..) => Direction::Write,
            Work::Sync(_) => Direction::Sync,
        };
        let unit_bytes = file.alignment.offset_bytes;
        Self {
            file,
            offset_bytes,
            progress: Progress::new(direction, len_bytes, unit_bytes),
            work,
        }
    }

    /// The file, for a call that borrows the buffers at the same time.
    pub(super) fn file(&self) -> Arc<OpenFile> {
        Arc::clone(&self.file)
    }

    /// Offset of the next call.
    pub(super) fn position_bytes(&self) -> u64 {
        self.offset_bytes + self.progress.done_bytes() as u64
    }

    /// Whether the operation was asked to stop.
    pub(super) fn should_stop(&self) -> bool {
        let now = Instant::now();
        match &self.work {
            Work::Read(_, completer) => completer
                .as_ref()
                .is_some_and(|completer| completer.should_stop(now)),
            Work::Write(_, completer) => completer.should_stop(now),
            Work::WriteVectored(_, completer) => completer.should_stop(now),
            Work::Sync(completer) => completer.should_stop(now),
        }
    }

    /// The next call to make, of at most `limit_bytes`.
    pub(super) fn attempt(&mut self, limit_bytes: Option<usize>) -> Attempt<'_> {
        let limit_bytes = limit_bytes.unwrap_or(usize::MAX).min(ATTEMPT_BYTES_MAX);
        let range = self.progress.next_range(limit_bytes);
        match &mut self.work {
            Work::Read(target, _) => Attempt::Read(&mut target[range]),
            Work::Write(source, _) => Attempt::Write(&source[range]),
            Work::WriteVectored(sources, _) => {
                Attempt::WriteVectored(slices_of(sources, range.start, range.len()))
            }
            Work::Sync(_) => Attempt::Sync,
        }
    }

    /// Takes in the outcome of a call.
    pub(super) fn advance(&mut self, outcome: io::Result<usize>, counters: &Counters) -> Next {
        match self.progress.advance(outcome, counters) {
            Verdict::Again => Next::Again,
            Verdict::Later(_) if self.should_stop() => Next::Failed(self.cancelled()),
            Verdict::Later(backoff) => Next::Later(backoff),
            Verdict::Done => Next::Done,
            Verdict::Failed(error) => Next::Failed(self.error(error)),
        }
    }

    fn name(&self) -> &'static str {
        match self.work {
            Work::Read(..) => "read file",
            Work::Write(..) | Work::WriteVectored(..) => "write file",
            Work::Sync(_) => "sync file",
        }
    }

    /// `error` with the facts of this operation.
    pub(super) fn error(&self, error: io::Error) -> ContractError {
        let kind = match error.kind() {
            kind if is_full(kind) => ErrorKind::NoSpace,
            io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy => ErrorKind::Busy,
            io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Unsupported,
            _ => ErrorKind::Io,
        };
        let advice = match kind {
            ErrorKind::NoSpace => "free some space and try again",
            ErrorKind::Busy => "try again",
            _ => "check the device and the file system",
        };
        let place = match self.work {
            Work::Sync(_) => String::new(),
            _ => format!(
                " ({} of {} bytes done at offset {})",
                self.progress.done_bytes(),
                self.progress.len_bytes(),
                self.offset_bytes
            ),
        };
        let detail = format!("{}{place}: {error}; {advice}", self.file.path);
        ContractError::new(kind, self.name())
            .detail(detail)
            .source(error)
    }

    /// A failure of an operation that the kernel never had.
    pub(super) fn refusal(&self, kind: ErrorKind, reason: &str) -> ContractError {
        ContractError::new(kind, self.name()).detail(format!("{}: {reason}", self.file.path))
    }

    /// The failure of an operation that was asked to stop.
    pub(super) fn cancelled(&self) -> ContractError {
        self.refusal(ErrorKind::Cancelled, "it was asked to stop while it waited")
    }

    /// Counts the outcome, gives the buffers back and tells the transfer.
    ///
    /// A callback that panics is kept from unwinding through the engine, which may hold memory that the
    /// kernel writes to.
    pub(crate) fn finish(self, outcome: Result<(), ContractError>, counters: &Counters) {
        self.count(&outcome, counters);
        // The file may be closed by whoever learns of the outcome.
        drop(self.file);
        let work = self.work;
        let told = catch_unwind(AssertUnwindSafe(|| match work {
            Work::Read(buffer, completer) => {
                let outcome = with_buffer(outcome, buffer);
                if let Some(completer) = completer {
                    completer.complete(outcome);
                }
            }
            Work::Write(buffer, completer) => completer.complete(with_buffer(outcome, buffer)),
            Work::WriteVectored(buffers, completer) => completer.complete(match outcome {
                Ok(()) => Ok(buffers),
                Err(error) => Err(Failure::new(error, buffers)),
            }),
            Work::Sync(completer) => completer.complete(outcome.map_err(Failure::from)),
        }));
        if told.is_err() {
            counters.count_panic();
        }
    }

    /// Counts the outcome of a read that has no transfer, and returns it.
    pub(crate) fn finish_read(
        self,
        outcome: Result<(), ContractError>,
        counters: &Counters,
    ) -> Result<BufferMut, Failure> {
        self.count(&outcome, counters);
        match self.work {
            Work::Read(buffer, _) | Work::Write(buffer, _) => with_buffer(outcome, buffer),
            Work::WriteVectored(..) | Work::Sync(_) => {
                let error = ContractError::new(ErrorKind::InvalidInput, "read file");
                Err(error.detail("the operation is no read").into())
            }
        }
    }

    fn count(&self, outcome: &Result<(), ContractError>, counters: &Counters) {
        let len_bytes = self.progress.len_bytes();
        match (&self.work, outcome) {
            (_, Err(error)) => {
                counters.count_failure();
                if error.kind() == ErrorKind::Cancelled {
                    counters.count_cancelled();
                }
            }
            (Work::Read(..), Ok(())) => counters.count_read(len_bytes),
            (Work::Write(..) | Work::WriteVectored(..), Ok(())) => counters.count_write(len_bytes),
            (Work::Sync(_), Ok(())) => counters.count_sync(),
        }
    }

    /// Fails the operation while the kernel may still use its memory: buffers and file are leaked.
    #[cfg(feature = "io-uring")]
    pub(super) fn abandon(self, error: ContractError, counters: &Counters) {
        counters.count_failure();
        std::mem::forget(self.file);
        let told = catch_unwind(AssertUnwindSafe(|| match self.work {
            Work::Read(buffer, completer) => {
                std::mem::forget(buffer);
                if let Some(completer) = completer {
                    completer.complete(Err(error.into()));
                }
            }
            Work::Write(buffer, completer) => {
                std::mem::forget(buffer);
                completer.complete(Err(error.into()));
            }
            Work::WriteVectored(buffers, completer) => {
                std::mem::forget(buffers);
                completer.complete(Err(error.into()));
            }
            Work::Sync(completer) => completer.complete(Err(error.into())),
        }));
        if told.is_err() {
            counters.count_panic();
        }
    }

    /// Writes the first and last byte of each buffer that the kernel fills, as they are.
    ///
    /// The sanitizers do not see what the kernel does to memory on behalf of a ring. An access of ours
    /// right before and after it shows them a buffer that was freed, or that somebody else uses.
    #[cfg(all(feature = "io-uring", debug_assertions))]
    pub(super) fn touch(&mut self) {
        let touch_one = |buffer: &mut BufferMut| {
            if let Some(byte) = buffer.first_mut() {
                *byte = std::hint::black_box(*byte);
            }
            if let Some(byte) = buffer.last_mut() {
                *byte = std::hint::black_box(*byte);
            }
        };
        match &mut self.work {
            Work::Read(buffer, _) | Work::Write(buffer, _) => touch_one(buffer),
            Work::WriteVectored(buffers, _) => buffers.iter_mut().for_each(touch_one),
            Work::Sync(_) => {}
        }
    }
}

/// The outcome together with the buffer that comes back either way.
fn with_buffer(
    outcome: Result<(), ContractError>,
    buffer: BufferMut,
) -> Result<BufferMut, Failure> {
    match outcome {
        Ok(()) => Ok(buffer),
        Err(error) => Err(Failure::new(error, vec![buffer])),
    }
}

/// The parts of `sources` that make up `len` bytes from `start` on, as far as one call takes them.
fn slices_of(sources: &[BufferMut], start: usize, len: usize) -> Vec<IoSlice<'_>> {
    let mut skip = start;
    let mut left = len;
    let mut slices = Vec::with_capacity(sources.len().min(ATTEMPT_BUFFERS_MAX));
    for source in sources {
        if left == 0 || slices.len() == ATTEMPT_BUFFERS_MAX {
            break;
        }
        if skip >= source.len() {
            skip -= source.len();
            continue;
        }
        let rest = &source[skip..];
        let taken = &rest[..rest.len().min(left)];
        skip = 0;
        left -= taken.len();
        slices.push(IoSlice::new(taken));
    }
    slices
}
