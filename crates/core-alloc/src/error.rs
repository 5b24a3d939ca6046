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
    /// No registration has this key.
    #[error("there is no registration under the key {key:?}; register the storage first")]
    NotRegistered {
        /// The key.
        key: String,
    },
    /// Every block of a pool of fixed size is in use.
    #[error(
        "all {blocks} blocks of {block_bytes} bytes of a fixed pool of {kind} storage are in use; \
         drop one or build a larger pool"
    )]
    PoolExhausted {
        /// Kind of storage asked for.
        kind: StorageType,
        /// Size of a block in bytes.
        block_bytes: usize,
        /// Number of blocks in the pool.
        blocks: usize,
    },
    /// An allocator handed out something other than what its contract demands.
    #[error(
        "an allocator of {kind} storage broke its contract for a request of {requested_bytes} bytes: \
         {broken}; the storage was given back, replace the allocator"
    )]
    BrokenContract {
        /// Kind of storage asked for.
        kind: StorageType,
        /// Bytes asked for.
        requested_bytes: usize,
        /// What was wrong.
        broken: String,
    },
    /// Both the first choice and the fallback failed.
    #[error("the first choice failed ({primary}) and so did the fallback")]
    FallbackFailed {
        /// Why the first choice failed.
        primary: Box<StorageError>,
        /// Why the fallback failed.
        #[source]
        secondary: Box<StorageError>,
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

impl StorageError {
    /// Whether the failure is a lack of memory, which another allocator or a later attempt may not
    /// share, rather than a wrong request.
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            Self::AllocationFailed { .. }
            | Self::LimitExceeded { .. }
            | Self::PoolExhausted { .. }
            | Self::Injected { .. } => true,
            Self::FallbackFailed { secondary, .. } => secondary.is_out_of_memory(),
            _ => false,
        }
    }
}
