//! `stepwell weights gc`.

use std::time::Instant;

use clap::Args;
use serde::Serialize;
use weightstore::{GcOptions, WeightStore};

use super::Location;
use crate::error::CliError;
use crate::quantity::bytes;
use crate::report::Report;

/// What `weights gc` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
    /// Store deltas anew whose base only they need, so that the base can go.
    #[arg(long)]
    rebase: bool,
    /// Delete nothing, only say what would go.
    #[arg(long)]
    dry_run: bool,
}

/// What `weights gc` answers.
#[derive(Debug, Serialize)]
struct Collected {
    dry_run: bool,
    removed_tensors: u64,
    removed_chunks: u64,
    removed_records: u64,
    reclaimed_bytes: u64,
    rebased_tensors: u64,
    kept_bases: u64,
    /// Damaged records that might need something, so that it had to stay.
    unreadable: Vec<String>,
    elapsed_s: f64,
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let store = match arguments.dry_run {
        true => arguments.location.open_for_reading()?,
        false => arguments.location.open()?,
    };
    let started = Instant::now();
    let options = GcOptions::default()
        .with_rebase(arguments.rebase)
        .with_dry_run(arguments.dry_run);
    let found = store.gc(options)?;
    let collected = Collected {
        dry_run: arguments.dry_run,
        removed_tensors: found.removed_tensors,
        removed_chunks: found.removed_chunks,
        removed_records: found.removed_records,
        reclaimed_bytes: found.reclaimed_bytes,
        rebased_tensors: found.rebased_tensors,
        kept_bases: found.kept_bases,
        unreadable: found.unreadable,
        elapsed_s: started.elapsed().as_secs_f64(),
    };
    report.answer(&collected, || collected.text())?;
    report.closed(store.close())
}

impl Collected {
    fn text(&self) -> String {
        let verb = if self.dry_run {
            "would remove"
        } else {
            "removed"
        };
        let mut text = format!(
            "{verb} {} tensors, {} chunks of unfinished imports and {} other records, {}",
            self.removed_tensors,
            self.removed_chunks,
            self.removed_records,
            bytes(self.reclaimed_bytes),
        );
        if self.rebased_tensors > 0 {
            text.push_str(&format!("; {} deltas stored anew", self.rebased_tensors));
        }
        if self.kept_bases > 0 {
            let kept = self.kept_bases;
            text.push_str(&format!(
                "\n{kept} tensors are kept only as bases of deltas; --rebase does without them"
            ));
        }
        for name in &self.unreadable {
            text.push_str(&format!(
                "\nnothing was removed because {name} can't be read"
            ));
        }
        text
    }
}
