//! A bulk operation under way, and the side that finishes it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::deadline::{self, Alarmed};
use super::{ContractError, ErrorKind};
use crate::BufferMut;

/// Why an operation failed, with the buffers it had taken.
///
/// The buffers come back as [`Unverified`]: their memory may be used again, their bytes mean nothing.
#[derive(Debug)]
pub struct Failure {
    error: ContractError,
    buffers: Unverified,
}

impl Failure {
    /// A failure that gives back `buffers`.
    pub fn new(error: ContractError, buffers: Vec<BufferMut>) -> Self {
        Self {
            error,
            buffers: Unverified(buffers),
        }
    }

    /// What went wrong.
    pub fn error(&self) -> &ContractError {
        &self.error
    }

    /// The kind of what went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    /// The error and the buffers.
    pub fn into_parts(self) -> (ContractError, Unverified) {
        (self.error, self.buffers)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

impl From<ContractError> for Failure {
    fn from(error: ContractError) -> Self {
        Self::new(error, Vec::new())
    }
}

impl From<Failure> for ContractError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// Buffers that come back from a failed operation: memory to use again, never data.
///
/// There is no way to read the bytes but to take the memory and write it first.
#[derive(Debug, Default)]
#[must_use = "the memory can be used again"]
pub struct Unverified(Vec<BufferMut>);

impl Unverified {
    /// Number of buffers.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no buffer came back.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the memory back; what it holds is unspecified.
    pub fn reclaim(self) -> Vec<BufferMut> {
        self.0
    }
}

/// Something that a waiting thread can push forward itself.
///
/// An engine whose completions are collected by whoever waits (a ring without a thread of its own, a
/// simulation with a clock of its own) gives its transfers one.
pub trait Drive: Send + Sync {
    /// Makes progress, waiting for at most `timeout` (forever if `None`); it may complete any number of
    /// transfers, on this thread. It returns when something completed, or when the time is over.
    fn drive(&self, timeout: Option<Duration>);
}

/// An operation under way, which gives a `T` or a [`Failure`] when it is done.
///
/// It can be waited for, or awaited in any runtime. Dropping it neither waits nor frees what is still
/// in flight: the operation goes on, and what it held is dropped when it is done.
///
/// ```
/// use core_view::contract::Transfer;
///
/// let (transfer, completer) = Transfer::pair();
/// let worker = std::thread::spawn(move || completer.complete(Ok(42)));
/// assert_eq!(transfer.wait()?, 42);
/// # worker.join().map_err(|_| "the worker panicked")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "an operation's outcome is known only from its transfer"]
pub struct Transfer<T> {
    shared: Arc<Shared<T>>,
    deadline: Option<Instant>,
}

/// The side of an operation that finishes it; dropped without a word, the transfer fails as
/// [`ErrorKind::Abandoned`].
pub struct Completer<T> {
    shared: Option<Arc<Shared<T>>>,
}

type Outcome<T> = Result<T, Failure>;
type Then<T> = Box<dyn FnOnce(Outcome<T>) + Send>;

struct Shared<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
    cancelled: AtomicBool,
    drive: Option<Arc<dyn Drive>>,
}

struct State<T> {
    phase: Phase<T>,
    deadline: Option<Instant>,
    on_cancel: Option<Box<dyn FnOnce() + Send>>,
    alarmed: bool,
}

enum Phase<T> {
    Pending { waker: Option<Waker> },
    Chained(Then<T>),
    Detached,
    Done(Outcome<T>),
    Taken,
}

impl<T> Shared<T> {
    /// The state; a panic of another holder can't have left it half changed, since every change is
    /// one assignment.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, outcome: Outcome<T>) {
        let mut state = self.lock();
        state.on_cancel = None;
        match std::mem::replace(&mut state.phase, Phase::Taken) {
            Phase::Pending { waker } => {
                state.phase = Phase::Done(outcome);
                drop(state);
                self.ready.notify_all();
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Phase::Chained(then) => {
                drop(state);
                then(outcome);
            }
            phase @ (Phase::Detached | Phase::Taken | Phase::Done(_)) => {
                state.phase = phase;
                drop(state);
                drop(outcome);
            }
        }
    }
}

impl<T: Send + 'static> Transfer<T> {
    /// A transfer and the side that completes it.
    pub fn pair() -> (Self, Completer<T>) {
        Self::with_drive(None)
    }

    /// As [`Transfer::pair`]; threads that wait for the transfer push `drive` forward.
    pub fn driven(drive: Arc<dyn Drive>) -> (Self, Completer<T>) {
        Self::with_drive(Some(drive))
    }

    fn with_drive(drive: Option<Arc<dyn Drive>>) -> (Self, Completer<T>) {
        let state = State {
            phase: Phase::Pending { waker: None },
            deadline: None,
            on_cancel: None,
            alarmed: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            ready: Condvar::new(),
            cancelled: AtomicBool::new(false),
            drive,
        });
        (
            Self {
                shared: Arc::clone(&shared),
                deadline: None,
            },
            Completer {
                shared: Some(shared),
            },
        )
    }

    /// A transfer that is done already.
    pub fn ready(outcome: Result<T, Failure>) -> Self {
        let (transfer, completer) = Self::pair();
        completer.complete(outcome);
        transfer
    }

    /// Sets the moment from which on waiting fails with [`ErrorKind::TimedOut`].
    ///
    /// The operation itself is asked to stop then; the memory it holds is freed when it has.
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self.shared.lock().deadline = Some(deadline);
        self
    }

    /// Whether the outcome is there.
    pub fn is_done(&self) -> bool {
        matches!(self.shared.lock().phase, Phase::Done(_))
    }

    /// Asks the operation to stop. It may still succeed; if it stops, it fails with
    /// [`ErrorKind::Cancelled`] and gives its buffers back.
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::Release);
        let hook = self.shared.lock().on_cancel.take();
        if let Some(hook) = hook {
            hook();
        }
    }

    /// Waits for the outcome.
    ///
    /// # Errors
    /// The operation's own failure, with its buffers; [`ErrorKind::TimedOut`] without them if the
    /// deadline passes first; [`ErrorKind::Abandoned`] if the other side went away.
    pub fn wait(self) -> Result<T, Failure> {
        match self.wait_until(self.deadline) {
            Some(outcome) => outcome,
            None => Err(self.time_out()),
        }
    }

    /// Waits for at most `timeout`; without an outcome by then, the transfer comes back.
    ///
    /// # Errors
    /// The transfer itself if the time is over; a deadline of the transfer's own ends it as in
    /// [`Transfer::wait`].
    pub fn wait_for(self, timeout: Duration) -> Result<Result<T, Failure>, Self> {
        let until = Instant::now().checked_add(timeout);
        let limit = match (until, self.deadline) {
            (Some(until), Some(deadline)) => Some(until.min(deadline)),
            (until, deadline) => until.or(deadline),
        };
        if let Some(outcome) = self.wait_until(limit) {
            return Ok(outcome);
        }
        if self
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now())
        {
            return Ok(Err(self.time_out()));
        }
        Err(self)
    }

    /// Calls `then` with the outcome: on the completing thread, or on this one if it is there already.
    ///
    /// `then` must not wait for other operations of the same engine, and must not panic: it runs
    /// where completions are handed out.
    pub fn on_complete(self, then: impl FnOnce(Result<T, Failure>) + Send + 'static) {
        let mut state = self.shared.lock();
        match std::mem::replace(&mut state.phase, Phase::Taken) {
            Phase::Done(outcome) => {
                drop(state);
                then(outcome);
            }
            _ => state.phase = Phase::Chained(Box::new(then)),
        }
    }

    /// The outcome if it is there by `limit`.
    fn wait_until(&self, limit: Option<Instant>) -> Option<Outcome<T>> {
        let mut state = self.shared.lock();
        loop {
            if matches!(state.phase, Phase::Done(_)) {
                return match std::mem::replace(&mut state.phase, Phase::Taken) {
                    Phase::Done(outcome) => Some(outcome),
                    _ => None,
                };
            }
            let left = match limit {
                None => None,
                Some(limit) => match limit.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => Some(left),
                    _ => return None,
                },
            };
            state = match (&self.shared.drive, left) {
                (Some(drive), left) => {
                    drop(state);
                    drive.drive(left);
                    self.shared.lock()
                }
                (None, None) => self
                    .shared
                    .ready
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                (None, Some(left)) => {
                    self.shared
                        .ready
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }

    fn time_out(&self) -> Failure {
        self.cancel();
        ContractError::new(ErrorKind::TimedOut, "wait for transfer")
            .detail("the deadline passed; the operation was asked to stop")
            .into()
    }
}

impl<T> Drop for Transfer<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if matches!(state.phase, Phase::Pending { .. } | Phase::Done(_)) {
            let phase = std::mem::replace(&mut state.phase, Phase::Detached);
            drop(state);
            drop(phase);
        }
    }
}

impl<T: Send + 'static> Alarmed for Shared<T> {
    fn wake(&self) {
        let mut state = self.lock();
        state.alarmed = false;
        let waker = match &mut state.phase {
            Phase::Pending { waker } => waker.take(),
            _ => None,
        };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T: Send + 'static> Transfer<T> {
    /// Sees to it that the task is woken when the deadline is over, or when a driven operation wants
    /// to be pushed again.
    fn set_alarm(&self, now: Instant) {
        let push = self
            .shared
            .drive
            .as_ref()
            .map(|_| now + deadline::DRIVE_INTERVAL);
        let at = match (push, self.deadline) {
            (Some(push), Some(deadline)) => push.min(deadline),
            (Some(at), None) | (None, Some(at)) => at,
            (None, None) => return,
        };
        let mut state = self.shared.lock();
        if std::mem::replace(&mut state.alarmed, true) {
            return;
        }
        drop(state);
        let shared: Arc<dyn Alarmed> = Arc::clone(&self.shared) as _;
        if !deadline::wake_at(at, Arc::downgrade(&shared)) {
            // Without the thread the task polls on: slow, but it neither hangs nor misses its moment.
            shared.wake();
        }
    }
}

impl<T: Send + 'static> Future for Transfer<T> {
    type Output = Result<T, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(drive) = self.shared.drive.as_ref().filter(|_| !self.is_done()) {
            drive.drive(Some(Duration::ZERO));
        }
        let mut state = self.shared.lock();
        match std::mem::replace(&mut state.phase, Phase::Taken) {
            Phase::Done(outcome) => return Poll::Ready(outcome),
            Phase::Pending { .. } => {
                state.phase = Phase::Pending {
                    waker: Some(cx.waker().clone()),
                };
            }
            Phase::Taken | Phase::Chained(_) | Phase::Detached => {
                let error = ContractError::new(ErrorKind::InvalidInput, "poll transfer")
                    .detail("its outcome was taken before");
                return Poll::Ready(Err(error.into()));
            }
        }
        drop(state);
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            let phase = std::mem::replace(&mut self.shared.lock().phase, Phase::Detached);
            drop(phase);
            return Poll::Ready(Err(self.time_out()));
        }
        self.set_alarm(now);
        Poll::Pending
    }
}

impl<T> fmt::Debug for Transfer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.shared.lock().phase {
            Phase::Pending { .. } => "pending",
            Phase::Chained(_) => "chained",
            Phase::Detached => "detached",
            Phase::Done(_) => "done",
            Phase::Taken => "taken",
        };
        f.debug_struct("Transfer")
            .field("phase", &phase)
            .field("deadline", &self.deadline)
            .finish()
    }
}

impl<T: Send + 'static> Completer<T> {
    /// Finishes the operation.
    pub fn complete(mut self, outcome: Result<T, Failure>) {
        if let Some(shared) = self.shared.take() {
            shared.finish(outcome);
        }
    }

    /// Whether the operation was asked to stop, or its deadline has passed at `now`.
    pub fn should_stop(&self, now: Instant) -> bool {
        self.shared.as_ref().is_some_and(|shared| {
            shared.cancelled.load(Ordering::Acquire)
                || shared
                    .lock()
                    .deadline
                    .is_some_and(|deadline| deadline <= now)
        })
    }

    /// The moment at which nobody will wait any more.
    pub fn deadline(&self) -> Option<Instant> {
        self.shared
            .as_ref()
            .and_then(|shared| shared.lock().deadline)
    }

    /// Calls `hook` once if the operation is asked to stop; at once if it was already.
    pub fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) {
        let Some(shared) = &self.shared else { return };
        let mut state = shared.lock();
        if shared.cancelled.load(Ordering::Acquire) {
            drop(state);
            hook();
        } else {
            state.on_cancel = Some(Box::new(hook));
        }
    }
}

impl<T> Drop for Completer<T> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            let error = ContractError::new(ErrorKind::Abandoned, "complete transfer")
                .detail("the side that does the work went away before it was done");
            shared.finish(Err(error.into()));
        }
    }
}

impl<T> fmt::Debug for Completer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completer").finish_non_exhaustive()
    }
}
