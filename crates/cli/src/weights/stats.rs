//! `stepwell weights stats`.

use clap::Args;
use serde::Serialize;

use super::Location;
use crate::error::CliError;
use crate::quantity::bytes;
use crate::report::Report;

/// What `weights stats` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
}

/// What `weights stats` answers.
#[derive(Debug, Serialize)]
struct Stats {
    models: u64,
    tensors: u64,
    logical_bytes: u64,
    stored_bytes: u64,
    ratio: f64,
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let stats = arguments.location.open_for_reading()?.stats()?;
    let stats = Stats {
        models: stats.models,
        tensors: stats.tensors,
        logical_bytes: stats.logical_bytes,
        stored_bytes: stats.stored_bytes,
        ratio: stats.ratio,
    };
    report.answer(&stats, || {
        format!(
            "{} models, {} distinct tensors, {} stored for {}, ratio {:.3}",
            stats.models,
            stats.tensors,
            bytes(stats.stored_bytes),
            bytes(stats.logical_bytes),
            stats.ratio
        )
    })
}
