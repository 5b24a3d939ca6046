//! What can go wrong.

use core_alloc::StorageError;
use core_view::contract::ContractError;

/// A failure of the block manager, with the facts that led to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of a configuration can't be used.
    #[error("{field} can't be {value}: {reason}")]
    InvalidConfig {
        /// The field, as the configuration names it.
        field: &'static str,
        /// What it was set to.
        value: String,
        /// Why not, and what would do.
        reason: &'static str,
    },
    /// A field of a configuration was not set.
    #[error("{field} is not set; set it before build()")]
    MissingConfig {
        /// The field, as the configuration names it.
        field: &'static str,
    },
    /// Two layouts, or a layout and what it is used for, differ in a field.
    #[error(
        "layouts differ in {field}: {expected} expected, {found} found; use layouts of one model and page size"
    )]
    LayoutMismatch {
        /// The first field that differs.
        field: &'static str,
        /// Its value here.
        expected: usize,
        /// Its value there.
        found: usize,
    },
    /// A size is beyond what a machine can address.
    #[error("{what} passes {} bytes; make the layout smaller", usize::MAX)]
    SizeOverflow {
        /// What was computed.
        what: &'static str,
    },
    /// An index lies outside a layout or a pool.
    #[error("{what} {index} is out of range; there are {count}")]
    OutOfRange {
        /// What is counted.
        what: &'static str,
        /// The index asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The pool has too few blocks that are free or may be evicted, or other threads took hold of what was left each time that it was tried to take it; it
    /// handed out none.
    #[error(
        "{requested} blocks requested, {available} of {capacity} available; release blocks or try later"
    )]
    Exhausted {
        /// Blocks asked for.
        requested: usize,
        /// Blocks that were free or could have been evicted.
        available: usize,
        /// Blocks of the pool.
        capacity: usize,
    },
    /// As many identities as blocks are needed.
    #[error("{blocks} blocks were given {identities} identities; give each block one")]
    IdentityCount {
        /// Blocks of the batch.
        blocks: usize,
        /// Identities given.
        identities: usize,
    },
    /// A block was filled with another number of tokens than the pool's blocks have.
    #[error("the pool's blocks have {expected} tokens, not {found}; use one block size throughout")]
    BlockTokens {
        /// Tokens a block of the pool.
        expected: usize,
        /// Tokens given.
        found: usize,
    },
    /// A block was handed to a pool that it doesn't belong to.
    #[error("the block belongs to another pool; register it where it was allocated")]
    ForeignBlock,
    /// A sequence has more blocks than a position can count.
    #[error("a sequence has at most {max} blocks; start another")]
    SequenceTooLong {
        /// The most blocks.
        max: u32,
    },
    /// Tokens are not those that an identity was made of.
    #[error("block {position} of the sequence was made of other tokens; treat it as a miss")]
    TokenMismatch {
        /// The block's place in its sequence.
        position: u32,
    },
    /// Memory for a tier can't be had.
    #[error("no memory for the {tier} tier: {source}")]
    Storage {
        /// The tier.
        tier: &'static str,
        /// The allocator's reason.
        source: StorageError,
    },
    /// Memory for what a pool keeps of each block can't be had.
    #[error(
        "no memory for a pool of {capacity_blocks} blocks, whose tables take up to {needed_bytes} bytes; make the pool smaller"
    )]
    PoolMemory {
        /// Blocks of the pool.
        capacity_blocks: usize,
        /// The most that the pool's own tables take, without the blocks' content.
        needed_bytes: u64,
    },
    /// A tier failed as a whole.
    #[error("the {tier} tier failed to {operation}; check its device")]
    Tier {
        /// The tier.
        tier: &'static str,
        /// What was to be done.
        operation: &'static str,
        /// The tier's reason.
        source: ContractError,
    },
    /// A tier below memory has blocks of another version.
    #[error(
        "blocks are of version {found}, this program knows {known}; use the program that wrote them, or another tier"
    )]
    BlockVersion {
        /// The version found.
        found: u16,
        /// The version known.
        known: u16,
    },
    /// A tier below memory has blocks with features that can't be ignored.
    #[error(
        "blocks have features {found:#x} that this program does not know; use the program that wrote them, or another \
         tier"
    )]
    BlockFeatures {
        /// The bits found.
        found: u16,
    },
}

/// A refusal that hands back what was offered.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Refused<T: std::fmt::Debug> {
    /// Why.
    #[source]
    pub error: Box<Error>,
    /// What was offered, unchanged.
    pub offered: T,
}

impl<T: std::fmt::Debug> Refused<T> {
    pub(crate) fn new(error: Error, offered: T) -> Self {
        Self {
            error: Box::new(error),
            offered,
        }
    }
}

impl<T: std::fmt::Debug> From<Refused<T>> for Error {
    /// Drops what was offered.
    fn from(refused: Refused<T>) -> Self {
        *refused.error
    }
}

/// Why a trace can't be read or written.
#[cfg(feature = "trace")]
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
        source: std::io::Error,
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
