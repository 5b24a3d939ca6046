//! `cargo xtask mutants`: removes one safeguard at a time and demands that the suite notices.

mod mark;
mod tree;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use mark::Mark;

use crate::command::{Echo, Finished, Invocation, Shell};
use crate::error::Error;
use crate::feature_sets;
use crate::report::{Context, Outcome};
use crate::tracked;
use crate::workspace::{TargetKind, Workspace};

/// Tests that must miss a safeguard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Suite {
    package: &'static str,
    /// A test program, or the unit tests of the library.
    test: Option<&'static str>,
}

const fn of_test(package: &'static str, test: &'static str) -> Suite {
    Suite {
        package,
        test: Some(test),
    }
}

/// What the names of safeguards begin with, and the suite that must miss them; the first that fits counts.
const SUITES: [(&str, Suite); 12] = [
    ("wal-", of_test("tier-nvme", "wal_simulation")),
    ("slab-", of_test("tier-nvme", "slab_simulation")),
    ("weights-hdf5-", of_test("weightstore", "hdf5_simulation")),
    (
        "weights-no-base-check",
        of_test("weightstore", "store_simulation"),
    ),
    (
        "weights-no-content-wait",
        of_test("weightstore", "store_simulation"),
    ),
    ("weights-no-content-first", UNIT_TESTS_OF_WEIGHTS),
    ("weights-no-length-check", UNIT_TESTS_OF_WEIGHTS),
    ("weights-", of_test("weightstore", "native")),
    ("kv-pool-", of_test("blockmgr", "pool_model")),
    ("kv-threads-", of_test("blockmgr", "movement_threads")),
    ("kv-", of_test("blockmgr", "movement_simulation")),
    ("", of_test("tier-nvme", "crash_simulation")),
];

const UNIT_TESTS_OF_WEIGHTS: Suite = Suite {
    package: "weightstore",
    test: None,
};

/// The safeguards that must be marked; others may be.
const REQUIRED: [&str; 41] = [
    "no-fdatasync",
    "no-dirsync",
    "no-payload-check",
    "no-header-check",
    "no-sequence-order",
    "wal-no-fdatasync",
    "wal-no-dirsync",
    "wal-no-record-check",
    "wal-no-group-header-check",
    "wal-no-sequence-order",
    "slab-no-fdatasync",
    "slab-no-dirsync",
    "slab-no-payload-check",
    "slab-no-header-check",
    "slab-no-sequence-order",
    "weights-no-identity-check",
    "weights-no-leaf-check",
    "weights-no-range-check",
    "weights-no-manifest-check",
    "weights-no-content-first",
    "weights-no-content-wait",
    "weights-no-reservation",
    "weights-no-reservation-first",
    "weights-no-gc-fence",
    "weights-no-base-check",
    "weights-no-chain-bound",
    "weights-no-depth-check",
    "weights-no-length-check",
    "weights-hdf5-no-fdatasync",
    "weights-hdf5-no-dirsync",
    "weights-hdf5-no-foreign-check",
    "kv-no-payload-check",
    "kv-no-identity-check",
    "kv-no-salt-check",
    "kv-no-layout-check",
    "kv-no-durable-check",
    "kv-no-fence",
    "kv-threads-no-pin-check",
    "kv-pool-no-pin-check",
    "kv-pool-no-all-or-nothing",
    "kv-pool-no-give-back",
];

/// The ones that CI removes; `cargo xtask mutants` removes all that are marked.
const QUICK: [&str; 5] = [
    "no-fdatasync",
    "no-dirsync",
    "no-payload-check",
    "no-header-check",
    "no-sequence-order",
];

/// How the line of a test that failed ends.
const TEST_FAILED: &str = "... FAILED";

/// What cargo says of a test program that was ended by itself: one that asked for a terabyte, for example.
const TEST_ABORTED: &str = "signal: 6, SIGABRT";

/// Enough seeds that each missing safeguard is met.
pub(crate) const SEEDS_DEFAULT: u64 = 300;

/// Seeds of the unchanged copy: the tests have run the full count.
const SEEDS_UNMUTATED: u64 = 20;

/// The row of CI.
pub(crate) fn run_quick(context: &Context<'_>) -> Result<Outcome, Error> {
    run(context, SEEDS_DEFAULT, |name| QUICK.contains(&name))
}

/// The task of its own, on the safeguards whose names begin so.
pub(crate) fn run_with(workspace: &Workspace, seeds: u64, prefix: &str) -> Result<bool, Error> {
    let shell = Shell::new(&workspace.root, "mutants", false)?;
    let context = Context { workspace, shell };
    let outcome = run(&context, seeds, |name| name.starts_with(prefix))?;
    println!("\nmutants: {outcome}");
    Ok(!matches!(outcome, Outcome::Failed(_)))
}

fn run(
    context: &Context<'_>,
    seeds: u64,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Outcome, Error> {
    let marks = marks(context)?;
    if marks.is_empty() {
        return Ok(Outcome::Skipped("no marked mutants".to_owned()));
    }
    if let Some((_, suite)) = SUITES.iter().find(|(_, suite)| !suite.exists(context)) {
        return Ok(Outcome::Failed(format!("there are no tests `{suite}`")));
    }
    let missing = mark::missing(&marks, &REQUIRED);
    if !missing.is_empty() {
        return Ok(Outcome::Failed(missing.join("; ")));
    }

    let root = context.shell.root.join("target/mutants/tree");
    tree::copy(&context.shell.root, &root)?;
    let mut names = mark::names(&marks);
    let marked = names.len();
    names.retain(|name| is_wanted(name));
    let suites: BTreeSet<Suite> = names.iter().map(|name| suite_of(name)).collect();
    if let Some(failure) = check_unmutated(context, &root, &suites, seeds.min(SEEDS_UNMUTATED))? {
        return Ok(Outcome::Failed(failure));
    }
    let mut failures = Vec::new();
    for name in &names {
        failures.extend(check_mutant(context, &root, name, &marks, seeds)?);
    }
    Ok(Outcome::unless(
        &failures,
        format!("{} removed safeguards of {marked} noticed", names.len()),
    ))
}

impl Suite {
    fn exists(self, context: &Context<'_>) -> bool {
        let package = context.workspace.package(self.package);
        package.is_some_and(|package| match self.test {
            Some(test) => package.has_target(TargetKind::Test, Some(test)),
            None => true,
        })
    }
}

impl std::fmt::Display for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.test {
            Some(test) => write!(f, "{test} of {}", self.package),
            None => write!(f, "unit tests of {}", self.package),
        }
    }
}

/// All marks in the sources of the packages that have suites.
fn marks(context: &Context<'_>) -> Result<Vec<Mark>, Error> {
    let packages: BTreeSet<&str> = SUITES.iter().map(|(_, suite)| suite.package).collect();
    let packages = packages
        .into_iter()
        .filter_map(|package| context.workspace.package(package));
    let sources: Vec<PathBuf> = packages
        .map(|package| package.directory.join("src"))
        .collect();
    let mut marks = Vec::new();
    for file in tracked::files(&context.shell.root)? {
        if sources.iter().any(|sources| file.starts_with(sources))
            && let Some(text) = tracked::text(&context.shell.root, &file)?
        {
            marks.extend(mark::find(&file, &text));
        }
    }
    Ok(marks)
}

/// A red suite proves nothing unless the suite is green without the mutation.
fn check_unmutated(
    context: &Context<'_>,
    root: &Path,
    suites: &BTreeSet<Suite>,
    seeds: u64,
) -> Result<Option<String>, Error> {
    println!("    unchanged:");
    for suite in suites {
        let built = test(context, root, *suite, seeds, true)?;
        if !built.success {
            return Ok(Some("the unchanged copy does not compile".to_owned()));
        }
        let finished = test(context, root, *suite, seeds, false)?;
        if !finished.success {
            return Ok(Some(format!("{suite}: red without any mutation")));
        }
    }
    Ok(None)
}

/// Removes one safeguard, runs the suite, puts it back; a failure in words unless it was red.
fn check_mutant(
    context: &Context<'_>,
    root: &Path,
    name: &str,
    marks: &[Mark],
    seeds: u64,
) -> Result<Option<String>, Error> {
    println!("    {name}:");
    let mut originals: Vec<(PathBuf, String)> = Vec::new();
    for mark in marks.iter().filter(|mark| mark.name == name) {
        let path = root.join(&mark.file);
        let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let mutated = mark.remove_from(&text);
        std::fs::write(&path, mutated).map_err(Error::file("write", &path))?;
        if !originals.iter().any(|(known, _)| *known == path) {
            originals.push((path, text));
        }
    }
    let verdict = judge(context, root, suite_of(name), seeds);
    for (path, text) in originals {
        std::fs::write(&path, text).map_err(Error::file("write", &path))?;
    }
    Ok(verdict?.map(|why| format!("{name}: {why}")))
}

/// The tests that must miss the safeguard `name`.
fn suite_of(name: &str) -> Suite {
    SUITES
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix))
        .map_or(of_test("tier-nvme", "crash_simulation"), |(_, suite)| {
            *suite
        })
}

fn judge(
    context: &Context<'_>,
    root: &Path,
    suite: Suite,
    seeds: u64,
) -> Result<Option<String>, Error> {
    let built = test(context, root, suite, seeds, true)?;
    if !built.success {
        let why = "does not compile; mark a whole one-line statement or an `if … {`";
        return Ok(Some(why.to_owned()));
    }
    let finished = test(context, root, suite, seeds, false)?;
    if finished.success {
        return Ok(Some(format!("the suite does not notice in {seeds} seeds")));
    }
    if !finished.mentions(TEST_FAILED) && !finished.mentions(TEST_ABORTED) {
        return Ok(Some(format!(
            "no test failed, but the run ended with {}",
            finished.ending()
        )));
    }
    println!("      noticed");
    Ok(None)
}

fn test(
    context: &Context<'_>,
    root: &Path,
    suite: Suite,
    seeds: u64,
    build_only: bool,
) -> Result<Finished, Error> {
    let features = context
        .workspace
        .package(suite.package)
        .map(|package| feature_sets::arguments([package], feature_sets::run))
        .unwrap_or_default();
    let tests = match suite.test {
        Some(test) => vec!["--test", test],
        None => vec!["--lib"],
    };
    Invocation::cargo()
        .args(["test", "-p", suite.package])
        .args(tests)
        .args(features)
        .args(if build_only { &["--no-run"][..] } else { &[] })
        .env(
            "CARGO_TARGET_DIR",
            context.shell.root.join("target/mutants/build"),
        )
        .env("STEPWELL_SEEDS", seeds.to_string())
        .env("STEPWELL_MODEL_SEEDS", seeds.to_string())
        .until(TEST_FAILED)
        .directory(root)
        .echo(Echo::Nothing)
        .run(&context.shell)
}
