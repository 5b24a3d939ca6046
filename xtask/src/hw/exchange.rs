//! Rows in which files are exchanged with another program.

use std::path::Path;
use std::time::Instant;

use super::environment::Environment;
use super::matrix::{Cell, Matrix};
use crate::command::{Invocation, Shell};
use crate::error::Error;
use crate::feature_sets;
use crate::test_counts::Counts;
use crate::workspace::{Package, Workspace};

/// The crate that exchanges them.
const EXCHANGING: &str = "weightstore";

/// One such row.
pub(super) struct Exchange {
    pub(super) name: &'static str,
    pub(super) environment: Environment,
    pub(super) installs: Installs,
    pub(super) run: fn(&Shell, &Package, &Path) -> Result<Exchanged, Error>,
}

/// When the other program is installed for the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Installs {
    Always,
    /// By the row's own task; the whole matrix takes what is there.
    WhenAsked,
}

/// What an exchange showed.
#[derive(Debug)]
pub(super) struct Exchanged {
    pub(super) success: bool,
    pub(super) counts: Counts,
}

/// The task of its own; true if nothing failed or it was skipped.
pub(super) fn run_alone(
    workspace: &Workspace,
    task: &str,
    exchange: &Exchange,
) -> Result<bool, Error> {
    let shell = Shell::new(&workspace.root, task, false)?;
    let crates: Vec<&Package> = workspace.crates().collect();
    let mut matrix = Matrix::new(vec![EXCHANGING.to_owned()]);
    let exchanging = crates.iter().filter(|package| package.name == EXCHANGING);
    let exchanging: Vec<&Package> = exchanging.copied().collect();
    add_row(&shell, &exchanging, &mut matrix, (exchange, true))?;
    println!("\n{matrix}");
    Ok(!matrix.failed())
}

/// Adds the row, `asked` for by itself or not.
pub(super) fn add_row(
    shell: &Shell,
    crates: &[&Package],
    matrix: &mut Matrix,
    (exchange, asked): (&Exchange, bool),
) -> Result<(), Error> {
    let name = exchange.name;
    println!("\n==> {name}");
    let environment = &exchange.environment;
    let python = match asked || exchange.installs == Installs::Always {
        true => environment.made(shell)?,
        false => environment.present(shell)?,
    };
    let python = match python {
        Ok(python) => python,
        Err(why) => {
            println!("    skipped: {why}");
            matrix.skip(name, why);
            return Ok(());
        }
    };
    let mut cells = Vec::new();
    for package in crates {
        if package.name != EXCHANGING {
            cells.push(Cell::Unconcerned);
            continue;
        }
        let started = Instant::now();
        let exchanged = (exchange.run)(shell, package, &python)?;
        cells.push(Cell::Tested {
            success: exchanged.success && exchanged.counts.passed > 0,
            counts: exchanged.counts,
            elapsed: started.elapsed(),
        });
    }
    matrix.push(name, cells);
    Ok(())
}

/// Runs a test program of the exchange, which finds the Python under a variable.
pub(super) fn tested(
    shell: &Shell,
    package: &Package,
    test: &str,
    (variable, python): (&str, &Path),
) -> Result<Exchanged, Error> {
    let tested = Invocation::cargo()
        .args(["test", "--no-fail-fast", "-p", &package.name])
        .args(["--test", test])
        .args(feature_sets::arguments([package], feature_sets::run))
        .env(variable, python)
        .run(shell)?;
    Ok(Exchanged {
        success: tested.success,
        counts: Counts::read(&tested.lines),
    })
}
