//! `cargo xtask hw`: the hardware test matrix.

mod coral;
mod environment;
mod exchange;
mod matrix;
mod probe;
mod replay;
mod torch;

use std::path::Path;
use std::time::Instant;

use coral::CORAL;
use matrix::{Cell, Matrix};
use probe::Availability;
use torch::TORCH;

use crate::command::{Invocation, Shell};
use crate::error::Error;
use crate::feature_sets;
use crate::test_counts::Counts;
use crate::workspace::{Package, TargetKind, Workspace};

/// A configuration in which the suites can run.
struct Configuration {
    name: &'static str,
    /// Selects the configuration in the tests' own factories.
    environment: &'static [(&'static str, &'static str)],
    /// The crates that behave differently in it.
    packages: Packages,
    available: fn(&Path) -> Availability,
}

/// Which crates a configuration concerns.
enum Packages {
    All,
    Named(&'static [&'static str]),
}

/// The crates that do file I/O.
const STORING: Packages = Packages::Named(&["tier-nvme", "weightstore"]);

/// No configuration of this name exists yet.
const fn later(name: &'static str) -> Configuration {
    Configuration {
        name,
        environment: &[],
        packages: Packages::Named(&[]),
        available: |_| Availability::missing("not built yet"),
    }
}

const CONFIGURATIONS: [Configuration; 11] = [
    Configuration {
        name: "CPU only",
        environment: &[],
        packages: Packages::All,
        available: |_| Availability::Present,
    },
    Configuration {
        name: "io_uring",
        environment: &[("STEPWELL_ENGINE", "uring")],
        packages: STORING,
        available: |_| probe::io_uring(),
    },
    Configuration {
        name: "thread-pool I/O",
        environment: &[("STEPWELL_ENGINE", "pool")],
        packages: STORING,
        available: |_| Availability::Present,
    },
    Configuration {
        name: "O_DIRECT",
        environment: &[("STEPWELL_DIRECT", "direct")],
        packages: STORING,
        available: probe::direct_io,
    },
    Configuration {
        name: "buffered",
        environment: &[("STEPWELL_DIRECT", "buffered")],
        packages: STORING,
        available: |_| Availability::Present,
    },
    later("fake CUDA driver"),
    later("CUDA device"),
    later("pinned"),
    later("S3 embedded"),
    later("S3 external endpoint"),
    later("NIXL"),
];

/// Runs every available configuration, prints the matrix and leaves it in `target/hw.json`; true
/// if nothing failed.
pub(crate) fn run(workspace: &Workspace) -> Result<bool, Error> {
    let shell = Shell::new(&workspace.root, "hw", false)?;
    let crates: Vec<&Package> = workspace.crates().collect();
    let mut matrix = Matrix::new(crates.iter().map(|package| package.name.clone()).collect());
    for configuration in &CONFIGURATIONS {
        println!("\n==> {}", configuration.name);
        // The tests put their files into the temporary directory, so that is what is probed.
        let missing = match (configuration.available)(&std::env::temp_dir()) {
            Availability::Present => None,
            Availability::Missing(why) => Some(why),
        };
        if let Some(why) = missing {
            println!("    skipped: {why}");
            matrix.skip(configuration.name, why);
            continue;
        }
        let mut cells = Vec::new();
        for package in &crates {
            cells.push(match concerns(configuration, package) {
                true => test(&shell, configuration, package)?,
                false => Cell::Unconcerned,
            });
        }
        matrix.push(configuration.name, cells);
    }
    replay_row(&shell, &crates, &mut matrix)?;
    for row in [&CORAL, &TORCH] {
        exchange::add_row(&shell, &crates, &mut matrix, (row, false))?;
    }
    println!("\n{matrix}");
    let path = workspace.root.join("target/hw.json");
    let text = format!("{:#}\n", matrix.to_json(&probe::machine()));
    std::fs::write(&path, text).map_err(Error::file("write", &path))?;
    println!("\nwritten to {}", path.display());
    Ok(!matrix.failed())
}

/// The name of the row that no suite stands behind.
const REPLAY: &str = "block-level replay";

/// The crate whose store is replayed.
const REPLAYED: &str = "tier-nvme";

/// `cargo xtask replay`: that row alone; true if nothing failed or it was skipped.
pub(crate) fn run_replay(workspace: &Workspace) -> Result<bool, Error> {
    let shell = Shell::new(&workspace.root, "replay", false)?;
    let crates: Vec<&Package> = workspace.crates().collect();
    let mut matrix = Matrix::new(vec![REPLAYED.to_owned()]);
    let replayed = crates.iter().filter(|package| package.name == REPLAYED);
    replay_row(&shell, &replayed.copied().collect::<Vec<_>>(), &mut matrix)?;
    println!("\n{matrix}");
    Ok(!matrix.failed())
}

/// `cargo xtask coral`: that row alone; true if nothing failed or it was skipped.
pub(crate) fn run_coral(workspace: &Workspace) -> Result<bool, Error> {
    exchange::run_alone(workspace, "coral", &CORAL)
}

/// `cargo xtask torch`: that row alone; true if nothing failed or it was skipped.
pub(crate) fn run_torch(workspace: &Workspace) -> Result<bool, Error> {
    exchange::run_alone(workspace, "torch", &TORCH)
}

fn replay_row(shell: &Shell, crates: &[&Package], matrix: &mut Matrix) -> Result<(), Error> {
    println!("\n==> {REPLAY}");
    if let Availability::Missing(why) = replay::available() {
        println!("    skipped: {why}");
        matrix.skip(REPLAY, why);
        return Ok(());
    }
    let started = Instant::now();
    let replayed = replay::run(shell)?;
    for failure in &replayed.failures {
        println!("    {failure}");
    }
    let cell = |package: &&Package| {
        if package.name == REPLAYED {
            Cell::Tested {
                success: replayed.failures.is_empty() && replayed.counts.passed > 0,
                counts: replayed.counts.clone(),
                elapsed: started.elapsed(),
            }
        } else {
            Cell::Unconcerned
        }
    };
    matrix.push(REPLAY, crates.iter().map(cell).collect());
    Ok(())
}

fn concerns(configuration: &Configuration, package: &Package) -> bool {
    match configuration.packages {
        Packages::All => true,
        Packages::Named(names) => names.contains(&package.name.as_str()),
    }
}

fn test(shell: &Shell, configuration: &Configuration, package: &Package) -> Result<Cell, Error> {
    let mut invocation = Invocation::cargo()
        .args([
            "test",
            "--no-fail-fast",
            "--bins",
            "--tests",
            "-p",
            &package.name,
        ])
        .args(
            package
                .has_target(TargetKind::Library, None)
                .then_some("--lib"),
        )
        .args(feature_sets::arguments([package], feature_sets::run))
        .env_default("STEPWELL_SEEDS", "100")
        .env_default("STEPWELL_KILLS", "5");
    for (name, value) in configuration.environment {
        invocation = invocation.env(name, value);
    }
    let started = Instant::now();
    let finished = invocation.run(shell)?;
    Ok(Cell::Tested {
        success: finished.success,
        counts: Counts::read(&finished.lines),
        elapsed: started.elapsed(),
    })
}
