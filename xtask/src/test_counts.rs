//! Reading the summary lines of the test harness.

use std::fmt;

/// How many tests a run had, over all its test programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Counts {
    /// Adds up all `test result:` lines.
    pub(crate) fn read<S: AsRef<str>>(lines: &[S]) -> Self {
        let mut counts = Self::default();
        for line in lines {
            let Some((_, result)) = line.as_ref().split_once("test result: ") else {
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
                ignored: 1
            }
        );
        assert_eq!(counts.to_string(), "13 tests, 2 failed, 1 ignored");
    }
}
