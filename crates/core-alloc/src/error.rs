//! The error of every storage and allocator.

use crate::StorageType;

/// What went wrong with a storage or an allocator, as facts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The memory could not be had from where it comes from.
    #[error(
        "could not allocate {requested_bytes} bytes of {kind} memory (alignment {alignment_bytes}); \
         free some or request less"
    )]
    AllocationFailed {
        /// Kind of storage asked for.
        kind: StorageType,
        /// Bytes asked for.
        requested_bytes: usize,
        /// Alignment asked for, in bytes.
        alignment_bytes: usize,
        /// Bytes still available where that is known.
        available_bytes: Option<usize>,
        /// The operating system's or driver's reason where it gave one.
        #[source]
        source: Option<std::io::Error>,
    },
    /// A configured limit would be passed.
    #[error(
        "{requested_bytes} bytes of {kind} memory would pass the limit of {limit_bytes} bytes \
         ({available_bytes} left); free some or raise the limit"
    )]
    LimitExceeded {
        /// Kind of storage asked for.
        kind: StorageType,
        /// Bytes asked for.
        requested_bytes: usize,
        /// Bytes left under the limit.
        available_bytes: usize,
        /// The limit in bytes.
        limit_bytes: usize,
    },
    /// The storage can't be reached in the way that was asked for.
    #[error("{kind} storage is not accessible {how}")]
    NotAccessible {
        /// Kind of storage.
        kind: StorageType,
        /// The way of access that was asked for, such as "from the host".
        how: &'static str,
    },
    /// A size, an alignment or another setting is wrong.
    #[error("invalid {field}: {reason}")]
    InvalidConfig {
        /// The field at fault.
        field: &'static str,
        /// Why its value can't be used.
        reason: String,
    },
    /// A range lies outside the storage.
    #[error(
        "range of {len_bytes} bytes at offset {offset_bytes} lies outside a storage of {size_bytes} bytes"
    )]
    OutOfBounds {
        /// Start of the range, in bytes.
        offset_bytes: usize,
        /// Length of the range, in bytes.
        len_bytes: usize,
        /// Size of the storage, in bytes.
        size_bytes: usize,
    },
    /// A registration key is already taken.
    #[error("a registration under the key {key:?} exists already; unregister it first")]
    AlreadyRegistered {
        /// The key.
        key: String,
    },
    /// The operation failed in the operating system or a driver.
    #[error("{operation} failed on {kind} storage")]
    OperationFailed {
        /// Kind of storage.
        kind: StorageType,
        /// The operation.
        operation: &'static str,
        /// The reason given.
        #[source]
        source: std::io::Error,
    },
    /// The failure was injected by a `Fault` adaptor.
    #[error("injected fault at allocation {nth} of {requested_bytes} bytes")]
    Injected {
        /// Which allocation failed, counted from 1.
        nth: u64,
        /// Bytes asked for.
        requested_bytes: usize,
    },
}
