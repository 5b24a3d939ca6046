//! AddressSanitizer and ThreadSanitizer, each shown to catch a planted fault.

mod reports;
mod standard_library;

use std::process::Command;

use crate::ci::installed;
use crate::command::{Echo, Finished, Invocation};
use crate::error::Error;
use crate::feature_sets;
use crate::report::{Context, Outcome};
use crate::test_counts::Counts;

/// The crates whose unsafe code and shared state are worth it.
const PACKAGES: [&str; 3] = ["core-alloc", "core-view", "tier-nvme"];

/// Without unsafe code: only these tests, of its threads, are worth ThreadSanitizer's time.
const THREADS: FurtherTests = FurtherTests {
    package: "blockmgr",
    arguments: &["--test=pool_threads", "--test=movement_threads"],
    filters: &[],
    is_like_suites: true,
};

/// Its unsafe code is one kernel, which needs no feature.
const KERNEL: FurtherTests = FurtherTests {
    package: "weightstore",
    arguments: &["--no-default-features", "--lib"],
    filters: &["codec::"],
    is_like_suites: false,
};

/// The crate that holds the planted faults, and the test target.
const PLANTED: (&str, &str) = ("core-alloc", "planted");

/// Thousands of recoveries, whose code the other tests of the simulation run too.
const EXHAUSTIVE_TEST: &str = "the_power_may_fail_at_every_operation_and_in_every_recovery";

/// It measures memory, to which a sanitizer adds its own.
const MEMORY_TEST: &str = "everybody_at_once_stays_below_the_limit";

/// It waits for suites to notice that what they test hangs.
const PATIENT_TEST: &str = "every_planted_fault_of_operations_is_named";

/// Inlined code has not the names by which what a sanitizer can't know of the library is left out.
const UNOPTIMISED: &str = "profile.dev.package.tier-nvme.opt-level=0";

/// Some of the tests of a package.
#[derive(Clone, Copy)]
struct FurtherTests {
    package: &'static str,
    /// What is built, and how.
    arguments: &'static [&'static str],
    /// Of these modules; all if there are none.
    filters: &'static [&'static str],
    /// Whether the same packages and features as the suites' are named, so that what they share is not built again.
    is_like_suites: bool,
}

/// Why a sanitizer cannot run.
const NO_NIGHTLY: &str = "the nightly toolchain is not installed";

/// One sanitizer.
struct Sanitizer {
    name: &'static str,
    compiler_flags: String,
    /// The variable of the run-time options, and their value.
    options: (&'static str, String),
    /// Tests that the sanitizer has nothing to say of, or whose subject it changes.
    skipped_tests: &'static [&'static str],
    /// Tests that are run beside the suites.
    further_tests: Option<FurtherTests>,
    /// The ignored test that must not pass.
    planted_test: &'static str,
    /// What the report of the planted fault says.
    planted_report: &'static str,
}

/// Runs the suites and the planted use after free under AddressSanitizer.
pub(crate) fn address(context: &Context<'_>) -> Result<Outcome, Error> {
    run(
        context,
        &Sanitizer {
            name: "address",
            compiler_flags: "-Zsanitizer=address".to_owned(),
            options: (
                "ASAN_OPTIONS",
                "detect_stack_use_after_return=1:detect_leaks=1".to_owned(),
            ),
            skipped_tests: &[
                EXHAUSTIVE_TEST,
                MEMORY_TEST,
                PATIENT_TEST,
                // What a broken ring was given is never freed: the kernel may still write to it.
                "a_ring_that_breaks_fails_what_needs_it_and_loses_nothing",
            ],
            further_tests: Some(KERNEL),
            planted_test: "planted_use_after_free",
            planted_report: "AddressSanitizer: heap-use-after-free",
        },
    )
}

/// Runs the suites and the planted data race under ThreadSanitizer.
pub(crate) fn thread(context: &Context<'_>) -> Result<Outcome, Error> {
    if !installed::nightly() {
        return Ok(Outcome::Skipped(NO_NIGHTLY.to_owned()));
    }
    // The shipped standard library is not instrumented, which the compiler must be told, and the
    // sanitizer must be told what that library guarantees.
    let edges = standard_library::edges(&context.shell)?;
    let suppressions = context
        .shell
        .root
        .join("xtask/src/ci/sanitizers/suppressions.txt");
    run(
        context,
        &Sanitizer {
            name: "thread",
            compiler_flags: format!(
                "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer {edges}"
            ),
            options: (
                "TSAN_OPTIONS",
                format!("halt_on_error=0:suppressions={}", suppressions.display()),
            ),
            skipped_tests: &[
                MEMORY_TEST,
                PATIENT_TEST,
                "large_zeroed_storage_takes_no_memory_before_use",
                // Its supervisor reads the memory of a thread that the kernel has stopped, which is not seen.
                "a_kernel_that_knows_no_flags_makes_a_plain_ring",
                // Its children share the library's lock of the standard output.
                "acknowledged_blocks_survive_kills",
                // One thread each.
                EXHAUSTIVE_TEST,
                "no_acknowledged_",
                "each_step_may_fail_for_want_of_space_or_by_the_device",
                "damaged_bytes_are_an_error_or_the_truth",
                "room_for_a_checkpoint_has_one_name_after_a_power_loss",
                "all_ways_agree_on_a_simulated_volume",
                "at_each_step_of_a_compaction_one_checkpoint_is_enough",
                "a_move_that_comes_late_changes_nothing",
            ],
            further_tests: Some(THREADS),
            planted_test: "planted_data_race",
            planted_report: "ThreadSanitizer: data race",
        },
    )
}

fn run(context: &Context<'_>, sanitizer: &Sanitizer) -> Result<Outcome, Error> {
    if !installed::nightly() {
        return Ok(Outcome::Skipped(NO_NIGHTLY.to_owned()));
    }
    let Some(host) = nightly_host() else {
        return Ok(Outcome::Skipped(
            "the nightly toolchain does not tell its host".to_owned(),
        ));
    };
    let suites = suites(context, sanitizer, &host)?;
    let mut lines = suites.lines.clone();
    let mut ended = suites;
    if ended.success
        && let Some(tests) = sanitizer.further_tests
        && !library_only()
    {
        ended = further(context, sanitizer, &host, tests)?;
        lines.extend(ended.lines.iter().cloned());
    }
    let counts = Counts::read(&lines);
    if !ended.success {
        for line in reports::digest(&lines) {
            println!("    {line}");
        }
        return Ok(Outcome::Failed(format!("{}; {counts}", ended.ending())));
    }
    let planted = planted(context, sanitizer, &host)?;
    Ok(judge_planted(&planted, sanitizer, counts))
}

fn judge_planted(planted: &Finished, sanitizer: &Sanitizer, counts: Counts) -> Outcome {
    let name = sanitizer.planted_test;
    if planted.success {
        Outcome::Failed(format!(
            "`{name}` passed: the sanitizer does not see what it should"
        ))
    } else if !planted.mentions(sanitizer.planted_report) {
        Outcome::Failed(format!(
            "`{name}` failed without the report `{}`; see the log",
            sanitizer.planted_report
        ))
    } else {
        Outcome::Passed(format!("{counts}; the planted fault is caught"))
    }
}

fn library_only() -> bool {
    std::env::var("STEPWELL_SANITIZE").is_ok_and(|scope| scope == "lib")
}

/// The tests of the chosen crates, cut down by the environment: a sanitizer slows them many times.
fn suites(context: &Context<'_>, sanitizer: &Sanitizer, host: &str) -> Result<Finished, Error> {
    let packages: Vec<_> = PACKAGES
        .iter()
        .filter_map(|name| context.workspace.package(name))
        .collect();
    base(context, sanitizer)
        .args(["test", "--no-fail-fast", "--target", host, "--lib"])
        .args(if library_only() {
            &[]
        } else {
            &["--tests"][..]
        })
        .args(
            packages
                .iter()
                .flat_map(|package| ["-p", package.name.as_str()]),
        )
        .args(feature_sets::arguments(
            packages.iter().copied(),
            feature_sets::run,
        ))
        .args(["--"])
        .args(
            sanitizer
                .skipped_tests
                .iter()
                .flat_map(|test| ["--skip", test]),
        )
        .env_default("STEPWELL_SEEDS", "25")
        .env_default("PROPTEST_CASES", "32")
        .run(&context.shell)
}

/// Chosen tests of a further package.
fn further(
    context: &Context<'_>,
    sanitizer: &Sanitizer,
    host: &str,
    tests: FurtherTests,
) -> Result<Finished, Error> {
    let beside: &[_] = if tests.is_like_suites { &PACKAGES } else { &[] };
    let packages: Vec<_> = beside
        .iter()
        .chain([&tests.package])
        .filter_map(|name| context.workspace.package(name))
        .collect();
    let features = match tests.is_like_suites {
        true => feature_sets::arguments(packages.iter().copied(), feature_sets::run),
        false => Vec::new(),
    };
    base(context, sanitizer)
        .args(["test", "--no-fail-fast", "--target", host])
        .args(tests.arguments)
        .args(
            packages
                .iter()
                .flat_map(|package| ["-p", package.name.as_str()]),
        )
        .args(features)
        .args(["--"])
        .args(tests.filters)
        .env_default("STEPWELL_SEEDS", "25")
        .env_default("PROPTEST_CASES", "32")
        .run(&context.shell)
}

fn planted(context: &Context<'_>, sanitizer: &Sanitizer, host: &str) -> Result<Finished, Error> {
    let (package, target) = PLANTED;
    let features = context
        .workspace
        .package(package)
        .map(|package| feature_sets::arguments([package], feature_sets::run))
        .unwrap_or_default();
    base(context, sanitizer)
        .args(["test", "--target", host, "-p", package, "--test", target])
        .args(features)
        .args(["--", "--ignored", "--exact", sanitizer.planted_test])
        .echo(Echo::Nothing)
        .run(&context.shell)
}

fn base(context: &Context<'_>, sanitizer: &Sanitizer) -> Invocation {
    let target = context
        .shell
        .root
        .join("target/sanitizers")
        .join(sanitizer.name);
    let (options, value) = &sanitizer.options;
    // Lints of a newer compiler are not what this row is about.
    let flags = format!("{} --cap-lints=allow", sanitizer.compiler_flags);
    Invocation::nightly_cargo()
        .env("RUSTFLAGS", flags)
        .env("CARGO_TARGET_DIR", target)
        // Threads that panic share what was read for backtraces, under a lock of the standard library that
        // ThreadSanitizer does not see.
        .env("RUST_BACKTRACE", "0")
        .env_default(options, value)
        .args(["--config", UNOPTIMISED])
}

/// The host triple of the nightly compiler; a target must be named so that build scripts and
/// macros stay without the sanitizer.
fn nightly_host() -> Option<String> {
    let output = Command::new("rustup")
        .args(["run", "nightly", "rustc", "-vV"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sanitizer() -> Sanitizer {
        Sanitizer {
            name: "address",
            compiler_flags: String::new(),
            options: ("A", "b".to_owned()),
            skipped_tests: &[],
            further_tests: Some(KERNEL),
            planted_test: "planted",
            planted_report: "AddressSanitizer: heap-use-after-free",
        }
    }

    fn finished(success: bool, line: &str) -> Finished {
        Finished {
            success,
            timed_out: false,
            code: Some(1),
            lines: vec![line.to_owned()],
        }
    }

    #[test]
    fn only_a_reported_failure_shows_that_the_sanitizer_sees() {
        let judge = |finished: &Finished| judge_planted(finished, &sanitizer(), Counts::default());
        let caught = finished(
            false,
            "==1==ERROR: AddressSanitizer: heap-use-after-free on",
        );
        assert!(matches!(judge(&caught), Outcome::Passed(_)));
        assert!(matches!(judge(&finished(true, "")), Outcome::Failed(_)));
        let other = finished(false, "error: no test target named `planted`");
        assert!(matches!(judge(&other), Outcome::Failed(_)));
    }
}
