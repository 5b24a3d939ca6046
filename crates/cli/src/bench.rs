//! `stepwell bench`: this machine's floor, and how close each tier comes to it.

mod nvme;
mod outcome;
mod picture;
mod race;
mod weights;

use clap::Subcommand;

use crate::error::CliError;
use crate::report::Report;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The blob store of tier-nvme beside a raw loop of the same bytes.
    Nvme(nvme::Arguments),
    /// Models in and out of a weight store beside what device, hash and codec allow.
    Weights(weights::Arguments),
}

pub(crate) fn run(report: &Report, command: Command) -> Result<(), CliError> {
    match command {
        Command::Nvme(arguments) => nvme::run(report, &arguments),
        Command::Weights(arguments) => weights::run(report, &arguments),
    }
}
