//! Lints.

use crate::command::Invocation;
use crate::error::Error;
use crate::feature_sets;
use crate::report::{Context, Outcome};

/// Runs clippy over all targets with warnings denied.
pub(crate) fn run(context: &Context<'_>) -> Result<Outcome, Error> {
    let finished = Invocation::cargo()
        .args(["clippy", "--all-targets"])
        .args(feature_sets::workspace_checked(context.workspace))
        .args(["--", "-D", "warnings"])
        .run(&context.shell)?;
    Ok(Outcome::of(&finished))
}
