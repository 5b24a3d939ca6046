//! A failed operation, and the memory that comes back from it.

use std::fmt;

use super::{ContractError, ErrorKind};
use crate::BufferMut;

/// Why an operation failed, with the buffers it had taken.
///
/// The buffers come back as [`Unverified`]: their memory may be used again, their bytes mean nothing.
#[derive(Debug)]
pub struct Failure {
    error: ContractError,
    buffers: Unverified,
}

impl Failure {
    /// A failure that gives back `buffers`.
    pub fn new(error: ContractError, buffers: Vec<BufferMut>) -> Self {
        Self {
            error,
            buffers: Unverified(buffers),
        }
    }

    /// What went wrong.
    pub fn error(&self) -> &ContractError {
        &self.error
    }

    /// The kind of what went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    /// The error and the buffers.
    pub fn into_parts(self) -> (ContractError, Unverified) {
        (self.error, self.buffers)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

impl From<ContractError> for Failure {
    fn from(error: ContractError) -> Self {
        Self::new(error, Vec::new())
    }
}

impl From<Failure> for ContractError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// Buffers that come back from a failed operation: memory to use again, never data.
///
/// They are no [`BufferMut`]s, so that nothing takes them for data on the way; whoever reclaims the
/// memory writes it before reading it.
#[derive(Debug, Default)]
#[must_use = "the memory can be used again"]
pub struct Unverified(Vec<BufferMut>);

impl Unverified {
    /// Number of buffers.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no buffer came back.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the memory back; what it holds is unspecified.
    pub fn reclaim(self) -> Vec<BufferMut> {
        self.0
    }
}
