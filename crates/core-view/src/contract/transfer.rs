//! A bulk operation under way, and the side that finishes it.

mod completer;
mod compose;
mod task;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::deadline::{self, Alarmed};
use super::{ContractError, ErrorKind, Failure};

pub use completer::Completer;

/// How long a waiting thread pushes a drive before it looks at its own transfer again.
///
/// Another thread may have collected the completion between the look and the push; the drive then has
/// nothing left that would end its wait.
const DRIVE_SLICE: Duration = Duration::from_millis(1);

/// Something that a waiting thread can push forward itself.
///
/// An engine whose completions are collected by whoever waits (a ring without a thread of its own, a
/// simulation with a clock of its own) gives its transfers one. Several threads may push at once.
pub trait Drive: Send + Sync {
    /// Makes progress, waiting for at most `timeout` (forever if `None`); it may complete any number of
    /// transfers, on this thread. It returns when something completed, or when the time is over.
    ///
    /// It holds none of its locks while it completes a transfer: what is chained to the transfer may
    /// start the next operation. With nothing to complete it waits, rather than return at once.
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

type Outcome<T> = Result<T, Failure>;
type Then<T> = Box<dyn FnOnce(Outcome<T>) + Send>;
type Hook = Box<dyn FnOnce() + Send>;

struct Shared<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
    /// Asked to stop, by the caller or by the deadline.
    stopping: AtomicBool,
    /// Asked to stop by the caller.
    cancelled: AtomicBool,
    drive: Option<Arc<dyn Drive>>,
    /// This as something with an alarm, for where `T` is not known to be `'static`.
    as_alarmed: fn(&Arc<Self>) -> Weak<dyn Alarmed>,
}

struct State<T> {
    phase: Phase<T>,
    deadline: Option<Instant>,
    on_cancel: Option<Hook>,
    alarm_at: Option<Instant>,
}

enum Phase<T> {
    Pending { waker: Option<Waker> },
    Chained(Then<T>),
    Detached,
    Done(Outcome<T>),
    Taken,
}

impl<T> Shared<T> {
    /// The state. No foreign code runs under the lock (wakers, hooks, outcomes and what is chained are
    /// called, cloned and dropped outside), so a poisoned lock guards a whole state.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, outcome: Outcome<T>) {
        let outcome = self.blame_deadline(outcome);
        let mut state = self.lock();
        let hook = state.on_cancel.take();
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
        drop(hook);
    }

    /// An operation that stopped because of its deadline was not cancelled by anybody.
    fn blame_deadline(&self, outcome: Outcome<T>) -> Outcome<T> {
        match outcome {
            Err(failure) if failure.kind() == ErrorKind::Cancelled => {
                let late = !self.cancelled.load(Ordering::Acquire)
                    && self
                        .lock()
                        .deadline
                        .is_some_and(|deadline| deadline <= Instant::now());
                if !late {
                    return Err(failure);
                }
                let (cause, buffers) = failure.into_parts();
                let error = ContractError::new(ErrorKind::TimedOut, "wait for transfer")
                    .detail("the deadline passed, and the operation stopped")
                    .source(cause);
                Err(Failure::new(error, buffers.reclaim()))
            }
            outcome => outcome,
        }
    }

    fn ask_to_stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let hook = self.lock().on_cancel.take();
        if let Some(hook) = hook {
            hook();
        }
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.ask_to_stop();
    }

    /// The outcome, or `None` while there is none.
    fn take(&self) -> Option<Outcome<T>> {
        let mut state = self.lock();
        match std::mem::replace(&mut state.phase, Phase::Taken) {
            Phase::Done(outcome) => Some(outcome),
            pending @ Phase::Pending { .. } => {
                state.phase = pending;
                None
            }
            other => {
                state.phase = other;
                drop(state);
                Some(Err(taken_before()))
            }
        }
    }

    /// Sees to it that [`Alarmed::wake`] is called at `at`, or soon after.
    fn set_alarm(self: &Arc<Self>, at: Instant) -> bool {
        let mut state = self.lock();
        if state.alarm_at.is_some_and(|earlier| earlier <= at) {
            return true;
        }
        state.alarm_at = Some(at);
        drop(state);
        deadline::wake_at(at, (self.as_alarmed)(self))
    }
}

fn taken_before() -> Failure {
    ContractError::new(ErrorKind::InvalidInput, "take the outcome of a transfer")
        .detail("it was taken before; wait for or poll a transfer only until it is done")
        .into()
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
            alarm_at: None,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            ready: Condvar::new(),
            stopping: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            drive,
            as_alarmed: task::as_alarmed,
        });
        let completer = Completer::new(Arc::clone(&shared));
        let transfer = Self {
            shared,
            deadline: None,
        };
        (transfer, completer)
    }

    /// A transfer that is done already.
    pub fn ready(outcome: Result<T, Failure>) -> Self {
        let (transfer, completer) = Self::pair();
        completer.complete(outcome);
        transfer
    }

    /// Sets the moment from which on waiting fails with [`ErrorKind::TimedOut`].
    ///
    /// The operation itself is asked to stop then: by whoever waits or polls, or by itself if the
    /// transfer was dropped or something is chained to it. The memory it holds is freed when it has
    /// stopped.
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self.shared.lock().deadline = Some(deadline);
        self
    }

    /// Whether the outcome is there. It pushes no [`Drive`].
    pub fn is_done(&self) -> bool {
        matches!(self.shared.lock().phase, Phase::Done(_))
    }

    /// Asks the operation to stop. It may still succeed; if it stops, it fails with
    /// [`ErrorKind::Cancelled`] and gives its buffers back.
    pub fn cancel(&self) {
        self.shared.cancel();
    }

    /// Waits for the outcome.
    ///
    /// # Errors
    /// The operation's own failure, with its buffers; [`ErrorKind::TimedOut`] if the deadline passes
    /// first, with the buffers if the operation stopped at once when it was asked to, else without;
    /// [`ErrorKind::Abandoned`] if the other side went away; [`ErrorKind::InvalidInput`] if polling
    /// gave the outcome before.
    pub fn wait(self) -> Result<T, Failure> {
        match self.wait_until(self.deadline) {
            Some(outcome) => outcome,
            None => self.time_out(),
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
            return Ok(self.time_out());
        }
        Err(self)
    }

    /// Calls `then` with the outcome: on the completing thread, or on this one if it is there already.
    ///
    /// `then` may start other operations, but must not wait for any of the same engine, and must not
    /// panic: it runs where completions are handed out. A deadline asks the operation to stop; `then`
    /// is called once that has happened.
    pub fn on_complete(self, then: impl FnOnce(Result<T, Failure>) + Send + 'static) {
        let at = self.deadline;
        if let (Some(shared), Some(at)) = (self.chain(then), at) {
            shared.set_alarm(at);
        }
    }

    /// Chains `then`, and returns what it is chained to if it was not called at once.
    fn chain(self, then: impl FnOnce(Outcome<T>) + Send + 'static) -> Option<Arc<Shared<T>>> {
        let mut state = self.shared.lock();
        match std::mem::replace(&mut state.phase, Phase::Taken) {
            Phase::Done(outcome) => {
                drop(state);
                then(outcome);
                None
            }
            Phase::Pending { waker } => {
                state.phase = Phase::Chained(Box::new(then));
                drop(state);
                drop(waker);
                Some(Arc::clone(&self.shared))
            }
            other => {
                state.phase = other;
                drop(state);
                then(Err(taken_before()));
                None
            }
        }
    }

    /// The outcome if it is there by `limit`.
    fn wait_until(&self, limit: Option<Instant>) -> Option<Outcome<T>> {
        match &self.shared.drive {
            Some(drive) => self.wait_pushing(drive.as_ref(), limit),
            None => self.wait_parked(limit),
        }
    }

    fn wait_pushing(&self, drive: &dyn Drive, limit: Option<Instant>) -> Option<Outcome<T>> {
        loop {
            if let Some(outcome) = self.shared.take() {
                return Some(outcome);
            }
            let left = limit.map(|limit| limit.saturating_duration_since(Instant::now()));
            drive.drive(Some(left.map_or(DRIVE_SLICE, |left| left.min(DRIVE_SLICE))));
            if left.is_some_and(|left| left.is_zero()) {
                return self.shared.take();
            }
        }
    }

    fn wait_parked(&self, limit: Option<Instant>) -> Option<Outcome<T>> {
        let mut state = self.shared.lock();
        while matches!(state.phase, Phase::Pending { .. }) {
            let ready = &self.shared.ready;
            state = match limit {
                None => ready.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(limit) => {
                    let left = limit.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    let woken = ready.wait_timeout(state, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        drop(state);
        self.shared.take()
    }

    /// Ends the waiting: what the operation gives later is dropped where it gives it.
    fn time_out(&self) -> Outcome<T> {
        self.shared.ask_to_stop();
        let phase = std::mem::replace(&mut self.shared.lock().phase, Phase::Detached);
        if let Phase::Done(outcome) = phase {
            return outcome;
        }
        Err(ContractError::new(ErrorKind::TimedOut, "wait for transfer")
            .detail("the deadline passed; the operation was asked to stop")
            .into())
    }
}

impl<T> Drop for Transfer<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let pending = matches!(state.phase, Phase::Pending { .. });
        if pending || matches!(state.phase, Phase::Done(_)) {
            let phase = std::mem::replace(&mut state.phase, Phase::Detached);
            drop(state);
            drop(phase);
        } else {
            return;
        }
        if let (true, Some(at)) = (pending, self.deadline) {
            self.shared.set_alarm(at);
        }
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

const _: () = {
    const fn shareable<T: Send + Sync + Unpin>() {}
    shareable::<Transfer<Vec<std::cell::Cell<u8>>>>();
    shareable::<Completer<Vec<std::cell::Cell<u8>>>>();
};
