//! `stepwell store put`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use tier_nvme::NvmeStore;

use self::changes::{Changes, Limits, Origin};
use self::commits::Commits;
use super::key::KeyForm;
use super::location::Location;
use super::value::ValueReader;
use crate::error::CliError;
use crate::quantity::parse_bytes;
use crate::report::Report;

mod changes;
mod commits;

/// What `store put` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
    #[command(flatten)]
    form: KeyForm,
    /// Keys and the files of their values in turns, `-` for standard input; all of them become one batch.
    #[arg(value_name = "KEY FILE", num_args = 2.., required_unless_present_any = ["from", "jsonl"])]
    pairs: Vec<OsString>,
    /// Store every file below this directory, each under its path in there.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["pairs", "jsonl"])]
    from: Option<PathBuf>,
    /// Put this in front of the keys of --from.
    #[arg(long, value_name = "TEXT", requires = "from", default_value = "")]
    prefix: OsString,
    /// Carry out the changes in the lines of this file, `-` for standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "pairs")]
    jsonl: Option<PathBuf>,
    /// Bytes of values in one batch of --from and --jsonl at most.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "64MiB")]
    batch_bytes: u64,
    /// Changes in one batch of --from and --jsonl at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536), default_value = "1024")]
    batch_keys: u32,
    /// Size of the segments of a store that is made; no batch can be larger.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    segment_bytes: Option<u64>,
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let origin = Origin::of(arguments)?;
    // What can't be used is refused before a store is made for it.
    origin.check()?;
    let store = arguments.location.open_or_make(arguments.segment_bytes)?;
    let reader = ValueReader::new(&store);
    let limits = Limits {
        value_bytes: arguments.batch_bytes,
        log_bytes: reader.len_bytes_max(),
        changes: u64::from(arguments.batch_keys),
        whole: origin.is_one_batch(),
    };
    let outcome = commit_all(report, &store, Changes::read(origin, reader, limits)?);
    let closed = store.close();
    outcome?;
    report.closed(closed)
}

/// Commits batch after batch while the next ones are read.
fn commit_all(report: &Report, store: &NvmeStore, changes: Changes) -> Result<(), CliError> {
    let mut commits = Commits::new(report, store);
    let handed_over = changes.into_iter().try_for_each(|changes| {
        let changes = changes?;
        commits.hand_over(changes)
    });
    // What ends the input changes nothing about the batches before it.
    let settled = commits.settle(0);
    handed_over.and(settled)
}
