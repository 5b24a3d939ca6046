//! One error for every contract.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use core_alloc::StorageError;

/// What kind of failure an operation of a tier met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nothing is stored under the key.
    NotFound,
    /// The bytes read are not the bytes written.
    Corrupt,
    /// The tier is full.
    NoSpace,
    /// Somebody else holds what is needed, or a queue is at its bound; try again.
    Busy,
    /// The tier can't do this at all.
    Unsupported,
    /// An earlier failure made the tier's state unknown; it refuses to go on.
    Poisoned,
    /// The operation was cancelled.
    Cancelled,
    /// The deadline passed.
    TimedOut,
    /// An argument is wrong.
    InvalidInput,
    /// The device or the operating system reported an error.
    Io,
    /// The side that should have finished the operation went away.
    Abandoned,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::Corrupt => "corrupt",
            Self::NoSpace => "no space",
            Self::Busy => "busy",
            Self::Unsupported => "unsupported",
            Self::Poisoned => "poisoned",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed out",
            Self::InvalidInput => "invalid input",
            Self::Io => "input/output error",
            Self::Abandoned => "abandoned",
        })
    }
}

/// The error of every tier contract: a kind to act on, the facts, and the cause.
///
/// Cloning is cheap, so that one failed commit can be reported to each of its waiters.
///
/// ```
/// use core_view::contract::{ContractError, ErrorKind};
///
/// let error = ContractError::new(ErrorKind::NoSpace, "put block")
///     .detail("4096 bytes requested, 0 available; remove blocks or enlarge the store");
/// assert_eq!(error.kind(), ErrorKind::NoSpace);
/// assert!(error.to_string().contains("4096 bytes requested"));
/// ```
#[derive(Clone)]
pub struct ContractError(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    detail: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl ContractError {
    /// An error of `kind` in `operation`, named by a verb and its object ("put block").
    pub fn new(kind: ErrorKind, operation: &'static str) -> Self {
        Self(Arc::new(Inner {
            kind,
            operation,
            detail: String::new(),
            source: None,
        }))
    }

    /// Adds the facts (amounts, keys, offsets) and what to do.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.0).detail = detail.into();
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::new(source));
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was attempted.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }
}

impl fmt::Display for ContractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.operation, self.0.kind)?;
        if !self.0.detail.is_empty() {
            write!(f, ": {}", self.0.detail)?;
        }
        Ok(())
    }
}

impl fmt::Debug for ContractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContractError")
            .field("kind", &self.0.kind)
            .field("operation", &self.0.operation)
            .field("detail", &self.0.detail)
            .field("source", &self.0.source)
            .finish()
    }
}

impl Error for ContractError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<StorageError> for ContractError {
    fn from(error: StorageError) -> Self {
        let kind = match error {
            StorageError::AllocationFailed { .. }
            | StorageError::LimitExceeded { .. }
            | StorageError::Injected { .. } => ErrorKind::NoSpace,
            StorageError::NotAccessible { .. } => ErrorKind::Unsupported,
            StorageError::InvalidConfig { .. } | StorageError::OutOfBounds { .. } => {
                ErrorKind::InvalidInput
            }
            StorageError::AlreadyRegistered { .. } => ErrorKind::Busy,
            _ => ErrorKind::Io,
        };
        Self::new(kind, "use storage")
            .detail(error.to_string())
            .source(error)
    }
}
