//! `stepwell kv`: the KV cache of a service, over traces of what it was asked.

mod replay;
mod simulate;
mod soak;
mod tiers;

use clap::Subcommand;

pub(crate) use replay::Outcome as ReplayOutcome;
pub(crate) use tiers::{Sizes, Tiers};

use crate::error::CliError;
use crate::report::Report;

/// What can be done with traces.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say what each policy would have hit at each capacity, beside the most that any could.
    Simulate(simulate::Arguments),
    /// Move and verify real bytes through real tiers.
    Replay(replay::Arguments),
    /// Replay a trace again and again under new salts, and say how memory grows.
    Soak(soak::Arguments),
}

pub(crate) fn run(report: &Report, command: Command) -> Result<(), CliError> {
    match command {
        Command::Simulate(arguments) => simulate::run(report, &arguments),
        Command::Replay(arguments) => replay::run(report, &arguments),
        Command::Soak(arguments) => soak::run(report, &arguments),
    }
}
