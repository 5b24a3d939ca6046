//! `cargo xtask ci`: every check, in order, and one table at the end.

mod clippy;
mod doc_tests;
mod documentation;
mod examples;
mod feature_matrix;
mod formatting;
mod fuzz;
pub(crate) mod installed;
mod interleavings;
mod licences;
mod miri;
mod sanitizers;
mod semver;
mod test_suite;

use crate::error::Error;
use crate::report::{Report, Row};
use crate::workspace::Workspace;
use crate::{coverage, layers, mutants, tidy};

/// The rows, in the order in which they run: the quick ones first, the optional ones last.
const ROWS: [Row; 19] = [
    Row {
        name: "fmt",
        about: "the formatting is rustfmt's",
        run: formatting::run,
    },
    Row {
        name: "layers",
        about: "dependencies point downward",
        run: layers::run,
    },
    Row {
        name: "tidy",
        about: "the house rules that no compiler checks",
        run: tidy::run,
    },
    Row {
        name: "clippy",
        about: "no warning in any target with any CPU feature",
        run: clippy::run,
    },
    Row {
        name: "features",
        about: "each crate compiles alone, whatever its features",
        run: feature_matrix::run,
    },
    Row {
        name: "tests",
        about: "unit and integration tests",
        run: test_suite::run,
    },
    Row {
        name: "docs",
        about: "the documentation builds without a warning",
        run: documentation::run,
    },
    Row {
        name: "doc-tests",
        about: "the examples in the documentation run",
        run: doc_tests::run,
    },
    Row {
        name: "examples",
        about: "the examples of each crate run",
        run: examples::run,
    },
    Row {
        name: "mutants",
        about: "the crash simulation notices each removed safeguard",
        run: mutants::run_quick,
    },
    Row {
        name: "interleavings",
        about: "the sharded paths under a scheduler that tries interleavings",
        run: interleavings::run,
    },
    Row {
        name: "asan",
        about: "AddressSanitizer over the crates with unsafe code",
        run: sanitizers::address,
    },
    Row {
        name: "tsan",
        about: "ThreadSanitizer over the crates with unsafe code, and shared state",
        run: sanitizers::thread,
    },
    Row {
        name: "miri",
        about: "Miri over the crates whose unsafe code it can follow",
        run: miri::run,
    },
    Row {
        name: "licences",
        about: "licences and sources of the dependencies",
        run: licences::run,
    },
    Row {
        name: "advisories",
        about: "known vulnerabilities of the dependencies",
        run: licences::run_advisories,
    },
    Row {
        name: "semver",
        about: "no unannounced break since the last release",
        run: semver::run,
    },
    Row {
        name: "fuzz",
        about: "each fuzz target for a few seconds",
        run: fuzz::run,
    },
    Row {
        name: "coverage",
        about: "lines that the tests reach",
        run: coverage::run,
    },
];

/// What to run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Only these rows; all if empty.
    pub(crate) only: Vec<String>,
    /// Not these.
    pub(crate) skip: Vec<String>,
}

impl Selection {
    /// Refuses names that are no row.
    fn check(&self) -> Result<(), Error> {
        for name in self.only.iter().chain(&self.skip) {
            if !ROWS.iter().any(|row| row.name == name) {
                return Err(Error::usage(format!("there is no row `{name}`")));
            }
        }
        Ok(())
    }

    fn includes(&self, row: &Row) -> bool {
        let named = |names: &[String]| names.iter().any(|name| name == row.name);
        (self.only.is_empty() || named(&self.only)) && !named(&self.skip)
    }
}

/// Prints the rows.
pub(crate) fn list() {
    for row in &ROWS {
        println!("{:12} {}", row.name, row.about);
    }
}

/// Runs the selected rows; true if none failed.
pub(crate) fn run(
    workspace: &Workspace,
    selection: &Selection,
    verbose: bool,
) -> Result<bool, Error> {
    selection.check()?;
    let mut report = Report::default();
    for row in ROWS.iter().filter(|row| selection.includes(row)) {
        report.run(row, workspace, verbose);
    }
    println!("\n{report}");
    Ok(!report.failed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(selection: &Selection) -> Vec<&'static str> {
        ROWS.iter()
            .filter(|row| selection.includes(row))
            .map(|row| row.name)
            .collect()
    }

    #[test]
    fn names_are_distinct() {
        for (index, row) in ROWS.iter().enumerate() {
            assert!(
                ROWS[..index].iter().all(|earlier| earlier.name != row.name),
                "{}",
                row.name
            );
        }
    }

    #[test]
    fn selections_include_and_exclude() {
        assert_eq!(names(&Selection::default()).len(), ROWS.len());
        let selection = Selection {
            only: vec!["tidy".to_owned(), "fmt".to_owned()],
            skip: vec!["fmt".to_owned()],
        };
        assert_eq!(names(&selection), ["tidy"]);
    }

    #[test]
    fn unknown_rows_are_refused() {
        let selection = Selection {
            only: vec!["lint".to_owned()],
            skip: Vec::new(),
        };
        assert!(
            selection
                .check()
                .unwrap_err()
                .to_string()
                .contains("`lint`")
        );
    }
}
