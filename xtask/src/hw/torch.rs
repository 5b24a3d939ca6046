//! Imports of what torch writes, where it is installed.

use std::path::Path;
use std::time::Duration;

use super::environment::Environment;
use super::exchange::{Exchange, Exchanged, Installs, tested};
use crate::command::Shell;
use crate::error::Error;
use crate::workspace::Package;

pub(super) const TORCH: Exchange = Exchange {
    name: "PyTorch",
    environment: Environment {
        variable: "STEPWELL_TORCH_PYTHON",
        directory: "target/torch",
        packages: &["torch", "numpy"],
        import: "import torch, numpy",
        install_limit: Duration::from_secs(3600),
    },
    // It is gigabytes where the index that pip is told of has no build for the processor alone.
    installs: Installs::WhenAsked,
    run,
};

/// Runs the tests that import what it writes.
fn run(shell: &Shell, package: &Package, python: &Path) -> Result<Exchanged, Error> {
    tested(
        shell,
        package,
        "foreign",
        (TORCH.environment.variable, python),
    )
}
