//! A short run of each fuzz target.

use std::process::Command;

use crate::ci::installed;
use crate::command::Invocation;
use crate::error::Error;
use crate::report::{Context, Outcome};

/// No input leads to more at once: lengths are compared before anything is allocated.
const MALLOC_LIMIT_MIB: u32 = 64;

/// Enough to notice a target that fails at once or no longer compiles.
const SECONDS_PER_TARGET: u32 = 3;

/// The same inputs each time: new ones are looked for in longer runs.
const SEED: u32 = 1;

/// Runs each target of each crate that has a `fuzz` directory.
pub(crate) fn run(context: &Context<'_>) -> Result<Outcome, Error> {
    let fuzzed: Vec<_> = context
        .workspace
        .crates()
        .map(|package| context.shell.root.join(&package.directory).join("fuzz"))
        .filter(|directory| directory.join("Cargo.toml").is_file())
        .collect();
    if fuzzed.is_empty() {
        return Ok(Outcome::Skipped("no crate has fuzz targets yet".to_owned()));
    }
    if !installed::answers("rustup", &["run", "nightly", "cargo", "fuzz", "--version"]) {
        return Ok(Outcome::Skipped("cargo-fuzz is not installed".to_owned()));
    }
    // What the crates share is built once.
    let built = context.shell.root.join("target/fuzz");
    let target_directory = format!("--target-dir={}", built.display());
    let mut failures = Vec::new();
    let mut targets = 0;
    for directory in &fuzzed {
        let parent = directory.parent().unwrap_or(directory);
        let listed = Command::new("rustup")
            .args(["run", "nightly", "cargo", "fuzz", "list"])
            .current_dir(parent)
            .output()
            .map_err(|source| Error::Command {
                command: "cargo fuzz list".to_owned(),
                source,
            })?;
        if !listed.status.success() {
            failures.push(format!(
                "{}: the targets cannot be listed",
                parent.display()
            ));
        }
        // All at once, so that they share the processors; what does not compile fails below.
        Invocation::nightly_cargo()
            .args(["fuzz", "build", &target_directory])
            .directory(parent)
            .run(&context.shell)?;
        for target in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
            targets += 1;
            let finished = Invocation::nightly_cargo()
                .args([
                    "fuzz",
                    "run",
                    &target_directory,
                    target,
                    "--",
                    "-verbosity=0",
                ])
                .args([format!("-max_total_time={SECONDS_PER_TARGET}")])
                .args([format!("-seed={SEED}")])
                .args([format!("-malloc_limit_mb={MALLOC_LIMIT_MIB}")])
                .directory(parent)
                .run(&context.shell)?;
            if !finished.success {
                failures.push(format!("{target}: {}", finished.ending()));
            }
        }
    }
    Ok(Outcome::unless(&failures, format!("{targets} targets")))
}
