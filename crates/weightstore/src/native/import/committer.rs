//! Commits behind the pipeline: content on its way, headers after it.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use core_view::contract::Transfer;

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

/// Commits in order. The content of some changes is written while that of those before is synced; their headers
/// are committed once their content is durable.
pub(super) struct Commits<'env> {
    session: &'env Session<'env>,
    totals: Totals,
    /// Content that is on its way, and the rest of the changes that it belongs to.
    under_way: Option<(Transfer<()>, Changes)>,
}

impl<'env> Commits<'env> {
    fn new(session: &'env Session<'env>) -> Self {
        Self {
            session,
            totals: Totals::default(),
            under_way: None,
        }
    }

    fn take(&mut self, mut changes: Changes) -> Result<(), WeightError> {
        let (content, sent_bytes) = self.session.send_content(&mut changes)?;
        self.totals.stored_bytes += sent_bytes;
        let before = self.under_way.replace((content, changes));
        self.settle(before)
    }

    /// Waits for content and commits what comes after it.
    fn settle(&mut self, content: Option<(Transfer<()>, Changes)>) -> Result<(), WeightError> {
        let Some((content, headers)) = content else {
            return Ok(());
        };
        content
            .wait()
            .map_err(|error| WeightError::storage("commit", error))?;
        let committed = self.session.commit(headers)?;
        self.totals.new_tensors += committed.new_tensors;
        self.totals.stored_bytes += committed.stored_bytes;
        Ok(())
    }

    fn finish(mut self) -> Result<Totals, WeightError> {
        let last = self.under_way.take();
        self.settle(last)?;
        Ok(self.totals)
    }
}

/// Where commits are made.
pub(super) enum Committer<'scope, 'env> {
    /// On a thread, while the next batch is made.
    Behind {
        changes: Option<SyncSender<Changes>>,
        thread: Option<ScopedJoinHandle<'scope, Result<Totals, WeightError>>>,
    },
    /// By whoever hands them over.
    Here(Box<Commits<'env>>),
}

impl<'scope, 'env> Committer<'scope, 'env> {
    pub(super) fn start(
        scope: &'scope Scope<'scope, 'env>,
        session: &'env Session<'env>,
        threads: usize,
    ) -> Self {
        let mut commits = Commits::new(session);
        if threads <= 1 {
            return Self::Here(Box::new(commits));
        }
        let (changes, receiver) = sync_channel::<Changes>(0);
        let thread = scope.spawn(move || {
            for changes in receiver {
                commits.take(changes)?;
            }
            commits.finish()
        });
        Self::Behind {
            changes: Some(changes),
            thread: Some(thread),
        }
    }

    /// Hands changes over; waits while those before are being committed.
    pub(super) fn commit(&mut self, handed: Changes) -> Result<(), WeightError> {
        match self {
            Self::Here(commits) => commits.take(handed),
            Self::Behind { changes, thread } => {
                let taken = changes.as_ref().is_some_and(|way| way.send(handed).is_ok());
                if taken {
                    return Ok(());
                }
                // The thread ended: with an error, which is the answer here.
                *changes = None;
                joined(thread.take()).and_then(|_| Err(worker_lost()))
            }
        }
    }

    pub(super) fn finish(self) -> Result<Totals, WeightError> {
        match self {
            Self::Here(commits) => commits.finish(),
            Self::Behind { changes, thread } => {
                drop(changes);
                joined(thread)
            }
        }
    }
}

fn joined(
    thread: Option<ScopedJoinHandle<'_, Result<Totals, WeightError>>>,
) -> Result<Totals, WeightError> {
    match thread.map(ScopedJoinHandle::join) {
        Some(Ok(outcome)) => outcome,
        Some(Err(_)) | None => Err(worker_lost()),
    }
}

/// A thread of the import ended without an answer.
pub(super) fn worker_lost() -> WeightError {
    WeightError::storage("import", "a worker thread panicked")
}
