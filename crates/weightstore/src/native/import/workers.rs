//! The threads that read, hash and encode.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

use core_view::BufferMut;

use super::SourceFile;
use super::alias_chain::AliasChain;
use super::input::source_error;
use super::jobs::Jobs;
use crate::WeightError;
use crate::identity::{Leaf, leaf_digest, leaf_digest_pair};
use crate::native::body_writer::{EncodedChunk, Encoding, encode};
use crate::native::core::Core;

/// Where a result belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) group: u64,
    pub(super) slot: usize,
}

/// Work for one chunk.
pub(super) enum Job<'env> {
    /// One chunk, or two that are hashed together.
    Read {
        file: SourceFile<'env>,
        first: ToRead,
        second: Option<ToRead>,
    },
    Encode {
        ticket: Ticket,
        encoding: Encoding,
        /// The alias that the chunk goes into, and its place in the tensor.
        alias: (Arc<AliasChain>, usize),
        raw: BufferMut,
    },
}

/// A chunk to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct ToRead {
    pub(super) ticket: Ticket,
    pub(super) offset_bytes: u64,
    pub(super) len: usize,
}

/// A chunk with its work done.
pub(super) enum Outcome {
    Read { raw: BufferMut, leaf: Leaf },
    Encoded(EncodedChunk),
}

/// What is answered for one chunk.
type Done = (Ticket, Result<Outcome, WeightError>);

/// What a worker answers; `None` if it panicked.
pub(super) type Answer = Option<Done>;

/// The way to the workers; they end when it is dropped.
pub(super) struct Workers<'env> {
    jobs: Arc<Jobs<Job<'env>>>,
    pub(super) answers: Receiver<Answer>,
}

impl Drop for Workers<'_> {
    fn drop(&mut self) {
        self.jobs.close();
    }
}

impl<'env> Workers<'env> {
    pub(super) fn start<'scope>(scope: &'scope Scope<'scope, 'env>, core: &'env Core) -> Self {
        let (sender, answers) = channel();
        // Before the threads: those that were started end if one can't be.
        let workers = Self {
            jobs: Arc::new(Jobs::new()),
            answers,
        };
        for _ in 0..core.config.threads() {
            let jobs = Arc::clone(&workers.jobs);
            let answerer = Answerer(sender.clone());
            scope.spawn(move || {
                while let Some(job) = jobs.take() {
                    let mut answers = run(core, job).into_iter().flatten();
                    if answers.any(|answer| answerer.0.send(Some(answer)).is_err()) {
                        return;
                    }
                }
            });
        }
        workers
    }

    /// Has a job done: what is to be encoded before what is to be read, each in the order in which it comes.
    pub(super) fn send(&self, job: Job<'env>) {
        match job {
            Job::Read { .. } => self.jobs.push_ahead(job),
            Job::Encode { .. } => self.jobs.push_awaited(job),
        }
    }
}

/// Tells of a panic, so that nobody waits for the answer that does not come.
struct Answerer(Sender<Answer>);

impl Drop for Answerer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.0.send(None));
        }
    }
}

fn run(core: &Core, job: Job<'_>) -> [Option<Done>; 2] {
    match job {
        Job::Read {
            file,
            first,
            second: None,
        } => {
            let done = read(core, file, first).map(|raw| {
                let leaf = leaf_digest(&raw);
                Outcome::Read { raw, leaf }
            });
            [Some((first.ticket, done)), None]
        }
        Job::Read {
            file,
            first,
            second: Some(second),
        } => read_pair(core, file, first, second),
        Job::Encode {
            ticket,
            encoding,
            alias: (alias, index),
            raw,
        } => {
            let encoded = alias.around(index, &raw, || encode(core, &encoding, &raw));
            let done = encoded
                .map(|encoded| Outcome::Encoded(encoded.unwrap_or_else(|| EncodedChunk::raw(raw))));
            [Some((ticket, done)), None]
        }
    }
}

fn read_pair(
    core: &Core,
    file: SourceFile<'_>,
    first: ToRead,
    second: ToRead,
) -> [Option<Done>; 2] {
    let pair = read(core, file, first).map_err(|error| (first.ticket, error));
    let pair = pair.and_then(|raw| match read(core, file, second) {
        Ok(other) => Ok([raw, other]),
        Err(error) => Err((second.ticket, error)),
    });
    match pair {
        Ok([a, b]) => {
            let [leaf_a, leaf_b] = leaf_digest_pair(&a, &b);
            let done = |ticket, raw, leaf| Some((ticket, Ok(Outcome::Read { raw, leaf })));
            [
                done(first.ticket, a, leaf_a),
                done(second.ticket, b, leaf_b),
            ]
        }
        // The import ends with it, so that nobody misses the other one.
        Err((ticket, error)) => [Some((ticket, Err(error))), None],
    }
}

fn read(core: &Core, file: SourceFile<'_>, chunk: ToRead) -> Result<BufferMut, WeightError> {
    let ToRead {
        offset_bytes, len, ..
    } = chunk;
    let mut raw = core.buffers.take(len)?;
    file.source
        .read_exact_at(offset_bytes, &mut raw)
        .map_err(|source| source_error(file.name, offset_bytes, len as u64, source))?;
    Ok(raw)
}
