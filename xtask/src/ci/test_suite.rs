//! Unit and integration tests.

use crate::command::Invocation;
use crate::error::Error;
use crate::feature_sets;
use crate::report::{Context, Outcome};
use crate::test_counts::Counts;

/// Runs the tests of all members, with the counts of the long ones cut to what CI can afford.
pub(crate) fn run(context: &Context<'_>) -> Result<Outcome, Error> {
    let finished = Invocation::cargo()
        .args(["test", "--no-fail-fast", "--lib", "--bins", "--tests"])
        .args(feature_sets::workspace_run(context.workspace))
        .env_default("STEPWELL_SEEDS", "300")
        .env_default("STEPWELL_KILLS", "10")
        .run(&context.shell)?;
    let counts = Counts::read(&finished.lines);
    Ok(if finished.success {
        Outcome::Passed(counts.to_string())
    } else {
        Outcome::Failed(format!("{}; {counts}", finished.ending()))
    })
}
