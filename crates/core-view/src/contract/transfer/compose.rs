//! Transfers made of transfers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::{Completer, Drive, Outcome, Shared, Transfer};
use crate::contract::Failure;

impl<T: Send + 'static> Transfer<T> {
    /// The same operation with another result: `change` runs on the completing thread, under the rules
    /// of [`Transfer::on_complete`]; should it panic all the same, the transfer is abandoned.
    ///
    /// Deadline, cancellation and [`Drive`] carry over.
    pub fn map<U: Send + 'static>(
        self,
        change: impl FnOnce(T) -> U + Send + 'static,
    ) -> Transfer<U> {
        self.map_outcome(|outcome| outcome.map(change))
    }

    /// As [`Transfer::map`], for successes and failures.
    pub fn map_outcome<U: Send + 'static>(
        self,
        change: impl FnOnce(Result<T, Failure>) -> Result<U, Failure> + Send + 'static,
    ) -> Transfer<U> {
        let (mut mapped, completer) = Transfer::with_drive(self.shared.drive.clone());
        if let Some(deadline) = self.deadline {
            mapped = mapped.with_deadline(deadline);
        }
        completer.on_cancel(stop_all(vec![Arc::downgrade(&self.shared)]));
        self.chain(move |outcome| completer.complete(change(outcome)));
        mapped
    }

    /// Completes `completer` as this operation completes: what began elsewhere (in a queue, on another
    /// thread) goes on here. Cancellation passes on, a deadline of this transfer's own is kept.
    ///
    /// ```
    /// use core_view::contract::Transfer;
    ///
    /// let (transfer, completer) = Transfer::pair();
    /// Transfer::ready(Ok(7)).forward(completer);
    /// assert_eq!(transfer.wait()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn forward(self, completer: Completer<T>) {
        completer.on_cancel(stop_all(vec![Arc::downgrade(&self.shared)]));
        self.on_complete(move |outcome| completer.complete(outcome));
    }

    /// One transfer for many: done when all are, with their outcomes in order.
    ///
    /// Cancelling it cancels them all. Each keeps its own deadline, at which it is asked to stop; one
    /// for the whole is set on the result.
    ///
    /// ```
    /// use core_view::contract::{ErrorKind, Transfer};
    ///
    /// let (slow, completer) = Transfer::pair();
    /// let both = Transfer::join(vec![Transfer::ready(Ok(1)), slow]);
    /// drop(completer);
    /// let outcomes = both.wait()?;
    /// assert!(matches!(outcomes[0], Ok(1)));
    /// assert_eq!(outcomes[1].as_ref().unwrap_err().kind(), ErrorKind::Abandoned);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join(parts: Vec<Self>) -> Transfer<Vec<Result<T, Failure>>> {
        let mut drives: Vec<Arc<dyn Drive>> = Vec::new();
        for drive in parts.iter().filter_map(|part| part.shared.drive.as_ref()) {
            if !drives.iter().any(|known| Arc::ptr_eq(known, drive)) {
                drives.push(Arc::clone(drive));
            }
        }
        let drive: Option<Arc<dyn Drive>> = match drives.len() {
            0 | 1 => drives.pop(),
            _ => Some(Arc::new(Drives(drives))),
        };
        let (joined, completer) = Transfer::with_drive(drive);
        if parts.is_empty() {
            completer.complete(Ok(Vec::new()));
            return joined;
        }
        let stop = parts.iter().map(|part| Arc::downgrade(&part.shared));
        completer.on_cancel(stop_all(stop.collect()));
        let gathering = Arc::new(Gathering {
            missing: AtomicUsize::new(parts.len()),
            outcomes: Mutex::new(parts.iter().map(|_| None).collect()),
            completer: Mutex::new(Some(completer)),
        });
        for (i, part) in parts.into_iter().enumerate() {
            let gathering = Arc::clone(&gathering);
            part.on_complete(move |outcome| gathering.put(i, outcome));
        }
        joined
    }
}

fn stop_all<T: Send + 'static>(parts: Vec<Weak<Shared<T>>>) -> impl FnOnce() + Send + 'static {
    move || {
        for part in parts.iter().filter_map(Weak::upgrade) {
            part.cancel();
        }
    }
}

/// The outcomes of the parts of a joined transfer, as they come in.
struct Gathering<T: Send + 'static> {
    missing: AtomicUsize,
    outcomes: Mutex<Vec<Option<Outcome<T>>>>,
    completer: Mutex<Option<Completer<Vec<Outcome<T>>>>>,
}

impl<T: Send + 'static> Gathering<T> {
    fn put(&self, i: usize, outcome: Outcome<T>) {
        if let Some(place) = unpoisoned(&self.outcomes).get_mut(i) {
            *place = Some(outcome);
        }
        if self.missing.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let outcomes = std::mem::take(&mut *unpoisoned(&self.outcomes));
        let completer = unpoisoned(&self.completer).take();
        if let Some(completer) = completer {
            completer.complete(Ok(outcomes.into_iter().flatten().collect()));
        }
    }
}

fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The drives of several engines as one.
struct Drives(Vec<Arc<dyn Drive>>);

impl Drive for Drives {
    fn drive(&self, timeout: Option<Duration>) {
        let share = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        for drive in &self.0 {
            drive.drive(timeout.map(|timeout| timeout / share));
        }
    }
}
