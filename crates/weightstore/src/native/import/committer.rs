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

fn wait_for(content: Transfer<()>) -> Result<(), WeightError> {
    let arrived = content.wait();
    arrived.map_err(|error| WeightError::storage("commit", error))
}

impl Totals {
    fn commit(&mut self, session: &Session<'_>, headers: Changes) -> Result<(), WeightError> {
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
    /// Headers whose content is durable.
    headers: VecDeque<Changes>,
    turns: Option<Turns>,
    totals: Totals,
}

impl<'env> Commits<'env> {
    fn new(session: &'env Session<'env>) -> Self {
        let turns = session.interleaving_seed().map(Turns);
        Self {
            contents: Contents::new(session),
            headers: VecDeque::new(),
            turns,
            totals: Totals::default(),
        }
    }

    fn take(&mut self, changes: Changes) -> Result<(), WeightError> {
        let taken = self.steps(changes);
        if taken.is_err() {
            // What others were to commit they commit; that they could not comes before.
            self.commit_all()?;
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
            return self.commit_all();
        };
        loop {
            match turns.next() {
                Turn::Settle => self.settle()?,
                Turn::Commit => self.commit()?,
                Turn::Send => break,
            }
        }
        self.turns = Some(turns);
        Ok(())
    }

    fn settle(&mut self) -> Result<(), WeightError> {
        if self.headers.len() >= HEADERS_WAITING {
            self.commit()?;
        }
        let durable = self.contents.settle()?;
        self.headers.extend(durable);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), WeightError> {
        let session = self.contents.session;
        let oldest = self.headers.pop_front();
        let committed = oldest.map_or(Ok(()), |headers| self.totals.commit(session, headers));
        if committed.is_err() {
            // The thread that commits ends there.
            self.headers.clear();
        }
        committed
    }

    fn commit_all(&mut self) -> Result<(), WeightError> {
        while !self.headers.is_empty() {
            self.commit()?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Totals, WeightError> {
        while !self.contents.under_way.is_empty() {
            let settled = self.settle();
            if settled.is_err()
                || !matches!(self.turns.as_mut().map(Turns::next), Some(Turn::Settle))
            {
                self.commit_all()?;
            }
            settled?;
        }
        self.commit_all()?;
        self.totals.stored_bytes += self.contents.sent_bytes;
        Ok(self.totals)
    }
}

/// Sends content and hands the headers on once it is durable, so that the commits of headers, which are synced too and
/// queue behind content, hold up no content. Returns the bytes that were sent.
fn send_contents(
    mut contents: Contents<'_>,
    received: Receiver<Changes>,
    headers: &SyncSender<Changes>,
) -> Result<u64, WeightError> {
    let hand_on = |durable| headers.send(durable).map_err(|_| worker_lost());
    for changes in received {
        if contents.is_full() {
            contents.settle()?.map_or(Ok(()), hand_on)?;
        }
        contents.send(changes)?;
    }
    while let Some(durable) = contents.settle()? {
        hand_on(durable)?;
    }
    Ok(contents.sent_bytes)
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
            return Self::Here(Box::new(Commits::new(session)));
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
            let sent = send_contents(Contents::new(session), received, &headers);
            drop(headers);
            // Why headers could not be committed comes before that nobody took them.
            let mut totals = joined(Some(committing))?;
            totals.stored_bytes += sent?;
            Ok(totals)
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
