//! A transfer as a future of no particular runtime.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::{Outcome, Phase, Shared, Transfer, taken_before};
use crate::contract::Failure;
use crate::contract::deadline::{self, Alarmed};

pub(super) fn as_alarmed<T: Send + 'static>(shared: &Arc<Shared<T>>) -> Weak<dyn Alarmed> {
    let weak: Weak<Shared<T>> = Arc::downgrade(shared);
    weak
}

impl<T: Send + 'static> Alarmed for Shared<T> {
    fn wake(&self) {
        let mut state = self.lock();
        state.alarm_at = None;
        let waker = match &mut state.phase {
            Phase::Pending { waker } => waker.take(),
            Phase::Chained(_) | Phase::Detached => {
                let now = Instant::now();
                let late = state.deadline.is_some_and(|deadline| deadline <= now);
                drop(state);
                if late {
                    self.ask_to_stop();
                }
                return;
            }
            Phase::Done(_) | Phase::Taken => None,
        };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Shared<T> {
    /// The outcome, or `None` and `waker` will be woken when it is there.
    fn register(&self, waker: Waker) -> Option<Outcome<T>> {
        let mut state = self.lock();
        match std::mem::replace(&mut state.phase, Phase::Taken) {
            Phase::Done(outcome) => Some(outcome),
            Phase::Pending { waker: earlier } => {
                state.phase = Phase::Pending { waker: Some(waker) };
                drop(state);
                drop(earlier);
                None
            }
            other => {
                state.phase = other;
                drop(state);
                Some(Err(taken_before()))
            }
        }
    }
}

impl<T: Send + 'static> Future for Transfer<T> {
    type Output = Result<T, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = &self.shared;
        let pending = matches!(shared.lock().phase, Phase::Pending { .. });
        if let Some(drive) = shared.drive.as_ref().filter(|_| pending) {
            drive.drive(Some(Duration::ZERO));
        }
        if let Some(outcome) = shared.register(cx.waker().clone()) {
            return Poll::Ready(outcome);
        }
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return Poll::Ready(self.time_out());
        }
        let push = shared.drive.as_ref();
        let push = push.map(|_| now + deadline::DRIVE_INTERVAL);
        let at = match (push, self.deadline) {
            (Some(push), Some(deadline)) => Some(push.min(deadline)),
            (push, deadline) => push.or(deadline),
        };
        if at.is_some_and(|at| !shared.set_alarm(at)) {
            // Without the thread the task polls on: slow, but it neither hangs nor misses its moment.
            shared.wake();
        }
        Poll::Pending
    }
}
