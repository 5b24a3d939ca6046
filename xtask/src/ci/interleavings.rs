//! Tests under the scheduler that tries interleavings.

use crate::command::Invocation;
use crate::error::Error;
use crate::report::{Context, Outcome};
use crate::test_counts::Counts;
use crate::workspace::TargetKind;

/// The package whose locks and atomics are the scheduler's under its cfg, and the test.
const PACKAGE: &str = "blockmgr";
const TEST: &str = "pool_interleavings";

/// Interleavings of each kind; 1000 without the environment.
const INTERLEAVINGS: &str = "300";

/// The tests take seconds, and optimising what they are built of a minute.
const UNOPTIMISED: [&str; 2] = [
    "profile.dev.package.'*'.opt-level=0",
    "profile.dev.package.tier-nvme.opt-level=0",
];

/// Builds the package on the scheduler, in a target directory of its own, and tries interleavings.
pub(crate) fn run(context: &Context<'_>) -> Result<Outcome, Error> {
    let package = context.workspace.package(PACKAGE);
    if !package.is_some_and(|package| package.has_target(TargetKind::Test, Some(TEST))) {
        return Ok(Outcome::Failed(format!("{PACKAGE} has no test `{TEST}`")));
    }
    let finished = Invocation::cargo()
        .args(["test", "-p", PACKAGE, "--test", TEST])
        .args(UNOPTIMISED.iter().flat_map(|setting| ["--config", setting]))
        .env("RUSTFLAGS", "--cfg shuttle")
        .env(
            "CARGO_TARGET_DIR",
            context.shell.root.join("target/shuttle"),
        )
        .env_default("STEPWELL_SEEDS", INTERLEAVINGS)
        .run(&context.shell)?;
    let counts = Counts::read(&finished.lines);
    Ok(if !finished.success {
        Outcome::Failed(format!("{}; {counts}", finished.ending()))
    } else if counts.passed == 0 {
        Outcome::Failed(format!(
            "no test ran: is `--cfg shuttle` still what {TEST} wants?"
        ))
    } else {
        Outcome::Passed(counts.to_string())
    })
}
