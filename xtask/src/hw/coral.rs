//! The exchange of files with Coral, where it can be installed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::{Echo, Invocation, Shell};
use crate::error::Error;
use crate::feature_sets;
use crate::test_counts::Counts;
use crate::workspace::Package;

/// What is installed. The versions of the others are Coral's choice.
const PACKAGES: [&str; 3] = ["coral-ml==1.0.0", "h5py", "numpy"];

/// Where it is installed, below the build directory.
const ENVIRONMENT: &str = "target/coral";

/// Longest installation.
const INSTALL_LIMIT: Duration = Duration::from_secs(300);

/// Names the Python that has Coral to the tests.
const VARIABLE: &str = "STEPWELL_CORAL_PYTHON";

/// What the exchange showed.
#[derive(Debug)]
pub(super) struct Exchanged {
    pub(super) success: bool,
    pub(super) counts: Counts,
}

/// A Python that has Coral: the one that is named, or one of its own that is made and kept; or why there is none.
pub(super) fn python(shell: &Shell) -> Result<Result<PathBuf, String>, Error> {
    if let Some(named) = std::env::var_os(VARIABLE) {
        return Ok(Ok(PathBuf::from(named)));
    }
    let directory = shell.root.join(ENVIRONMENT);
    let python = directory.join("bin/python");
    if has_coral(shell, &python)? {
        return Ok(Ok(python));
    }
    let made = quiet("python3")
        .args(["-m", "venv", "--clear"])
        .args([&directory])
        .run(shell);
    // A program that is not there can't be told from one that fails, and need not be.
    if !made.is_ok_and(|made| made.success) {
        return Ok(Err(
            "python3 with its venv module is not installed".to_owned()
        ));
    }
    let installed = quiet(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args(PACKAGES)
        .run(shell)?;
    if !installed.success {
        let reason = installed.lines.last().cloned().unwrap_or_default();
        return Ok(Err(format!("{} can't be installed: {reason}", PACKAGES[0])));
    }
    match has_coral(shell, &python)? {
        true => Ok(Ok(python)),
        false => Ok(Err("what was installed can't be loaded".to_owned())),
    }
}

fn has_coral(shell: &Shell, python: &Path) -> Result<bool, Error> {
    if !python.is_file() {
        return Ok(false);
    }
    let import = "import coral.storage, h5py";
    let finished = quiet(python).args(["-c", import]).run(shell)?;
    Ok(finished.success)
}

fn quiet(program: impl AsRef<std::ffi::OsStr>) -> Invocation {
    Invocation::new(program)
        .limit(INSTALL_LIMIT)
        .echo(Echo::Nothing)
}

/// Runs the tests of the exchange, then stores families of checkpoints with both and prints what they take.
pub(super) fn run(shell: &Shell, package: &Package, python: &Path) -> Result<Exchanged, Error> {
    let features = || feature_sets::arguments([package], feature_sets::run);
    let tested = Invocation::cargo()
        .args([
            "test",
            "--no-fail-fast",
            "-p",
            &package.name,
            "--test",
            "coral",
        ])
        .args(features())
        .env(VARIABLE, python)
        .run(shell)?;
    let measured = Invocation::cargo()
        .args(["run", "--quiet", "-p", &package.name])
        .args(["--example", "checkpoint_family"])
        .args(features())
        .env(VARIABLE, python)
        .echo(Echo::Everything)
        .run(shell)?;
    Ok(Exchanged {
        success: tested.success && measured.success,
        counts: Counts::read(&tested.lines),
    })
}
