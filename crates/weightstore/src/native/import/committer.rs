//! The thread that commits behind the pipeline.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use crate::WeightError;
use crate::native::changes::Changes;
use crate::native::session::Session;

/// What an import has committed, and what waits for its last commit.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) new_tensors: u64,
    pub(super) stored_bytes: u64,
    pub(super) delta_tensors: u64,
    pub(super) rest: Changes,
}

/// The thread that commits while the next batch is made.
pub(super) struct Committer<'scope> {
    changes: Option<SyncSender<Changes>>,
    thread: Option<ScopedJoinHandle<'scope, Result<Totals, WeightError>>>,
}

impl<'scope> Committer<'scope> {
    pub(super) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        session: &'env Session<'env>,
    ) -> Self {
        let (changes, receiver) = sync_channel::<Changes>(0);
        let thread = scope.spawn(move || {
            let mut totals = Totals::default();
            for changes in receiver {
                let committed = session.commit(changes)?;
                totals.new_tensors += committed.new_tensors;
                totals.stored_bytes += committed.stored_bytes;
            }
            Ok(totals)
        });
        Self {
            changes: Some(changes),
            thread: Some(thread),
        }
    }

    /// Hands changes over; waits while those before are being committed.
    pub(super) fn commit(&mut self, changes: Changes) -> Result<(), WeightError> {
        let handed = match &self.changes {
            Some(sender) => sender.send(changes).is_ok(),
            None => false,
        };
        if handed {
            return Ok(());
        }
        // The thread ended: with an error, which is the answer here.
        self.join().and_then(|_| Err(worker_lost()))
    }

    fn join(&mut self) -> Result<Totals, WeightError> {
        self.changes = None;
        match self.thread.take().map(ScopedJoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) | None => Err(worker_lost()),
        }
    }

    pub(super) fn finish(mut self) -> Result<Totals, WeightError> {
        self.join()
    }
}

/// A thread of the import ended without an answer.
pub(super) fn worker_lost() -> WeightError {
    WeightError::storage("import", "a worker thread panicked")
}
