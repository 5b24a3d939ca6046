//! What can go wrong with a trace.

use std::io;

/// Why a trace can't be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The file can't be opened, read or written.
    #[error("{operation} failed on {path}; check that the file is there and may be used")]
    Io {
        /// The operation.
        operation: &'static str,
        /// The file.
        path: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A line is no request.
    #[error(
        "{path}:{line}: {reason}; each line must be a JSON object with timestamp, input_length, \
         output_length and hash_ids"
    )]
    Line {
        /// The file.
        path: String,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}
