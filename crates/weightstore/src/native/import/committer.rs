//! Commits behind the pipeline: content on its way, headers after it.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
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

/// Content batches that are on their way at once on a thread: while one is synced, the next is written and one more
/// waits, so that the device does not.
const CONTENTS_UNDER_WAY: usize = 3;

/// Headers that wait for their commits at most, in changes.
const HEADERS_WAITING: usize = 8;

/// Content of some changes on its way, and the rest of them.
type Sent = (Transfer<()>, Changes);

fn settle(
    (content, headers): Sent,
    next: impl FnOnce(Changes) -> Result<(), WeightError>,
) -> Result<(), WeightError> {
    content
        .wait()
        .map_err(|error| WeightError::storage("commit", error))?;
    next(headers)
}

impl Totals {
    fn commit(&mut self, session: &Session<'_>, headers: Changes) -> Result<(), WeightError> {
        let committed = session.commit(headers)?;
        self.new_tensors += committed.new_tensors;
        self.stored_bytes += committed.stored_bytes;
        Ok(())
    }

    fn and(mut self, other: Self) -> Self {
        self.new_tensors += other.new_tensors;
        self.stored_bytes += other.stored_bytes;
        self
    }
}

/// Commits in order, on the caller's thread. The content of some changes is written while that of those before is
/// synced; their headers are committed once their content is durable.
pub(super) struct Commits<'env> {
    session: &'env Session<'env>,
    totals: Totals,
    under_way: Option<Sent>,
}

impl<'env> Commits<'env> {
    fn take(&mut self, mut changes: Changes) -> Result<(), WeightError> {
        let (content, sent_bytes) = self.session.send_content(&mut changes)?;
        self.totals.stored_bytes += sent_bytes;
        let before = self.under_way.replace((content, changes));
        self.settle(before)
    }

    fn settle(&mut self, sent: Option<Sent>) -> Result<(), WeightError> {
        let (session, totals) = (self.session, &mut self.totals);
        sent.map_or(Ok(()), |sent| {
            settle(sent, |headers| totals.commit(session, headers))
        })
    }

    fn finish(mut self) -> Result<Totals, WeightError> {
        let last = self.under_way.take();
        self.settle(last)?;
        Ok(self.totals)
    }
}

/// Sends content and hands the headers on once it is durable, so that the commits of headers, which are synced too and
/// queue behind content, hold up no content.
fn send_contents(
    session: &Session<'_>,
    received: Receiver<Changes>,
    headers: &SyncSender<Changes>,
) -> Result<Totals, WeightError> {
    let mut totals = Totals::default();
    let mut under_way = VecDeque::new();
    let hand_on = |rest| headers.send(rest).map_err(|_| worker_lost());
    for mut changes in received {
        if under_way.len() >= CONTENTS_UNDER_WAY
            && let Some(first) = under_way.pop_front()
        {
            settle(first, hand_on)?;
        }
        let (content, sent_bytes) = session.send_content(&mut changes)?;
        totals.stored_bytes += sent_bytes;
        under_way.push_back((content, changes));
    }
    under_way
        .into_iter()
        .try_for_each(|sent| settle(sent, hand_on))?;
    Ok(totals)
}

/// Where commits are made.
pub(super) enum Committer<'scope, 'env> {
    /// On threads, while the next batch is made.
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
        if threads <= 1 {
            return Self::Here(Box::new(Commits {
                session,
                totals: Totals::default(),
                under_way: None,
            }));
        }
        let (headers, waiting) = sync_channel::<Changes>(HEADERS_WAITING);
        let committing = scope.spawn(move || {
            let mut totals = Totals::default();
            for headers in waiting {
                totals.commit(session, headers)?;
            }
            Ok(totals)
        });
        let (changes, received) = sync_channel::<Changes>(0);
        let thread = scope.spawn(move || {
            let sent = send_contents(session, received, &headers);
            drop(headers);
            // Why headers could not be committed comes before that nobody took them.
            let committed = joined(Some(committing))?;
            Ok(committed.and(sent?))
        });
        Self::Behind {
            changes: Some(changes),
            thread: Some(thread),
        }
    }

    /// Hands changes over; waits while too many of those before are on their way.
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
