//! Rows, how they ended, and the table at the end.

use std::fmt;
use std::time::{Duration, Instant};

use crate::command::{Finished, Shell};
use crate::error::Error;
use crate::workspace::Workspace;

/// How a row ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The check ran and found nothing wrong; says what was covered, or nothing.
    Passed(String),
    /// The check found something, or could not be carried out.
    Failed(String),
    /// The check did not run, and why.
    Skipped(String),
}

impl Outcome {
    /// Passed if the program succeeded, failed with its ending otherwise.
    pub(crate) fn of(finished: &Finished) -> Self {
        if finished.success {
            Self::Passed(String::new())
        } else {
            Self::Failed(finished.ending())
        }
    }

    /// Passed with `covered` if there are no failures, else failed with all of them.
    pub(crate) fn unless(failures: &[String], covered: impl Into<String>) -> Self {
        if failures.is_empty() {
            Self::Passed(covered.into())
        } else {
            Self::Failed(failures.join("; "))
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, detail) = match self {
            Self::Passed(detail) => ("passed", detail),
            Self::Failed(detail) => ("failed", detail),
            Self::Skipped(detail) => ("skipped", detail),
        };
        f.write_str(word)?;
        if detail.is_empty() {
            Ok(())
        } else {
            write!(f, ": {detail}")
        }
    }
}

/// What a row has to work with.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// The members and their features.
    pub(crate) workspace: &'a Workspace,
    /// Runs programs and keeps their output.
    pub(crate) shell: Shell,
}

/// One check.
pub(crate) struct Row {
    /// The name by which `--only` and `--skip` select it.
    pub(crate) name: &'static str,
    /// What it checks, in half a sentence.
    pub(crate) about: &'static str,
    /// Carries it out.
    pub(crate) run: fn(&Context<'_>) -> Result<Outcome, Error>,
}

/// A row that has run.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    pub(crate) elapsed: Duration,
}

/// All rows that have run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

impl Report {
    /// Runs `row` and keeps how it ended; an error that stops it is its failure.
    pub(crate) fn run(&mut self, row: &Row, workspace: &Workspace, verbose: bool) {
        println!("\n==> {}: {}", row.name, row.about);
        let started = Instant::now();
        let outcome = Shell::new(&workspace.root, row.name, verbose)
            .and_then(|shell| (row.run)(&Context { workspace, shell }))
            .unwrap_or_else(|error| Outcome::Failed(error.to_string()));
        let elapsed = started.elapsed();
        println!(
            "<== {}: {outcome} ({:.1} s)",
            row.name,
            elapsed.as_secs_f64()
        );
        self.lines.push(Line {
            name: row.name.to_owned(),
            outcome,
            elapsed,
        });
    }

    /// Whether any row failed.
    pub(crate) fn failed(&self) -> bool {
        self.lines
            .iter()
            .any(|line| matches!(line.outcome, Outcome::Failed(_)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name_width = self
            .lines
            .iter()
            .map(|line| line.name.len())
            .max()
            .unwrap_or(0)
            .max("total".len());
        writeln!(f, "{:name_width$}  {:>8}  outcome", "row", "seconds")?;
        for line in &self.lines {
            writeln!(
                f,
                "{:name_width$}  {:>8.1}  {}",
                line.name,
                line.elapsed.as_secs_f64(),
                line.outcome
            )?;
        }
        let total: Duration = self.lines.iter().map(|line| line.elapsed).sum();
        writeln!(f, "{:name_width$}  {:>8.1}", "total", total.as_secs_f64())?;
        let count = |matches: fn(&Outcome) -> bool| {
            self.lines
                .iter()
                .filter(|line| matches(&line.outcome))
                .count()
        };
        write!(
            f,
            "\n{} passed, {} failed, {} skipped",
            count(|outcome| matches!(outcome, Outcome::Passed(_))),
            count(|outcome| matches!(outcome, Outcome::Failed(_))),
            count(|outcome| matches!(outcome, Outcome::Skipped(_))),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, outcome: Outcome) -> Line {
        Line {
            name: name.to_owned(),
            outcome,
            elapsed: Duration::from_millis(1500),
        }
    }

    #[test]
    fn the_table_ends_with_the_counts_alone_on_a_line() {
        let report = Report {
            lines: vec![
                line("fmt", Outcome::Passed(String::new())),
                line("clippy", Outcome::Failed("exit code 101".to_owned())),
                line("miri", Outcome::Skipped("not installed".to_owned())),
            ],
        };
        let shown = report.to_string();
        assert_eq!(shown.lines().last(), Some("1 passed, 1 failed, 1 skipped"));
        assert!(
            shown.contains("miri         1.5  skipped: not installed"),
            "{shown}"
        );
        assert!(shown.contains("total        4.5"), "{shown}");
        assert!(report.failed());
    }

    #[test]
    fn skipped_rows_do_not_fail_a_report() {
        let report = Report {
            lines: vec![line("miri", Outcome::Skipped("absent".to_owned()))],
        };
        assert!(!report.failed());
    }

    #[test]
    fn failures_are_joined() {
        let failures = ["a".to_owned(), "b".to_owned()];
        assert_eq!(
            Outcome::unless(&failures, "x"),
            Outcome::Failed("a; b".to_owned())
        );
        assert_eq!(Outcome::unless(&[], "x"), Outcome::Passed("x".to_owned()));
    }
}
