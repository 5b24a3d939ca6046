//! Python environments of the rows that exchange files with other programs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::{Echo, Invocation, Shell};
use crate::error::Error;

/// Longest time to make an environment, and to see whether a package loads.
const MAKE_LIMIT: Duration = Duration::from_secs(300);

/// A Python with packages.
#[derive(Debug)]
pub(super) struct Environment {
    /// Names a Python that has the packages, instead of one that is made.
    pub(super) variable: &'static str,
    /// Where one is made, below the build directory.
    pub(super) directory: &'static str,
    pub(super) packages: &'static [&'static str],
    /// What runs where they are installed.
    pub(super) import: &'static str,
    /// Longest installation.
    pub(super) install_limit: Duration,
}

impl Environment {
    /// The Python that is named, that was made, or that the machine has; or why there is none.
    pub(super) fn present(&self, shell: &Shell) -> Result<Result<PathBuf, String>, Error> {
        if let Some(named) = std::env::var_os(self.variable) {
            return Ok(Ok(PathBuf::from(named)));
        }
        let made = shell.root.join(self.directory).join("bin/python");
        if made.is_file() && self.loads(shell, &made)? {
            return Ok(Ok(made));
        }
        let machines = PathBuf::from("python3");
        // A program that is not there can't be told from one that fails, and need not be.
        match self.loads(shell, &machines) {
            Ok(true) => Ok(Ok(machines)),
            _ => Ok(Err(format!("no Python has {}", self.packages.join(", ")))),
        }
    }

    /// As [`present`](Self::present), and one is made if there is none.
    pub(super) fn made(&self, shell: &Shell) -> Result<Result<PathBuf, String>, Error> {
        if let Ok(python) = self.present(shell)? {
            return Ok(Ok(python));
        }
        let directory = shell.root.join(self.directory);
        let made = quiet("python3")
            .limit(MAKE_LIMIT)
            .args(["-m", "venv", "--clear"])
            .args([&directory])
            .run(shell);
        if !made.is_ok_and(|made| made.success) {
            return Ok(Err(
                "python3 with its venv module is not installed".to_owned()
            ));
        }
        let python = directory.join("bin/python");
        let installed = quiet(&python)
            .limit(self.install_limit)
            .args(["-m", "pip", "install", "--quiet", "--no-cache-dir"])
            .args(["--disable-pip-version-check"])
            .args(self.packages)
            .run(shell)?;
        if !installed.success {
            let reason = installed.lines.last().cloned().unwrap_or_default();
            let packages = self.packages.join(", ");
            return Ok(Err(format!("{packages} can't be installed: {reason}")));
        }
        match self.loads(shell, &python)? {
            true => Ok(Ok(python)),
            false => Ok(Err("what was installed can't be loaded".to_owned())),
        }
    }

    fn loads(&self, shell: &Shell, python: &Path) -> Result<bool, Error> {
        let finished = quiet(python)
            .limit(MAKE_LIMIT)
            .args(["-c", self.import])
            .run(shell)?;
        Ok(finished.success)
    }
}

fn quiet(program: impl AsRef<std::ffi::OsStr>) -> Invocation {
    Invocation::new(program).echo(Echo::Nothing)
}
