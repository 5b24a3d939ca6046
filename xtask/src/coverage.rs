//! `cargo xtask coverage`: which lines the tests reach.

use crate::ci;
use crate::command::Invocation;
use crate::error::Error;
use crate::feature_sets;
use crate::report::{Context, Outcome};

/// Measures line coverage and leaves an lcov file in `target/`.
pub(crate) fn run(context: &Context<'_>) -> Result<Outcome, Error> {
    if !ci::installed::answers("cargo", &["llvm-cov", "--version"]) {
        return Ok(Outcome::Skipped(
            "cargo-llvm-cov is not installed".to_owned(),
        ));
    }
    let finished = Invocation::cargo()
        .args([
            "llvm-cov",
            "--lcov",
            "--output-path",
            "target/coverage.lcov",
        ])
        .args(feature_sets::workspace_run(context.workspace))
        .env_default("STEPWELL_SEEDS", "100")
        .env_default("STEPWELL_KILLS", "5")
        .run(&context.shell)?;
    Ok(Outcome::of(&finished))
}
