//! The side of an operation that does the work.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Shared;
use crate::contract::{ContractError, ErrorKind, Failure};

/// The side of an operation that finishes it; dropped without a word, the transfer fails as
/// [`ErrorKind::Abandoned`].
///
/// ```
/// use core_view::contract::{ErrorKind, Transfer};
///
/// let (transfer, completer) = Transfer::<()>::pair();
/// drop(completer);
/// assert_eq!(transfer.wait().unwrap_err().kind(), ErrorKind::Abandoned);
/// ```
pub struct Completer<T> {
    shared: Option<Arc<Shared<T>>>,
}

impl<T: Send + 'static> Completer<T> {
    pub(super) fn new(shared: Arc<Shared<T>>) -> Self {
        Self {
            shared: Some(shared),
        }
    }

    /// Finishes the operation. Whoever waits is woken, and what is chained to it runs, on this thread.
    pub fn complete(mut self, outcome: Result<T, Failure>) {
        if let Some(shared) = self.shared.take() {
            shared.finish(outcome);
        }
    }

    /// Whether the operation was asked to stop, or its deadline has passed at `now`.
    pub fn should_stop(&self, now: Instant) -> bool {
        self.shared.as_ref().is_some_and(|shared| {
            shared.stopping.load(Ordering::Acquire)
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

    /// Calls `hook` once if the operation is asked to stop; at once if it was already. A later hook
    /// takes the place of an earlier one that was not called.
    ///
    /// The hook runs on the thread that asks, perhaps while the operation completes or just after: one
    /// that names the operation by a number must not reuse the number as long as the hook lives.
    pub fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) {
        let Some(shared) = &self.shared else { return };
        let mut state = shared.lock();
        if shared.stopping.load(Ordering::Acquire) {
            drop(state);
            hook();
        } else {
            let earlier = state.on_cancel.replace(Box::new(hook));
            drop(state);
            drop(earlier);
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
