//! `cargo xtask sim` and `cargo xtask kill`: the long counts that CI cuts short.

use std::time::Instant;

use crate::command::{Echo, Invocation, Shell};
use crate::error::Error;
use crate::feature_sets;
use crate::workspace::{TargetKind, Workspace};

/// A test program whose length is set by the environment.
pub(crate) struct Counted {
    name: &'static str,
    package: &'static str,
    test: &'static str,
    variable: &'static str,
    /// The count that a release must have seen.
    pub(crate) count_default: u64,
}

/// Simulated crashes of the blob store, one per seed.
pub(crate) const SIMULATION: Counted = Counted {
    name: "sim",
    package: "tier-nvme",
    test: "crash_simulation",
    variable: "STEPWELL_SEEDS",
    count_default: 1000,
};

/// Simulated crashes of the write-ahead log, one per seed.
pub(crate) const LOG_SIMULATION: Counted = Counted {
    name: "sim-wal",
    package: "tier-nvme",
    test: "wal_simulation",
    variable: "STEPWELL_SEEDS",
    count_default: 1000,
};

/// Simulated crashes of the slab, one per seed.
pub(crate) const SLAB_SIMULATION: Counted = Counted {
    name: "sim-slab",
    package: "tier-nvme",
    test: "slab_simulation",
    variable: "STEPWELL_SEEDS",
    count_default: 1000,
};

/// Real kills of the program while it stores models.
pub(crate) const KILL: Counted = Counted {
    name: "kill",
    package: "stepwell",
    test: "kill",
    variable: "STEPWELL_KILLS",
    count_default: 200,
};

/// Runs `counted` in release with everything it prints; true if it passed.
pub(crate) fn run(workspace: &Workspace, counted: &Counted, count: u64) -> Result<bool, Error> {
    let package = workspace
        .package(counted.package)
        .filter(|package| package.has_target(TargetKind::Test, Some(counted.test)))
        .ok_or_else(|| Error::Absent {
            what: format!("the test `{}` of {}", counted.test, counted.package),
            hint: "it has not been written yet".to_owned(),
        })?;
    let shell = Shell::new(&workspace.root, counted.name, false)?;
    let started = Instant::now();
    let finished = Invocation::cargo()
        .args([
            "test",
            "--release",
            "-p",
            counted.package,
            "--test",
            counted.test,
        ])
        .args(feature_sets::arguments([package], feature_sets::run))
        .args(["--", "--nocapture"])
        .env(counted.variable, count.to_string())
        .echo(Echo::Everything)
        .run(&shell)?;
    println!(
        "\n{}: {} with {}={count} in {:.1} s; full output in {}",
        counted.name,
        if finished.success {
            "passed".to_owned()
        } else {
            finished.ending()
        },
        counted.variable,
        started.elapsed().as_secs_f64(),
        shell.log_path.display()
    );
    Ok(finished.success)
}
