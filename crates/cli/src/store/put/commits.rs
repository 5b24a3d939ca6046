//! Batches on their way to the device, and their acknowledgements.

use std::collections::VecDeque;
use std::error::Error;
use std::time::Instant;

use core_view::contract::{ContractError, Failure, Transfer};
use serde::Serialize;
use tier_nvme::{NvmeError, NvmeStore};
use weightstore::Progress;

use super::super::key::{KeyObject, shown};
use super::changes::Batch;
use crate::error::CliError;
use crate::progress::ProgressLine;
use crate::quantity::bytes;
use crate::report::Report;

/// Batches that are handed over and not acknowledged at most: one is synced, one is written and one waits.
const UNDER_WAY_MAX: usize = 3;

/// What `store put` answers for each batch that is durable.
#[derive(Debug, Serialize)]
struct Acknowledged {
    batch: u64,
    puts: u64,
    removals: u64,
    value_bytes: u64,
    changes_total: u64,
    last_key: KeyObject,
    elapsed_s: f64,
}

/// What is to be said of a batch once it is durable.
#[derive(Debug)]
struct Facts {
    batch: u64,
    puts: u64,
    removals: u64,
    value_bytes: u64,
    last_key: Vec<u8>,
}

/// Commits batches, a few under way at once, and acknowledges each once it is durable.
///
/// They are committed and acknowledged in order. Where one fails, those that were handed over with it may be
/// stored all the same, and are acknowledged then.
pub(super) struct Commits<'a> {
    report: &'a Report,
    store: &'a NvmeStore,
    progress: ProgressLine,
    started: Instant,
    batches: u64,
    under_way: VecDeque<(Facts, Transfer<()>)>,
    changes_total: u64,
    done_bytes: u64,
}

impl<'a> Commits<'a> {
    pub(super) fn new(report: &'a Report, store: &'a NvmeStore) -> Self {
        Self {
            report,
            store,
            progress: report.progress("put"),
            started: Instant::now(),
            batches: 0,
            under_way: VecDeque::new(),
            changes_total: 0,
            done_bytes: 0,
        }
    }

    /// Begins a batch, after waiting for one before if enough are under way.
    pub(super) fn hand_over(&mut self, changes: Batch) -> Result<(), CliError> {
        self.settle(UNDER_WAY_MAX - 1)?;
        self.batches += 1;
        let facts = Facts {
            batch: self.batches,
            puts: changes.puts,
            removals: changes.removals,
            value_bytes: changes.value_bytes,
            last_key: changes.last_key,
        };
        if facts.puts > 0 {
            let transfer = self.store.write_batch_async(changes.batch);
            self.under_way.push_back((facts, transfer));
            return Ok(());
        }
        // A full disk takes removals, which make room for themselves, from who waits for them.
        self.settle(0)?;
        self.store.write_batch(changes.batch)?;
        self.acknowledge(&facts)
    }

    /// Waits until no more than `left` are under way, and acknowledges the others. After a failure it waits for
    /// all, and returns the first.
    pub(super) fn settle(&mut self, left: usize) -> Result<(), CliError> {
        let mut outcome = Ok(());
        while self.under_way.len() > left || outcome.is_err() {
            let Some((facts, transfer)) = self.under_way.pop_front() else {
                break;
            };
            let settled = transfer.wait().map_err(reason);
            let settled = settled.and_then(|()| self.acknowledge(&facts));
            outcome = outcome.and(settled);
        }
        outcome
    }

    fn acknowledge(&mut self, facts: &Facts) -> Result<(), CliError> {
        self.changes_total += facts.puts + facts.removals;
        self.done_bytes += facts.value_bytes;
        self.progress.set(Progress {
            done_bytes: self.done_bytes,
            total_bytes: 0,
        });
        let answer = Acknowledged {
            batch: facts.batch,
            puts: facts.puts,
            removals: facts.removals,
            value_bytes: facts.value_bytes,
            changes_total: self.changes_total,
            last_key: KeyObject::new(&facts.last_key),
            elapsed_s: self.started.elapsed().as_secs_f64(),
        };
        self.report
            .answer(&answer, || answer.text(&shown(&facts.last_key)))
    }
}

/// The store's own error out of a failed transfer.
fn reason(failure: Failure) -> CliError {
    let error = ContractError::from(failure);
    let of_store = Error::source(&error).and_then(|source| source.downcast_ref());
    let of_store: Option<&NvmeError> = of_store;
    match of_store {
        Some(of_store) => of_store.clone().into(),
        None => NvmeError::from(error).into(),
    }
}

impl Acknowledged {
    fn text(&self, last_key: &str) -> String {
        let removed = match self.removals {
            0 => String::new(),
            removals => format!(", {removals} removed"),
        };
        format!(
            "batch {}: {} stored ({}){removed}, durable, {} in all, last {last_key}",
            self.batch,
            self.puts,
            bytes(self.value_bytes),
            self.changes_total,
        )
    }
}
