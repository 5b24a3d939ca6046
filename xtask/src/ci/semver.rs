//! Compatibility with the last release.

use std::process::Command;

use crate::ci::installed;
use crate::command::Invocation;
use crate::error::Error;
use crate::report::{Context, Outcome};

/// Compares the public interfaces with those at the newest release tag.
pub(crate) fn run(context: &Context<'_>) -> Result<Outcome, Error> {
    if !installed::answers("cargo", &["semver-checks", "--version"]) {
        return Ok(Outcome::Skipped(
            "cargo-semver-checks is not installed".to_owned(),
        ));
    }
    let Some(tag) = newest_release(context) else {
        return Ok(Outcome::Skipped(
            "there is no release tag to compare with".to_owned(),
        ));
    };
    let finished = Invocation::cargo()
        .args(["semver-checks", "--workspace", "--baseline-rev", &tag])
        .run(&context.shell)?;
    Ok(Outcome::of(&finished))
}

fn newest_release(context: &Context<'_>) -> Option<String> {
    let output = Command::new("git")
        .args(["describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"])
        .current_dir(&context.shell.root)
        .output()
        .ok()?;
    let tag = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !tag.is_empty()).then_some(tag)
}
