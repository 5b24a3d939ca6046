//! `stepwell weights`: models in a store.

mod add;
mod diff;
mod export_h5;
mod gc;
mod get;
mod import_h5;
mod location;
mod ls;
mod model_file;
mod rm;
mod show;
mod stats;
mod verify;

use clap::Subcommand;

use crate::error::CliError;
use crate::report::Report;

pub(crate) use get::restore;
pub(crate) use location::Location;
pub(crate) use model_file::ModelFiles;

/// What can be done with models.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Store safetensors files as models; a model is durable once its line is printed.
    Add(add::Arguments),
    /// Write a model as an HDF5 file that Coral and h5py open.
    ExportH5(export_h5::Arguments),
    /// Restore a model, byte for byte.
    Get(get::Arguments),
    /// Store the tensors of an HDF5 file of Coral's as a model, its deltas decoded.
    ImportH5(import_h5::Arguments),
    /// List the models.
    Ls(ls::Arguments),
    /// Describe a model and its tensors.
    Show(show::Arguments),
    /// Compare two models, tensor by tensor.
    Diff(diff::Arguments),
    /// Remove a model, with the tensors that nothing else needs.
    Rm(rm::Arguments),
    /// Delete what no model needs, and what crashes left.
    Gc(gc::Arguments),
    /// Say how much the store holds, and what it saves.
    Stats(stats::Arguments),
    /// Read and check everything.
    Verify(verify::Arguments),
}

pub(crate) fn run(report: &Report, command: Command) -> Result<(), CliError> {
    match command {
        Command::Add(arguments) => add::run(report, &arguments),
        Command::ExportH5(arguments) => export_h5::run(report, &arguments),
        Command::Get(arguments) => get::run(report, &arguments),
        Command::ImportH5(arguments) => import_h5::run(report, &arguments),
        Command::Ls(arguments) => ls::run(report, &arguments),
        Command::Show(arguments) => show::run(report, &arguments),
        Command::Diff(arguments) => diff::run(report, &arguments),
        Command::Rm(arguments) => rm::run(report, &arguments),
        Command::Gc(arguments) => gc::run(report, &arguments),
        Command::Stats(arguments) => stats::run(report, &arguments),
        Command::Verify(arguments) => verify::run(report, &arguments),
    }
}
