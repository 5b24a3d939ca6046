//! Checks, test matrices and benchmarks of the Stepwell workspace.
//!
//! `cargo xtask ci` runs every check and prints one table; `cargo xtask help` lists the rest.

#![forbid(unsafe_code)]

mod arguments;
mod ci;
mod command;
mod coverage;
mod error;
mod feature_sets;
mod full_counts;
mod hw;
mod layers;
mod measure;
mod mutants;
mod process_tree;
mod report;
mod test_counts;
mod tidy;
mod tracked;
mod workspace;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use arguments::Task;
use error::Error;
use report::{Report, Row};
use workspace::Workspace;

fn main() -> ExitCode {
    match arguments::parse(lexopt::Parser::from_env()).and_then(run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::from(if matches!(error, Error::Usage { .. }) {
                2
            } else {
                1
            })
        }
    }
}

/// Carries out a task; true if everything it looked at was in order.
fn run(task: Task) -> Result<bool, Error> {
    let load = || Workspace::load(&root());
    match task {
        Task::Help => {
            println!("{}", arguments::HELP);
            Ok(true)
        }
        Task::ListRows => {
            ci::list();
            Ok(true)
        }
        Task::Ci { selection, verbose } => ci::run(&load()?, &selection, verbose),
        Task::Layers => single(
            &load()?,
            "layers",
            "dependencies point downward",
            layers::run,
        ),
        Task::Tidy => single(&load()?, "tidy", "the house rules", tidy::run),
        Task::Coverage => single(
            &load()?,
            "coverage",
            "lines that the tests reach",
            coverage::run,
        ),
        Task::Mutants { seeds, prefix } => mutants::run_with(&load()?, seeds, &prefix),
        Task::Hardware => hw::run(&load()?),
        Task::Replay => hw::run_replay(&load()?),
        Task::Coral => hw::run_coral(&load()?),
        Task::Torch => hw::run_torch(&load()?),
        Task::Simulation { seeds } => full_counts::run(&load()?, &full_counts::SIMULATION, seeds),
        Task::SimulationOf { seed } => full_counts::replay(&load()?, seed),
        Task::Kill { count } => full_counts::run(&load()?, &full_counts::KILL, count),
        Task::Soak { minutes } => full_counts::soak(&load()?, minutes),
        Task::Bench { name, rest } => measure::bench(&load()?, name.as_deref(), &rest),
        Task::Peers { rest } => measure::peers(&load()?, &rest),
    }
}

/// Runs one check as a task of its own.
fn single(
    workspace: &Workspace,
    name: &'static str,
    about: &'static str,
    run: fn(&report::Context<'_>) -> Result<report::Outcome, Error>,
) -> Result<bool, Error> {
    let mut report = Report::default();
    report.run(&Row { name, about, run }, workspace, false);
    Ok(!report.failed())
}

/// The workspace root: the parent of this package.
fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package
        .parent()
        .map_or_else(|| package.clone(), Path::to_owned)
}
