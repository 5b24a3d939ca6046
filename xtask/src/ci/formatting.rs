//! Formatting.

use crate::command::Invocation;
use crate::error::Error;
use crate::report::{Context, Outcome};

/// Refuses any difference from rustfmt's output.
pub(crate) fn run(context: &Context<'_>) -> Result<Outcome, Error> {
    let finished = Invocation::cargo()
        .args(["fmt", "--all", "--check"])
        .run(&context.shell)?;
    Ok(match Outcome::of(&finished) {
        Outcome::Failed(ending) => Outcome::Failed(format!("{ending}; run `cargo fmt --all`")),
        other => other,
    })
}
