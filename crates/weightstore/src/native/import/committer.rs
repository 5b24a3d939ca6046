//! Commits behind the pipeline: content on its way, headers after it.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use core_view::contract::Transfer;

use crate::native::changes::Changes;
use crate::native::session::Session;
use crate::{WeightError, threads};

/// What an import has committed, and what waits for its last commit.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) new_tensors: u64,
    pub(super) stored_bytes: u64,
    pub(super) delta_tensors: u64,
    /// What is left for the last commit.
    pub(super) rest: Changes,
}

/// Content batches that are on their way at once on a thread: while one is synced, the next is written and one more
/// waits, so that the device does not.
const CONTENTS_UNDER_WAY: usize = 3;

/// Batches of content whose headers are committed together, where those are short. Each commit is synced, and the next
/// content waits for it; what an import that is cut short has committed is not stored anew by the next.
const CONTENTS_PER_COMMIT: usize = 16;

/// The share of a batch that headers take up at most until they are committed.
const HEADERS_SHARE: usize = 4;

/// Headers that wait for their commits at most, in changes.
const HEADERS_WAITING: usize = 2;

/// Content on its way, the oldest first, each with the rest of its changes.
struct Contents<'env> {
    session: &'env Session<'env>,
    under_way: VecDeque<(Transfer<()>, Changes)>,
    sent_bytes: u64,
}

impl<'env> Contents<'env> {
    fn new(session: &'env Session<'env>) -> Self {
        Self {
            session,
            under_way: VecDeque::new(),
            sent_bytes: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.under_way.len() >= CONTENTS_UNDER_WAY
    }

    fn send(&mut self, mut changes: Changes) -> Result<(), WeightError> {
        let (content, sent_bytes) = self.session.send_content(&mut changes)?;
        self.sent_bytes += sent_bytes;
        self.under_way.push_back((content, changes));
        Ok(())
    }

    /// Waits for the oldest, whose headers may be committed then; `None` if nothing is under way.
    fn settle(&mut self) -> Result<Option<Changes>, WeightError> {
        let Some((content, headers)) = self.under_way.pop_front() else {
            return Ok(None);
        };
        wait_for(content)?; // mutant: weights-no-content-wait
        Ok(Some(headers))
    }
}

/// Headers whose content is durable, until there are enough of them for a commit.
#[derive(Default)]
struct Headers {
    ready: Changes,
    /// Batches whose headers they are.
    contents: usize,
}

impl Headers {
    /// Takes more of them; returns what is to be committed now.
    fn take(&mut self, headers: Changes, batch_bytes: usize) -> Option<Changes> {
        let room_bytes = batch_bytes / HEADERS_SHARE;
        let is_full =
            self.contents >= CONTENTS_PER_COMMIT || !self.ready.has_room_for(&headers, room_bytes);
        let full = is_full.then(|| self.take_all());
        self.ready.append(headers);
        self.contents += 1;
        full
    }

    fn take_all(&mut self) -> Changes {
        std::mem::take(self).ready
    }
}

fn wait_for(content: Transfer<()>) -> Result<(), WeightError> {
    let arrived = content.wait();
    arrived.map_err(|error| WeightError::storage("commit", error))
}

impl Totals {
    /// Commits headers and notes what that did.
    pub(super) fn commit(
        &mut self,
        session: &Session<'_>,
        headers: Changes,
    ) -> Result<(), WeightError> {
        let committed = session.commit(headers)?;
        self.new_tensors += committed.new_tensors;
        self.stored_bytes += committed.stored_bytes;
        Ok(())
    }
}

/// In which order one thread takes the steps that several take at the same time: by a seed, so that a simulation meets
/// the orders that threads come to, and each again.
struct Turns(u64);

/// What is done next, once something was sent.
enum Turn {
    Settle,
    Commit,
    Send,
}

impl Turns {
    fn next(&mut self) -> Turn {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        match self.0 >> 62 {
            0 => Turn::Settle,
            1 => Turn::Commit,
            _ => Turn::Send,
        }
    }
}

/// Commits on the caller's thread, in the steps that the threads take: content is sent, content is durable, its
/// headers are committed.
pub(super) struct Commits<'env> {
    contents: Contents<'env>,
    headers: Headers,
    turns: Option<Turns>,
    totals: Totals,
}

impl<'env> Commits<'env> {
    fn new(session: &'env Session<'env>) -> Self {
        let turns = session.interleaving_seed().map(Turns);
        Self {
            contents: Contents::new(session),
            headers: Headers::default(),
            turns,
            totals: Totals::default(),
        }
    }

    fn take(&mut self, changes: Changes) -> Result<(), WeightError> {
        let taken = self.steps(changes);
        if taken.is_err() {
            // The thread that sends ends there; the one that commits does what it was given. That it could not comes
            // before.
            self.contents.under_way.clear();
            self.commit_ready()?;
        }
        taken
    }

    fn steps(&mut self, changes: Changes) -> Result<(), WeightError> {
        if self.contents.is_full() {
            self.settle()?;
        }
        self.contents.send(changes)?;
        let Some(mut turns) = self.turns.take() else {
            // What was sent is on its way while the next is made, and nothing else.
            while self.contents.under_way.len() > 1 {
                self.settle()?;
            }
            return Ok(());
        };
        loop {
            match turns.next() {
                Turn::Settle => self.settle()?,
                Turn::Commit => self.commit_ready()?,
                Turn::Send => break,
            }
        }
        self.turns = Some(turns);
        Ok(())
    }

    fn settle(&mut self) -> Result<(), WeightError> {
        let Some(durable) = self.contents.settle()? else {
            return Ok(());
        };
        let batch_bytes = self.contents.session.batch_bytes();
        let full = self.headers.take(durable, batch_bytes);
        full.map_or(Ok(()), |headers| self.commit(headers))
    }

    fn commit_ready(&mut self) -> Result<(), WeightError> {
        let ready = self.headers.take_all();
        self.commit(ready)
    }

    fn commit(&mut self, headers: Changes) -> Result<(), WeightError> {
        let committed = self.totals.commit(self.contents.session, headers);
        if committed.is_err() {
            // The thread that commits ends there.
            self.headers = Headers::default();
        }
        committed
    }

    fn finish(mut self) -> Result<Totals, WeightError> {
        while !self.contents.under_way.is_empty() {
            let settled = self.settle();
            let turn = self.turns.as_mut().map(Turns::next);
            if settled.is_err() || matches!(turn, Some(Turn::Commit)) {
                self.commit_ready()?;
            }
            settled?;
        }
        self.totals.rest = self.headers.take_all();
        self.totals.stored_bytes += self.contents.sent_bytes;
        Ok(self.totals)
    }
}

/// What became of content.
struct Sent {
    bytes: u64,
    /// Headers that are left for the last commit.
    headers: Changes,
}

/// Sends content and hands the headers on once it is durable, so that the commits of headers, which are synced too and
/// queue behind content, hold up no content.
fn send_contents(
    mut contents: Contents<'_>,
    received: Receiver<Changes>,
    full: &SyncSender<Changes>,
) -> Result<Sent, WeightError> {
    let mut headers = Headers::default();
    let batch_bytes = contents.session.batch_bytes();
    let mut settle = |contents: &mut Contents<'_>| {
        let ready = contents.settle()?;
        let ready = ready.and_then(|durable| headers.take(durable, batch_bytes));
        match ready {
            Some(headers) => full.send(headers).map_err(|_| worker_lost()),
            None => Ok(()),
        }
    };
    let send_all = || {
        for changes in received {
            if contents.is_full() {
                settle(&mut contents)?;
            }
            contents.send(changes)?;
        }
        while !contents.under_way.is_empty() {
            settle(&mut contents)?;
        }
        Ok(())
    };
    let sent = send_all();
    let ready = headers.take_all();
    if let Err(error) = sent {
        // What is durable is committed, whatever became of the rest; that it could not is known where it is tried.
        drop(full.send(ready));
        return Err(error);
    }
    Ok(Sent {
        bytes: contents.sent_bytes,
        headers: ready,
    })
}

/// Where commits are made.
pub(super) enum Committer<'scope, 'env> {
    /// On threads, while the next batch is made.
    Behind {
        changes: Option<SyncSender<Changes>>,
        thread: Option<ScopedJoinHandle<'scope, Result<Totals, WeightError>>>,
    },
    /// By whoever hands them over, where there is one thread or no more can be started.
    Here(Box<Commits<'env>>),
}

impl<'scope, 'env> Committer<'scope, 'env> {
    pub(super) fn start(
        scope: &'scope Scope<'scope, 'env>,
        session: &'env Session<'env>,
        threads: usize,
    ) -> Self {
        let behind = match threads {
            0 | 1 => None,
            _ => Self::start_behind(scope, session).ok(),
        };
        behind.unwrap_or_else(|| Self::Here(Box::new(Commits::new(session))))
    }

    fn start_behind(
        scope: &'scope Scope<'scope, 'env>,
        session: &'env Session<'env>,
    ) -> io::Result<Self> {
        let (headers, waiting) = sync_channel::<Changes>(HEADERS_WAITING);
        let committing = threads::start(scope, "headers", move || {
            let mut totals = Totals::default();
            for headers in waiting {
                totals.commit(session, headers)?;
            }
            Ok(totals)
        })?;
        let (changes, received) = sync_channel::<Changes>(0);
        let thread = threads::start(scope, "content", move || {
            let sent = send_contents(Contents::new(session), received, &headers);
            drop(headers);
            // Why headers could not be committed comes before that nobody took them.
            let mut totals = joined(Some(committing))?;
            let sent = sent?;
            totals.stored_bytes += sent.bytes;
            totals.rest = sent.headers;
            Ok(totals)
        })?;
        Ok(Self::Behind {
            changes: Some(changes),
            thread: Some(thread),
        })
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

    /// Waits for what was handed over, when nothing more comes, and commits what is left of it: on however many threads,
    /// an import that fails has committed the same.
    pub(super) fn abandon(self, session: &Session<'_>) {
        // Why the import failed is known.
        if let Ok(mut totals) = self.finish() {
            let rest = std::mem::take(&mut totals.rest);
            drop(totals.commit(session, rest));
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

#[cfg(test)]
mod tests;
