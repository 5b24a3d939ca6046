//! Reading the summary lines of the test harness.

use std::fmt;

/// Most tests that are named in one line.
const NAMED_MAX: usize = 5;

/// How many tests a run had, over all its test programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    /// The names of those that failed, as far as the harness told them.
    pub(crate) failures: Vec<String>,
}

impl Counts {
    /// Adds up all `test result:` lines, and notes the tests that failed.
    pub(crate) fn read<S: AsRef<str>>(lines: &[S]) -> Self {
        let mut counts = Self::default();
        for line in lines {
            let line = line.as_ref();
            let named = line.trim().strip_prefix("test ");
            if let Some(name) = named.and_then(|rest| rest.strip_suffix(" ... FAILED")) {
                counts.failures.push(name.to_owned());
            }
            let Some((_, result)) = line.split_once("test result: ") else {
                continue;
            };
            counts.passed += number_before(result, " passed");
            counts.failed += number_before(result, " failed");
            counts.ignored += number_before(result, " ignored");
        }
        counts
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tests", self.passed)?;
        if self.failed > 0 {
            write!(f, ", {} failed", self.failed)?;
        }
        if !self.failures.is_empty() {
            let (named, more) = self.failures.split_at(self.failures.len().min(NAMED_MAX));
            let dots = if more.is_empty() { "" } else { ", .." };
            write!(f, " ({}{dots})", named.join(", "))?;
        }
        if self.ignored > 0 {
            write!(f, ", {} ignored", self.ignored)?;
        }
        Ok(())
    }
}

fn number_before(text: &str, word: &str) -> u64 {
    text.split_once(word)
        .and_then(|(before, _)| before.rsplit(' ').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_lines_add_up() {
        let counts = Counts::read(&[
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out",
        ]);
        assert_eq!(
            counts,
            Counts {
                passed: 13,
                failed: 2,
                ignored: 1,
                failures: Vec::new(),
            }
        );
        assert_eq!(counts.to_string(), "13 tests, 2 failed, 1 ignored");
    }

    #[test]
    fn what_failed_is_named() {
        let lines = |count| {
            let mut lines: Vec<_> = (0..count)
                .map(|it| format!("test a::b{it} ... FAILED"))
                .collect();
            lines.push("test a::c ... ok".to_owned());
            lines.push(format!("test result: FAILED. 1 passed; {count} failed"));
            lines
        };
        let said = |count| Counts::read(&lines(count)).to_string();
        assert_eq!(said(2), "1 tests, 2 failed (a::b0, a::b1)");
        assert_eq!(
            said(6),
            "1 tests, 6 failed (a::b0, a::b1, a::b2, a::b3, a::b4, ..)"
        );
    }
}
