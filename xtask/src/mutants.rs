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

/// The package whose safeguards are marked.
const PACKAGE: &str = "tier-nvme";

/// What the names of safeguards begin with, and the test that must miss them; the first that fits counts.
const TESTS: [(&str, &str); 3] = [
    ("wal-", "wal_simulation"),
    ("slab-", "slab_simulation"),
    ("", "crash_simulation"),
];

/// The safeguards that must be marked; others may be.
const REQUIRED: [&str; 15] = [
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

/// Enough seeds that each missing safeguard is met.
pub(crate) const SEEDS_DEFAULT: u64 = 300;

/// Seeds of the unchanged copy: the tests have run the full count.
const SEEDS_UNMUTATED: u64 = 20;

/// The row of CI.
pub(crate) fn run_quick(context: &Context<'_>) -> Result<Outcome, Error> {
    run(context, SEEDS_DEFAULT, |name| QUICK.contains(&name))
}

/// The task of its own.
pub(crate) fn run_with(workspace: &Workspace, seeds: u64) -> Result<bool, Error> {
    let shell = Shell::new(&workspace.root, "mutants", false)?;
    let outcome = run(&Context { workspace, shell }, seeds, |_| true)?;
    println!("\nmutants: {outcome}");
    Ok(!matches!(outcome, Outcome::Failed(_)))
}

fn run(
    context: &Context<'_>,
    seeds: u64,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Outcome, Error> {
    let absent = TESTS.iter().find(|(_, test)| {
        let package = context.workspace.package(PACKAGE);
        package.is_none_or(|package| !package.has_target(TargetKind::Test, Some(test)))
    });
    let marks = marks(context)?;
    if marks.is_empty() {
        return Ok(Outcome::Skipped("no marked mutants".to_owned()));
    }
    if let Some((_, test)) = absent {
        return Ok(Outcome::Failed(format!(
            "{PACKAGE} has marks but no test `{test}`"
        )));
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
    let targets: BTreeSet<&str> = names.iter().map(|name| test_of(name)).collect();
    if let Some(failure) = check_unmutated(context, &root, &targets, seeds.min(SEEDS_UNMUTATED))? {
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

/// All marks in the sources of the package.
fn marks(context: &Context<'_>) -> Result<Vec<Mark>, Error> {
    let Some(package) = context.workspace.package(PACKAGE) else {
        return Ok(Vec::new());
    };
    let sources = package.directory.join("src");
    let mut marks = Vec::new();
    for file in tracked::files(&context.shell.root)? {
        if file.starts_with(&sources)
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
    targets: &BTreeSet<&str>,
    seeds: u64,
) -> Result<Option<String>, Error> {
    println!("    unchanged:");
    for target in targets {
        let built = test(context, root, target, seeds, true)?;
        if !built.success {
            return Ok(Some("the unchanged copy does not compile".to_owned()));
        }
        let finished = test(context, root, target, seeds, false)?;
        if !finished.success {
            return Ok(Some(format!("{target} is red without any mutation")));
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
    let verdict = judge(context, root, test_of(name), seeds);
    for (path, text) in originals {
        std::fs::write(&path, text).map_err(Error::file("write", &path))?;
    }
    Ok(verdict?.map(|why| format!("{name}: {why}")))
}

/// The test that must miss the safeguard `name`.
fn test_of(name: &str) -> &'static str {
    TESTS
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix))
        .map_or("crash_simulation", |(_, test)| test)
}

fn judge(
    context: &Context<'_>,
    root: &Path,
    target: &str,
    seeds: u64,
) -> Result<Option<String>, Error> {
    let built = test(context, root, target, seeds, true)?;
    if !built.success {
        let why = "does not compile; mark a whole one-line statement or an `if … {`";
        return Ok(Some(why.to_owned()));
    }
    let finished = test(context, root, target, seeds, false)?;
    if finished.success {
        return Ok(Some(format!("the suite does not notice in {seeds} seeds")));
    }
    if !finished.mentions(TEST_FAILED) {
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
    target: &str,
    seeds: u64,
    build_only: bool,
) -> Result<Finished, Error> {
    let features = context
        .workspace
        .package(PACKAGE)
        .map(|package| feature_sets::arguments([package], feature_sets::run))
        .unwrap_or_default();
    Invocation::cargo()
        .args(["test", "-p", PACKAGE, "--test", target])
        .args(features)
        .args(if build_only { &["--no-run"][..] } else { &[] })
        .env(
            "CARGO_TARGET_DIR",
            context.shell.root.join("target/mutants/build"),
        )
        .env("STEPWELL_SEEDS", seeds.to_string())
        .until(TEST_FAILED)
        .directory(root)
        .echo(Echo::Nothing)
        .run(&context.shell)
}
