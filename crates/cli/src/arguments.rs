//! What the command line can say, and how the program ends.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::CliError;
use crate::report::Report;
use crate::{bench, doctor, kv, store, tour, weights};

/// Tiered storage for tensors.
#[derive(Debug, Parser)]
#[command(name = "stepwell", version, about, arg_required_else_help = true)]
struct Arguments {
    /// Answer in JSON on standard output, one object per answer.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure this machine's floor, and how close each tier comes to it.
    #[command(subcommand)]
    Bench(bench::Command),
    /// Say what this machine can do for the store.
    Doctor(doctor::Arguments),
    /// Run the KV cache of a service over a trace of what it was asked.
    #[command(subcommand)]
    Kv(kv::Command),
    /// Store, list and read plain values under keys.
    #[command(subcommand)]
    Store(store::Command),
    /// Store a model, deduplicate a second version, verify, restore and compare; with throughputs.
    Tour(tour::Arguments),
    /// Store, list and restore models.
    #[command(subcommand)]
    Weights(weights::Command),
}

/// Runs the program: 0 done, 1 failed, 2 wrong usage.
pub(crate) fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(refused) => return refuse(&refused),
    };
    let report = Report::new(arguments.json);
    let outcome = match arguments.command {
        Command::Bench(command) => bench::run(&report, command),
        Command::Doctor(arguments) => doctor::run(&report, &arguments),
        Command::Kv(command) => kv::run(&report, command),
        Command::Store(command) => store::run(&report, command),
        Command::Tour(arguments) => tour::run(&report, &arguments),
        Command::Weights(command) => weights::run(&report, command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report.failure(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Ends a run whose arguments can't be used; help and version are no failures.
fn refuse(refused: &clap::Error) -> ExitCode {
    // Nothing is left to tell it to if this can't be written.
    drop(refused.print());
    if !refused.use_stderr() {
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().any(|argument| argument == "--json") {
        let reason = reason_of(&refused.to_string());
        Report::new(true).failure_object(&CliError::Usage { reason });
    }
    ExitCode::from(2)
}

/// What a refusal says before it comes to tips and usage, in one line: what is missing stands in lines of its own.
fn reason_of(text: &str) -> String {
    let lines = text.lines().take_while(|line| !line.trim().is_empty());
    let words: Vec<_> = lines.flat_map(str::split_whitespace).collect();
    words.join(" ").trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_line_that_names_what_is_missing() {
        let text = "error: these are missing:\n  --store <DIR>\n  <MODEL>\n\nUsage: stepwell\n";
        assert_eq!(reason_of(text), "these are missing: --store <DIR> <MODEL>");
        assert_eq!(
            reason_of("error: no 'x' found\n\n  tip: 'y'"),
            "no 'x' found"
        );
    }
}
