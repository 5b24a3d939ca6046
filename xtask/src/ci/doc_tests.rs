//! The examples in the documentation.

use crate::command::Invocation;
use crate::error::Error;
use crate::feature_sets;
use crate::report::{Context, Outcome};
use crate::test_counts::Counts;

/// Runs the documentation's examples, the READMEs' included.
pub(crate) fn run(context: &Context<'_>) -> Result<Outcome, Error> {
    let finished = Invocation::cargo()
        .args(["test", "--doc", "--no-fail-fast"])
        .args(feature_sets::workspace_run(context.workspace))
        .run(&context.shell)?;
    let counts = Counts::read(&finished.lines);
    Ok(if finished.success {
        Outcome::Passed(counts.to_string())
    } else {
        Outcome::Failed(format!("{}; {counts}", finished.ending()))
    })
}
