//! The reference documentation.

use crate::command::Invocation;
use crate::error::Error;
use crate::feature_sets;
use crate::report::{Context, Outcome};

/// Builds the documentation of all members with warnings denied.
pub(crate) fn run(context: &Context<'_>) -> Result<Outcome, Error> {
    let finished = Invocation::cargo()
        .args(["doc", "--no-deps"])
        .args(feature_sets::workspace_checked(context.workspace))
        .env("RUSTDOCFLAGS", "-D warnings")
        .run(&context.shell)?;
    Ok(Outcome::of(&finished))
}
