//! `stepwell kv`: the KV cache of a service, over traces of what it was asked.

mod simulate;

use clap::Subcommand;

use crate::error::CliError;
use crate::report::Report;

/// What can be done with traces.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say what each policy would have hit at each capacity, beside the most that any could.
    Simulate(simulate::Arguments),
}

pub(crate) fn run(report: &Report, command: Command) -> Result<(), CliError> {
    match command {
        Command::Simulate(arguments) => simulate::run(report, &arguments),
    }
}
