//! What a rule has to say.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Finding {
    file: PathBuf,
    /// Counted from 1.
    line: usize,
    /// What is wrong and what to do.
    message: String,
}

impl Finding {
    /// A finding at `line`, counted from 0.
    pub(super) fn new(file: &Path, line: usize, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: line + 1,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}
