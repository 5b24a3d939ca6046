//! `stepwell store`: values under keys, without any meaning of their own.

mod change_lines;
mod compact;
mod folder;
mod get;
mod key;
mod location;
mod ls;
mod put;
mod rm;
mod stats;
mod value;
mod verify;

use clap::Subcommand;

use crate::error::CliError;
use crate::report::Report;

/// What can be done with values.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Store values; a batch is durable once its line is printed.
    Put(put::Arguments),
    /// Write a value, checked, to a file or to standard output.
    Get(get::Arguments),
    /// List the keys.
    Ls(ls::Arguments),
    /// Remove values.
    Rm(rm::Arguments),
    /// Read and check everything.
    Verify(verify::Arguments),
    /// Give back the space that removed and replaced values take.
    Compact(compact::Arguments),
    /// Say how much the store holds, and how it reaches the device.
    Stats(stats::Arguments),
}

pub(crate) fn run(report: &Report, command: Command) -> Result<(), CliError> {
    match command {
        Command::Put(arguments) => put::run(report, &arguments),
        Command::Get(arguments) => get::run(report, &arguments),
        Command::Ls(arguments) => ls::run(report, &arguments),
        Command::Rm(arguments) => rm::run(report, &arguments),
        Command::Verify(arguments) => verify::run(report, &arguments),
        Command::Compact(arguments) => compact::run(report, &arguments),
        Command::Stats(arguments) => stats::run(report, &arguments),
    }
}
