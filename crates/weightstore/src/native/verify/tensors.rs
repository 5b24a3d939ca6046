//! Checking the content of tensors.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use core_view::BufferMut;

use super::{body_of, reason_of};
use crate::alias::AliasHasher;
use crate::native::core::Core;
use crate::native::tensor::Tensor;
use crate::record::{Body, BodyId};
use crate::{WeightError, WeightHash, parallel};

/// Headers that are read at once.
const HEADERS_AT_ONCE: usize = 64;

/// Chunks that are read ahead of the one whose turn it is.
const CHUNKS_AHEAD: usize = 24;

/// What a tensor's check found.
pub(super) struct Checked {
    pub(super) hash: WeightHash,
    pub(super) body: Option<BodyId>,
    pub(super) len_bytes: u64,
    pub(super) outcome: Result<(), String>,
}

/// One thing to look at: a chunk of a tensor, or its end.
#[derive(Clone)]
struct Item {
    hash: WeightHash,
    tensor: Arc<Result<Option<Tensor>, WeightError>>,
    /// `None` after the last chunk.
    index: Option<usize>,
}

impl Item {
    fn body(&self) -> Option<&Body> {
        let tensor = self.tensor.as_ref().as_ref().ok()?.as_ref()?;
        Some(&tensor.record.body)
    }

    fn len_bytes(&self) -> usize {
        let len = self.body().zip(self.index);
        len.map_or(0, |(body, index)| body.chunk_len(index))
    }

    /// Whether a tensor begins with it.
    fn is_first(&self) -> bool {
        match self.index {
            Some(index) => index == 0,
            None => self.body().is_none_or(|body| body.chunks.is_empty()),
        }
    }
}

/// How much is checked, and how fast; bytes before encoding.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) bytes_max: Option<u64>,
    pub(super) bytes_per_second_max: Option<u64>,
}

/// Checks tensors by their leaves, hashes and aliases, in order; their chunks are read in parallel. Returns
/// the last one, if the limit came before the end.
///
/// A tensor that is deleted or stored anew meanwhile is not damaged.
pub(super) fn check_tensors(
    core: &Core,
    hashes: Vec<WeightHash>,
    limit: Limit,
    mut report: impl FnMut(Checked),
) -> Result<Option<WeightHash>, WeightError> {
    let started = Instant::now();
    let (mut seen_bytes, mut last) = (0, None);
    let mut current = None;
    // Whole tensors are handed out until enough were.
    let given_bytes = Cell::new(0);
    let enough = |item: &Item| {
        let full = limit
            .bytes_max
            .is_some_and(|max| given_bytes.get() >= max.max(1));
        given_bytes.set(given_bytes.get() + item.len_bytes() as u64);
        full && item.is_first()
    };
    let items = items(core, &hashes).take_while(|item| !enough(item));
    parallel::stream(
        core.fetch_threads(),
        CHUNKS_AHEAD,
        items.map(Ok),
        |item| Ok::<_, WeightError>((chunk_of(core, &item), item)),
        |(chunk, item)| {
            let check = current.get_or_insert_with(|| TensorCheck::new(&item));
            match chunk {
                Some(chunk) => {
                    seen_bytes += item.len_bytes() as u64;
                    check.take(chunk);
                    pace(started, seen_bytes, limit.bytes_per_second_max);
                }
                None => {
                    last = Some(item.hash);
                    if let Some(check) = current.take() {
                        report(check.finish(core, &item));
                    }
                }
            }
            Ok(())
        },
    )?;
    Ok(last.filter(|last| hashes.last() != Some(last)))
}

/// Waits as long as so many bytes take at that rate.
fn pace(started: Instant, bytes: u64, bytes_per_second_max: Option<u64>) {
    let Some(rate) = bytes_per_second_max.filter(|rate| *rate > 0) else {
        return;
    };
    let due = Duration::from_secs_f64(bytes as f64 / rate as f64);
    std::thread::sleep(due.saturating_sub(started.elapsed()));
}

fn items<'a>(core: &'a Core, hashes: &'a [WeightHash]) -> impl Iterator<Item = Item> + 'a {
    let groups = hashes.chunks(HEADERS_AT_ONCE);
    let headers = groups.flat_map(move |group| {
        parallel::map(core.fetch_threads(), group.to_vec(), |hash| {
            (hash, Arc::new(core.tensor(&hash)))
        })
    });
    headers.flat_map(|(hash, tensor)| {
        let count = match &*tensor {
            Ok(Some(tensor)) => tensor.record.body.chunks.len(),
            Ok(None) | Err(_) => 0,
        };
        let indices = (0..count).map(Some).chain([None]);
        indices.map(move |index| Item {
            hash,
            tensor: Arc::clone(&tensor),
            index,
        })
    })
}

fn chunk_of(core: &Core, item: &Item) -> Option<Result<BufferMut, WeightError>> {
    match (&*item.tensor, item.index) {
        (Ok(Some(tensor)), Some(index)) => Some(core.chunk(tensor.source(), index)),
        _ => None,
    }
}

/// The check of one tensor, as far as it has come.
struct TensorCheck {
    alias: Option<AliasHasher>,
    outcome: Result<(), String>,
}

impl TensorCheck {
    fn new(item: &Item) -> Self {
        let (alias, outcome) = match &*item.tensor {
            Ok(Some(Tensor { record, .. })) => {
                (Some(AliasHasher::new(record.dtype, &record.shape)), Ok(()))
            }
            Ok(None) => (None, Ok(())),
            Err(error) => (None, Err(reason_of(error))),
        };
        Self { alias, outcome }
    }

    fn take(&mut self, chunk: Result<BufferMut, WeightError>) {
        match (chunk, &mut self.alias) {
            (Ok(chunk), Some(alias)) => alias.update(&chunk),
            (Ok(_), None) => {}
            (Err(error), _) => {
                // Without all chunks there is no alias to compare.
                self.alias = None;
                if self.outcome.is_ok() {
                    self.outcome = Err(reason_of(&error));
                }
            }
        }
    }

    fn finish(mut self, core: &Core, item: &Item) -> Checked {
        let tensor = item.tensor.as_ref().as_ref().ok().and_then(Option::as_ref);
        let record = tensor.map(|tensor| &tensor.record);
        if let (Some(alias), Some(record)) = (&self.alias, record)
            && alias.finish() != record.alias
        {
            self.outcome = Err(format!(
                "its content has the alias {}, its header says {}",
                alias.finish(),
                record.alias
            ));
        }
        let named = record.and_then(|record| record.base).map(|base| base.hash);
        let linked = core
            .catalog()
            .object(&item.hash)
            .and_then(|entry| entry.base);
        if self.outcome.is_ok() && record.is_some() && named != linked {
            let shown =
                |hash: Option<WeightHash>| hash.map_or("none".into(), |hash| hash.to_string());
            self.outcome = Err(format!(
                "its header names the base {}, its base link {}",
                shown(named),
                shown(linked)
            ));
        }
        if let (Err(_), Some(record)) = (&self.outcome, record)
            && core.moved(&item.hash, record).unwrap_or(false)
        {
            self.outcome = Ok(());
        }
        Checked {
            hash: item.hash,
            body: record.and_then(|record| body_of(&record.body)),
            len_bytes: record.map_or(0, |record| record.body.len_bytes),
            outcome: self.outcome,
        }
    }
}
