//! Failures of a volume in the terms of storage.

use std::io;

use core_alloc::{StorageError, StorageType};
use core_view::contract::ErrorKind;

use crate::{NvmeError, Volume};

/// Why a region could not be had.
pub(super) fn not_allocated(
    volume: Option<&dyn Volume>,
    requested_bytes: usize,
    error: NvmeError,
) -> StorageError {
    let is_setting = matches!(
        error,
        NvmeError::Invalid { .. }
            | NvmeError::FileNotFound { .. }
            | NvmeError::FileExists { .. }
            | NvmeError::ReadOnly { .. }
    );
    let is_no_directory = matches!(&error, NvmeError::Io { source, .. }
        if source.kind() == io::ErrorKind::NotADirectory);
    if is_setting || is_no_directory {
        return StorageError::InvalidConfig {
            field: "path",
            reason: message(&error),
        };
    }
    let kind = match error.kind() {
        ErrorKind::NoSpace => io::ErrorKind::StorageFull,
        _ => io::ErrorKind::Other,
    };
    let available = volume.and_then(Volume::available_bytes);
    StorageError::AllocationFailed {
        kind: StorageType::Disk(0),
        requested_bytes,
        alignment_bytes: volume.map_or(1, |volume| volume.report().alignment.offset_bytes),
        available_bytes: available.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
        source: Some(io::Error::new(kind, error)),
    }
}

/// Why something could not be done with a region.
pub(super) fn failed(
    region: u64,
    operation: &'static str,
    error: impl Into<NvmeError>,
) -> StorageError {
    StorageError::OperationFailed {
        kind: StorageType::Disk(region),
        operation,
        source: io::Error::other(error.into()),
    }
}

fn message(error: &NvmeError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error} ({source})"),
        None => error.to_string(),
    }
}
