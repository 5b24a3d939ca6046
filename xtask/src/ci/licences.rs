//! Licences, sources and advisories of the dependencies.

use crate::ci::installed;
use crate::command::Invocation;
use crate::error::Error;
use crate::report::{Context, Outcome};

/// Checks licences and sources against the rules in `.config/deny.toml`.
pub(crate) fn run(context: &Context<'_>) -> Result<Outcome, Error> {
    if !installed::answers("cargo", &["deny", "--version"]) {
        return Ok(Outcome::Skipped("cargo-deny is not installed".to_owned()));
    }
    let finished = deny(&["licenses", "bans", "sources"]).run(&context.shell)?;
    Ok(Outcome::of(&finished))
}

/// Checks the lockfile against the advisory database, which needs the network.
pub(crate) fn run_advisories(context: &Context<'_>) -> Result<Outcome, Error> {
    let invocation = if installed::answers("cargo", &["deny", "--version"]) {
        deny(&["advisories"])
    } else if installed::answers("cargo", &["audit", "--version"]) {
        Invocation::cargo().args(["audit", "--deny", "warnings"])
    } else {
        let why = "neither cargo-deny nor cargo-audit is installed";
        return Ok(Outcome::Skipped(why.to_owned()));
    };
    Ok(Outcome::of(&invocation.run(&context.shell)?))
}

fn deny(checks: &[&str]) -> Invocation {
    Invocation::cargo()
        .args([
            "deny",
            "--all-features",
            "check",
            "--config",
            ".config/deny.toml",
        ])
        .args(checks)
}
