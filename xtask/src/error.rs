//! What can stop a task.

use std::path::PathBuf;

/// Why a task could not be carried out, as opposed to a check that ran and found something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// The command line is not understood.
    #[error("{reason}; run `cargo xtask help` for the commands and their options")]
    Usage {
        /// What was wrong with it.
        reason: String,
    },
    /// A file or directory could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// The verb: read, write, create.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A program could not be started or waited for.
    #[error("cannot run `{command}`: {source}; check that it is installed and on PATH")]
    Command {
        /// The command line.
        command: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A program ran and failed where its answer was needed.
    #[error("`{command}` failed: {detail}")]
    CommandFailed {
        /// The command line.
        command: String,
        /// The end of what it printed.
        detail: String,
    },
    /// `cargo metadata` answered with something that this program does not understand.
    #[error(
        "the answer of `cargo metadata` has no usable {field}; is this cargo newer than the pinned toolchain?"
    )]
    Metadata {
        /// The missing part.
        field: String,
    },
    /// A task asks for something that the workspace does not have.
    #[error("{what} does not exist; {hint}")]
    Absent {
        /// The missing thing.
        what: String,
        /// What to do.
        hint: String,
    },
}

impl Error {
    /// Wraps an operating-system error for `path`.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }

    /// A usage error.
    pub(crate) fn usage(reason: impl Into<String>) -> Self {
        Self::Usage {
            reason: reason.into(),
        }
    }
}
