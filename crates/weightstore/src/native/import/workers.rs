//! The threads that read, hash and encode.

use std::io;
use std::sync::Arc;
use std::thread::Scope;

use core_view::BufferMut;

use super::SourceFile;
use super::alias_chain::AliasChain;
use super::answers::Answers;
use super::input::source_error;
use super::jobs::Jobs;
use crate::identity::{Leaf, leaf_digest};
use crate::native::body_writer::{EncodedChunk, Encoding, encode};
use crate::native::core::Core;
use crate::{WeightError, threads};

/// Where a result belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) group: u64,
    pub(super) slot: usize,
}

/// Work for one chunk.
pub(super) enum Job<'env> {
    Read {
        ticket: Ticket,
        file: SourceFile<'env>,
        offset_bytes: u64,
        len: usize,
    },
    Encode {
        ticket: Ticket,
        encoding: Encoding,
        /// The alias that the chunk goes into, and its place in the tensor.
        alias: (Arc<AliasChain>, usize),
        raw: BufferMut,
    },
}

/// A chunk with its work done.
pub(super) enum Outcome {
    Read { raw: BufferMut, leaf: Leaf },
    Encoded(EncodedChunk),
}

/// What is answered for one chunk.
pub(super) type Done = (Ticket, Result<Outcome, WeightError>);

/// The way to the workers; they end when it is dropped.
pub(super) struct Workers<'env> {
    jobs: Arc<Jobs<Job<'env>>>,
    answers: Arc<Answers<Done>>,
}

impl Drop for Workers<'_> {
    fn drop(&mut self) {
        self.jobs.close();
    }
}

impl<'env> Workers<'env> {
    /// Starts as many as the configuration says, or as there can be.
    pub(super) fn start<'scope>(
        scope: &'scope Scope<'scope, 'env>,
        core: &'env Core,
    ) -> Result<Self, WeightError> {
        // Before the threads: those that were started end if one can't be.
        let workers = Self {
            jobs: Arc::new(Jobs::new()),
            answers: Arc::new(Answers::new()),
        };
        let mut started = Err(io::ErrorKind::OutOfMemory.into());
        for _ in 0..core.config.threads() {
            let jobs = Arc::clone(&workers.jobs);
            let answerer = Answerer(Arc::clone(&workers.answers));
            let thread = threads::start(scope, "import", move || {
                while let Some(job) = jobs.take() {
                    let done = run(core, job);
                    let failed = done.1.is_err();
                    answerer.0.put(done.0.group, done, failed);
                }
            });
            started = started.or(thread.map(drop));
        }
        match started {
            Ok(()) => Ok(workers),
            Err(source) => Err(WeightError::NoThreads {
                operation: "import a model",
                source,
            }),
        }
    }

    /// Has a job done: what is to be encoded before what is to be read, each in the order in which it comes.
    pub(super) fn send(&self, job: Job<'env>) {
        match job {
            Job::Read { ticket, .. } => {
                self.answers.expect(ticket.group);
                self.jobs.push_ahead(job);
            }
            Job::Encode { ticket, .. } => {
                self.answers.expect(ticket.group);
                self.jobs.push_awaited(job);
            }
        }
    }

    /// Waits until a group is answered for, or there is a failure; returns all answers since. `None` if a worker panicked.
    pub(super) fn wait(&self, group: u64) -> Option<Vec<Done>> {
        self.answers.wait(group)
    }
}

/// Tells of a panic, so that nobody waits for the answer that does not come.
struct Answerer(Arc<Answers<Done>>);

impl Drop for Answerer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lose();
        }
    }
}

fn run(core: &Core, job: Job<'_>) -> Done {
    match job {
        Job::Read {
            ticket,
            file,
            offset_bytes,
            len,
        } => {
            let read = read(core, file, offset_bytes, len);
            let done = read.map(|raw| Outcome::Read {
                leaf: leaf_digest(&raw),
                raw,
            });
            (ticket, done)
        }
        Job::Encode {
            ticket,
            encoding,
            alias: (alias, index),
            raw,
        } => {
            let encoded = alias.around(index, &raw, || encode(core, &encoding, &raw));
            let done = encoded
                .map(|encoded| Outcome::Encoded(encoded.unwrap_or_else(|| EncodedChunk::raw(raw))));
            (ticket, done)
        }
    }
}

fn read(
    core: &Core,
    file: SourceFile<'_>,
    offset_bytes: u64,
    len: usize,
) -> Result<BufferMut, WeightError> {
    let mut raw = core.buffers.take(len)?;
    file.source
        .read_exact_at(offset_bytes, &mut raw)
        .map_err(|source| source_error(file.name, offset_bytes, len as u64, source))?;
    Ok(raw)
}
