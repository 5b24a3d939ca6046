//! The error of volumes, files and stores.

use std::io;
use std::sync::Arc;

use core_view::contract::{ContractError, ErrorKind, Failure};

/// What went wrong, to what, and what to do.
///
/// Cloning is cheap: a commit that fails is reported to each of the callers that shared it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NvmeError {
    /// The operating system or the device reported an error.
    #[error("{operation} failed on {path}; check the device and the file system")]
    Io {
        /// The operation.
        operation: &'static str,
        /// File or directory.
        path: String,
        /// The reason.
        #[source]
        source: Arc<io::Error>,
    },
    /// The file system or a limit is full.
    #[error(
        "no space left for {operation} on {path} ({requested_bytes} bytes needed{}); \
         delete values and compact the store, or free space elsewhere, and try again; nothing was lost",
        available_text(*.available_bytes)
    )]
    NoSpace {
        /// The operation.
        operation: &'static str,
        /// File or directory.
        path: String,
        /// Bytes asked for.
        requested_bytes: u64,
        /// Bytes that were free, where that is known.
        available_bytes: Option<u64>,
    },
    /// There is no such file.
    #[error("{path} does not exist")]
    FileNotFound {
        /// The file.
        path: String,
    },
    /// There is such a file already.
    #[error("{path} exists already")]
    FileExists {
        /// The file.
        path: String,
    },
    /// Another process, or another handle in this one, has the directory open.
    #[error("{path} is in use by another process{}; close it there first", holder_text(*.holder_pid))]
    Locked {
        /// The directory.
        path: String,
        /// The process that holds the lock, where it is known.
        holder_pid: Option<u32>,
    },
    /// The directory is not a store.
    #[error("{path} is not a store: {reason}")]
    NotAStore {
        /// The directory.
        path: String,
        /// How that shows.
        reason: String,
    },
    /// The store was written by a newer version.
    #[error(
        "{structure} in {path} has version {found}, this program reads up to {supported}; use a newer one"
    )]
    NewerVersion {
        /// The directory.
        path: String,
        /// The structure.
        structure: &'static str,
        /// Version on disk.
        found: u32,
        /// Newest version understood.
        supported: u32,
    },
    /// The store uses a feature that this version does not know and must not ignore.
    #[error("{path} needs features {bits:#x} that this program does not know; use a newer one")]
    UnknownFeatures {
        /// The directory.
        path: String,
        /// The unknown incompatible bits.
        bits: u64,
    },
    /// The store can't be written.
    #[error("{path} is read-only: {reason}")]
    ReadOnly {
        /// The directory.
        path: String,
        /// Why.
        reason: String,
    },
    /// Bytes on disk are not the bytes that were written.
    #[error(
        "{structure} is corrupt ({location}): {reason}; run verify to see the extent of the damage"
    )]
    Corrupt {
        /// The structure ("superblock", "batch header", "value").
        structure: &'static str,
        /// File and offset, or the key.
        location: String,
        /// What does not match.
        reason: String,
    },
    /// What is asked for was stored in a way that this program was built without.
    #[error(
        "{what} is stored with {feature}, which this program was built without; build it with the feature {feature}"
    )]
    NotBuiltIn {
        /// What can't be read.
        what: String,
        /// The Cargo feature.
        feature: &'static str,
    },
    /// A key, a value or a setting is out of range.
    #[error("invalid {field}: {reason}")]
    Invalid {
        /// The field at fault.
        field: &'static str,
        /// Why its value can't be used.
        reason: String,
    },
    /// The memory that the store may take is taken.
    #[error(
        "{requested_bytes} bytes for {purpose} do not fit the memory limit of {limit_bytes} bytes \
         ({available_bytes} left); drop values that were read, split the batch, delete keys or raise \
         memory_limit_bytes"
    )]
    MemoryLimit {
        /// What they were for.
        purpose: &'static str,
        /// Bytes asked for.
        requested_bytes: u64,
        /// Bytes left for that.
        available_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// An earlier failure left the state on disk unknown.
    #[error("the store stopped after an earlier failure ({reason}); reopen it")]
    Poisoned {
        /// The earlier failure.
        reason: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A transfer failed.
    #[error(transparent)]
    Transfer(#[from] ContractError),
}

fn available_text(available_bytes: Option<u64>) -> String {
    available_bytes
        .map(|bytes| format!(", {bytes} available"))
        .unwrap_or_default()
}

fn holder_text(holder_pid: Option<u32>) -> String {
    holder_pid
        .map(|pid| format!(" (process {pid})"))
        .unwrap_or_default()
}

/// Whether the operating system says that a disk, a quota or a limit of file sizes is full.
pub(crate) fn is_full(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

impl NvmeError {
    /// An operating system's error about `path`, with a full disk told apart.
    pub fn from_io(
        operation: &'static str,
        path: impl Into<String>,
        requested_bytes: u64,
        source: io::Error,
    ) -> Self {
        let path = path.into();
        match source.kind() {
            kind if is_full(kind) => Self::NoSpace {
                operation,
                path,
                requested_bytes,
                available_bytes: None,
            },
            io::ErrorKind::NotFound => Self::FileNotFound { path },
            io::ErrorKind::AlreadyExists => Self::FileExists { path },
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Self::ReadOnly {
                path,
                reason: source.to_string(),
            },
            _ => Self::Io {
                operation,
                path,
                source: Arc::new(source),
            },
        }
    }

    /// The same, with what is free on the volume if that is what is missing.
    pub(crate) fn on(mut self, volume: &dyn crate::Volume) -> Self {
        if let Self::NoSpace {
            available_bytes, ..
        } = &mut self
        {
            *available_bytes = volume.available_bytes();
        }
        self
    }

    /// The kind in the terms that all tiers share.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } => ErrorKind::Io,
            Self::NoSpace { .. } => ErrorKind::NoSpace,
            Self::FileNotFound { .. } => ErrorKind::NotFound,
            Self::Locked { .. } | Self::MemoryLimit { .. } => ErrorKind::Busy,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Poisoned { .. } => ErrorKind::Poisoned,
            Self::NotBuiltIn { .. }
            | Self::NewerVersion { .. }
            | Self::UnknownFeatures { .. }
            | Self::ReadOnly { .. } => ErrorKind::Unsupported,
            Self::FileExists { .. } | Self::NotAStore { .. } | Self::Invalid { .. } => {
                ErrorKind::InvalidInput
            }
            Self::Closed => ErrorKind::Abandoned,
            Self::Transfer(error) => error.kind(),
        }
    }
}

impl From<NvmeError> for ContractError {
    fn from(error: NvmeError) -> Self {
        match error {
            NvmeError::Transfer(error) => error,
            error => {
                let detail = error.to_string();
                Self::new(error.kind(), "nvme").detail(detail).source(error)
            }
        }
    }
}

impl From<Failure> for NvmeError {
    fn from(failure: Failure) -> Self {
        Self::Transfer(failure.into())
    }
}
