//! Miri.

use crate::ci::installed;
use crate::command::Invocation;
use crate::error::Error;
use crate::feature_sets;
use crate::report::{Context, Outcome};
use crate::test_counts::Counts;

/// The crates whose library tests need no system call that Miri lacks.
const PACKAGES: [&str; 2] = ["core-alloc", "core-view"];

/// Interprets the library tests, with few cases of each property: Miri is hundreds of times slower.
pub(crate) fn run(context: &Context<'_>) -> Result<Outcome, Error> {
    if !installed::answers("rustup", &["run", "nightly", "cargo", "miri", "--version"]) {
        return Ok(Outcome::Skipped(
            "Miri is not installed for the nightly toolchain".to_owned(),
        ));
    }
    let packages: Vec<_> = PACKAGES
        .iter()
        .filter_map(|name| context.workspace.package(name))
        .collect();
    let finished = Invocation::nightly_cargo()
        .args(["miri", "test", "--lib"])
        .args(
            packages
                .iter()
                .flat_map(|package| ["-p", package.name.as_str()]),
        )
        .args(feature_sets::arguments(
            packages.iter().copied(),
            feature_sets::run,
        ))
        .env("CARGO_TARGET_DIR", context.shell.root.join("target/miri"))
        .env_default("MIRIFLAGS", "-Zmiri-disable-isolation")
        .env_default("PROPTEST_CASES", "2")
        .run(&context.shell)?;
    let counts = Counts::read(&finished.lines);
    Ok(if finished.success {
        Outcome::Passed(counts.to_string())
    } else {
        Outcome::Failed(format!("{}; {counts}", finished.ending()))
    })
}
