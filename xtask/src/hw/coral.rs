//! The exchange of files with Coral, where it can be installed.

use std::path::Path;
use std::time::Duration;

use super::environment::Environment;
use super::exchange::{Exchange, Exchanged, Installs, tested};
use crate::command::{Echo, Invocation, Shell};
use crate::error::Error;
use crate::feature_sets;
use crate::workspace::Package;

pub(super) const CORAL: Exchange = Exchange {
    name: "Coral",
    environment: Environment {
        variable: "STEPWELL_CORAL_PYTHON",
        directory: "target/coral",
        // The versions of the others are Coral's choice.
        packages: &["coral-ml==1.0.0", "h5py", "numpy"],
        import: "import coral.storage, h5py",
        install_limit: Duration::from_secs(300),
    },
    installs: Installs::Always,
    run,
};

/// Runs the tests of the exchange, then stores families of checkpoints with both and prints what they take.
fn run(shell: &Shell, package: &Package, python: &Path) -> Result<Exchanged, Error> {
    let variable = CORAL.environment.variable;
    let mut exchanged = tested(shell, package, "coral", (variable, python))?;
    let measured = Invocation::cargo()
        .args(["run", "--quiet", "-p", &package.name])
        .args(["--example", "checkpoint_family"])
        .args(feature_sets::arguments([package], feature_sets::run))
        .env(variable, python)
        .echo(Echo::Everything)
        .run(shell)?;
    exchanged.success &= measured.success;
    Ok(exchanged)
}
