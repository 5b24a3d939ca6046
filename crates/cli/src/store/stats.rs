//! `stepwell store stats`.

use clap::Args;
use serde::Serialize;
use tier_nvme::{FileMode, NvmeStore};

use super::location::Location;
use crate::error::CliError;
use crate::quantity::bytes;
use crate::report::Report;
use crate::table::{row, table};

/// What `store stats` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
}

/// What `store stats` answers.
#[derive(Debug, Serialize)]
struct Stats {
    keys: u64,
    live_bytes: u64,
    live_raw_bytes: u64,
    used_bytes: u64,
    dead_bytes: u64,
    reserved_bytes: u64,
    segments: u64,
    segment_bytes: u64,
    /// Null for an empty store.
    space_amplification: Option<f64>,
    memory_limit_bytes: u64,
    memory_used_bytes: u64,
    memory_index_bytes: u64,
    engine: &'static str,
    engine_reason: Option<String>,
    mode: &'static str,
    mode_reason: Option<String>,
    clean: bool,
    batches_replayed: u64,
    tail_batches_discarded: u64,
    damage: usize,
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let store = arguments.location.open_for_reading()?;
    let stats = Stats::of(&store);
    report.answer(&stats, || stats.text())
}

impl Stats {
    fn of(store: &NvmeStore) -> Self {
        let (stats, recovery) = (store.stats(), store.recovery_report());
        let (mode, mode_reason) = match &stats.volume.mode {
            FileMode::Direct => ("direct", None),
            FileMode::Buffered { reason } => ("buffered", Some(reason.clone())),
        };
        Self {
            keys: stats.keys,
            live_bytes: stats.live_bytes,
            live_raw_bytes: stats.live_raw_bytes,
            used_bytes: stats.used_bytes,
            dead_bytes: stats.dead_bytes(),
            reserved_bytes: stats.reserved_bytes,
            segments: stats.segments,
            segment_bytes: store.segment_bytes(),
            space_amplification: (stats.keys > 0).then(|| stats.space_amplification()),
            memory_limit_bytes: stats.memory.limit_bytes,
            memory_used_bytes: stats.memory.used_bytes,
            memory_index_bytes: stats.memory.index_bytes,
            engine: stats.volume.engine,
            engine_reason: stats.volume.engine_reason.clone(),
            mode,
            mode_reason,
            clean: recovery.clean,
            batches_replayed: recovery.batches_replayed,
            tail_batches_discarded: recovery.tail_batches_discarded,
            damage: recovery.damage.len(),
        }
    }

    fn text(&self) -> String {
        let because = |word: &str, reason: &Option<String>| match reason {
            Some(reason) => format!("{word}, because {reason}"),
            None => word.to_owned(),
        };
        let amplification = self
            .space_amplification
            .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
        let opened = match self.clean {
            true => "after a clean close".to_owned(),
            false => format!(
                "not closed cleanly: {} batches replayed, {} unfinished ones left out",
                self.batches_replayed, self.tail_batches_discarded
            ),
        };
        let rows = [
            row(["keys", &self.keys.to_string()]),
            row([
                "bytes of values",
                &match self.live_raw_bytes == self.live_bytes {
                    true => bytes(self.live_bytes),
                    false => format!(
                        "{}, {} stored",
                        bytes(self.live_raw_bytes),
                        bytes(self.live_bytes)
                    ),
                },
            ]),
            row([
                "in the log",
                &format!(
                    "{}, {} dead",
                    bytes(self.used_bytes),
                    bytes(self.dead_bytes)
                ),
            ]),
            row(["reserved on the device", &bytes(self.reserved_bytes)]),
            row(["reserved / live", &amplification]),
            row([
                "segments",
                &format!("{} of {}", self.segments, bytes(self.segment_bytes)),
            ]),
            row([
                "memory",
                &format!(
                    "{} of {}, {} for the index",
                    bytes(self.memory_used_bytes),
                    bytes(self.memory_limit_bytes),
                    bytes(self.memory_index_bytes)
                ),
            ]),
            row(["engine", &because(self.engine, &self.engine_reason)]),
            row(["files", &because(self.mode, &self.mode_reason)]),
            row(["opened", &opened]),
            row(["damage met while opening", &self.damage.to_string()]),
        ];
        table(&rows, &[])
    }
}
