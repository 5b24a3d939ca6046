//! `cargo xtask sim`, `kill` and `soak`: the long counts that CI cuts short or leaves out.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Instant;

use crate::command::{Echo, Invocation, Shell};
use crate::error::Error;
use crate::feature_sets;
use crate::workspace::{Package, TargetKind, Workspace};

/// Test programs whose length is set by the environment.
pub(crate) struct Counted {
    name: &'static str,
    packages: &'static [&'static str],
    /// Which of the packages' test programs, by how their names end.
    test_suffix: &'static str,
    variables: &'static [&'static str],
    /// The count that a release must have seen.
    pub(crate) count_default: u64,
}

/// Simulated crashes of the blob store, the slab, the write-ahead log and the weight store, and failing tiers under
/// the block manager, one per seed.
pub(crate) const SIMULATION: Counted = Counted {
    name: "sim",
    packages: &["tier-nvme", "weightstore", "blockmgr"],
    test_suffix: "_simulation",
    variables: &["STEPWELL_SEEDS", "STEPWELL_MODEL_SEEDS"],
    count_default: 1000,
};

/// Real kills of processes that store blocks and models.
pub(crate) const KILL: Counted = Counted {
    name: "kill",
    packages: &["tier-nvme", "stepwell"],
    test_suffix: "kill",
    variables: &["STEPWELL_KILLS"],
    count_default: 200,
};

/// Minutes of a soak that a release must have seen.
pub(crate) const SOAK_MINUTES_DEFAULT: u64 = 30;

/// The program, and the trace that it plays where the directory of data is named.
const PROGRAM: &str = "stepwell";
const DATA_VARIABLE: &str = "STEPWELL_DATA";
const TRACE: &str = "mooncake_conversation_trace.jsonl";

/// The variable that names one seed to replay.
const SEED_VARIABLE: &str = "STEPWELL_SEED";

/// Runs `counted` in release with everything it prints; true if it passed.
pub(crate) fn run(workspace: &Workspace, counted: &Counted, count: u64) -> Result<bool, Error> {
    run_with(workspace, counted, (counted.variables, count))
}

/// Replays one seed of the simulations; true if it passed.
pub(crate) fn replay(workspace: &Workspace, seed: u64) -> Result<bool, Error> {
    run_with(workspace, &SIMULATION, (&[SEED_VARIABLE], seed))
}

/// Plays a trace through the tiers for so many minutes; true if no block came back changed and memory did not grow.
pub(crate) fn soak(workspace: &Workspace, minutes: u64) -> Result<bool, Error> {
    let shell = Shell::new(&workspace.root, "soak", false)?;
    let trace = std::env::var_os(DATA_VARIABLE).map(|data| Path::new(&data).join(TRACE));
    let trace = trace.filter(|trace| trace.is_file());
    if trace.is_none() {
        println!("{DATA_VARIABLE} names no directory with {TRACE}: a made trace is played");
    }
    let finished = Invocation::cargo()
        .args(["run", "--release", "-p", PROGRAM, "--", "kv", "soak"])
        .args(["--minutes", &minutes.to_string()])
        .args(
            trace
                .iter()
                .flat_map(|path| [OsStr::new("--trace"), path.as_os_str()]),
        )
        .echo(Echo::Everything)
        .run(&shell)?;
    Ok(finished.success)
}

fn run_with(
    workspace: &Workspace,
    counted: &Counted,
    (variables, value): (&[&str], u64),
) -> Result<bool, Error> {
    let absent = || Error::Absent {
        what: format!(
            "a test `*{}` of {:?}",
            counted.test_suffix, counted.packages
        ),
        hint: "it has not been written yet".to_owned(),
    };
    let packages: Vec<&Package> = counted
        .packages
        .iter()
        .map(|name| workspace.package(name).ok_or_else(absent))
        .collect::<Result<_, _>>()?;
    let tests: Vec<&str> = packages
        .iter()
        .flat_map(|package| &package.targets)
        .filter(|target| target.kind == TargetKind::Test)
        .map(|target| target.name.as_str())
        .filter(|name| name.ends_with(counted.test_suffix))
        .collect();
    if tests.is_empty() {
        return Err(absent());
    }
    let shell = Shell::new(&workspace.root, counted.name, false)?;
    let started = Instant::now();
    let mut invocation = Invocation::cargo();
    for variable in variables {
        invocation = invocation.env(variable, value.to_string());
    }
    let finished = invocation
        .args(["test", "--release", "--no-fail-fast"])
        .args(counted.packages.iter().flat_map(|name| ["-p", name]))
        .args(tests.iter().flat_map(|test| ["--test", test]))
        .args(feature_sets::arguments(packages, feature_sets::run))
        .args(["--", "--nocapture"])
        .echo(Echo::Everything)
        .run(&shell)?;
    println!(
        "\n{} ({}): {} with {}={value} in {:.1} s; full output in {}",
        counted.name,
        tests.join(", "),
        if finished.success {
            "passed".to_owned()
        } else {
            finished.ending()
        },
        variables.join("="),
        started.elapsed().as_secs_f64(),
        shell.log_path.display()
    );
    Ok(finished.success)
}
