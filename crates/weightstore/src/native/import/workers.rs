//! The threads that read, hash and encode.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::Scope;

use core_view::BufferMut;

use super::SourceFile;
use super::input::source_error;
use crate::WeightError;
use crate::identity::{Leaf, leaf_digest};
use crate::native::body_writer::{EncodedChunk, Encoding};
use crate::native::core::Core;
use crate::parallel::next_job;

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
        raw: BufferMut,
    },
}

/// A chunk with its work done.
pub(super) enum Outcome {
    Read { raw: BufferMut, leaf: Leaf },
    Encoded(EncodedChunk),
}

/// What a worker answers; `None` if it panicked.
pub(super) type Answer = Option<(Ticket, Result<Outcome, WeightError>)>;

/// The way to the workers; they end when it is dropped.
pub(super) struct Workers<'env> {
    pub(super) jobs: Sender<Job<'env>>,
    pub(super) answers: Receiver<Answer>,
}

impl<'env> Workers<'env> {
    pub(super) fn start<'scope>(scope: &'scope Scope<'scope, 'env>, core: &'env Core) -> Self {
        let (jobs, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let (sender, answers) = channel();
        for _ in 0..core.config.threads() {
            let receiver = Arc::clone(&receiver);
            let answerer = Answerer(sender.clone());
            scope.spawn(move || {
                while let Some(job) = next_job(&receiver) {
                    if answerer.0.send(Some(run(core, job))).is_err() {
                        return;
                    }
                }
            });
        }
        Self { jobs, answers }
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

fn run(core: &Core, job: Job<'_>) -> (Ticket, Result<Outcome, WeightError>) {
    match job {
        Job::Read {
            ticket,
            file,
            offset_bytes,
            len,
        } => (ticket, read(core, file, offset_bytes, len)),
        Job::Encode {
            ticket,
            encoding,
            raw,
        } => {
            let encoded = EncodedChunk::from_buffer(core, &encoding, raw);
            (ticket, encoded.map(Outcome::Encoded))
        }
    }
}

fn read(
    core: &Core,
    file: SourceFile<'_>,
    offset_bytes: u64,
    len: usize,
) -> Result<Outcome, WeightError> {
    let mut raw = core.buffers.take(len)?;
    file.source
        .read_exact_at(offset_bytes, &mut raw)
        .map_err(|source| source_error(file.name, offset_bytes, len as u64, source))?;
    let leaf = leaf_digest(&raw);
    Ok(Outcome::Read { raw, leaf })
}
