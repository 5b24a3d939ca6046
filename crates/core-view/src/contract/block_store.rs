//! Durable blocks, keyed by 128 bits.

use std::fmt;

use super::{ContractError, ErrorKind, Failure, Transfer};
use crate::BufferMut;

/// Most bytes that a block's metadata may have.
pub const BLOCK_META_BYTES_MAX: usize = 128;

/// The key of a block: its identity, chosen by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockKey(pub u128);

impl fmt::Display for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What the caller wants to know about a block without reading it: at most
/// [`BLOCK_META_BYTES_MAX`] bytes, checksummed apart from the payload.
#[derive(Clone, Copy)]
pub struct BlockMeta {
    len: u8,
    bytes: [u8; BLOCK_META_BYTES_MAX],
}

impl BlockMeta {
    /// No metadata.
    pub const EMPTY: Self = Self {
        len: 0,
        bytes: [0; BLOCK_META_BYTES_MAX],
    };

    /// Metadata of these bytes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for more than [`BLOCK_META_BYTES_MAX`] bytes.
    pub fn new(source: &[u8]) -> Result<Self, ContractError> {
        let mut bytes = [0; BLOCK_META_BYTES_MAX];
        let too_long = || {
            ContractError::new(ErrorKind::InvalidInput, "make block metadata").detail(format!(
                "{} bytes given, {BLOCK_META_BYTES_MAX} allowed; keep the rest in the payload",
                source.len()
            ))
        };
        bytes
            .get_mut(..source.len())
            .ok_or_else(too_long)?
            .copy_from_slice(source);
        Ok(Self {
            len: source.len() as u8,
            bytes,
        })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl PartialEq for BlockMeta {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for BlockMeta {}

impl fmt::Debug for BlockMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BlockMeta").field(&self.as_slice()).finish()
    }
}

/// One block to store.
#[derive(Debug)]
pub struct BlockPut {
    /// Identity.
    pub key: BlockKey,
    /// Metadata.
    pub meta: BlockMeta,
    /// Contents, all of the buffer. It comes back when the block is stored.
    pub payload: BufferMut,
}

/// One block to fetch.
#[derive(Debug)]
pub struct BlockGet {
    /// Identity.
    pub key: BlockKey,
    /// Where the contents go. It holds at least as many bytes as the payload, rounded up to the store's
    /// [`payload_alignment_bytes`](BlockCapabilities::payload_alignment_bytes).
    pub target: BufferMut,
}

/// A block that was fetched and whose checksums matched.
#[derive(Debug)]
pub struct Block {
    /// Metadata.
    pub meta: BlockMeta,
    /// The target given to the fetch.
    pub target: BufferMut,
    /// Length of the payload in bytes, from the start of the target.
    pub payload_bytes: usize,
}

impl Block {
    /// The payload.
    pub fn payload(&self) -> &[u8] {
        self.target.get(..self.payload_bytes).unwrap_or_default()
    }
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockEntry {
    /// Identity.
    pub key: BlockKey,
    /// Metadata.
    pub meta: BlockMeta,
    /// Length of the payload in bytes.
    pub payload_bytes: u64,
}

/// What a block store can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCapabilities {
    /// Whether a block that was stored is there after a power loss.
    pub durable: bool,
    /// Payloads whose address and length are multiples of this many bytes move without a copy. Targets of
    /// a fetch have such a length; 1 means that any will do.
    pub payload_alignment_bytes: usize,
    /// Longest payload in bytes.
    pub payload_bytes_max: usize,
    /// Bound of the store in bytes, where it has one.
    pub capacity_bytes: Option<u64>,
}

/// How full a block store is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockUsage {
    /// Blocks stored.
    pub blocks: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
}

/// Keeps blocks below memory, each under a 128-bit key, and gives back exactly what was stored or an
/// error.
///
/// The items of a batch succeed or fail one by one. A key that appears twice in one batch of puts or
/// gets is [`ErrorKind::InvalidInput`] for the later item. The transfer as a whole fails only when
/// nothing can be said about any item; it gives back the buffers of all items then, in order, except as
/// [`ErrorKind::Abandoned`] or [`ErrorKind::TimedOut`].
///
/// Any operation may fail as [`ErrorKind::Busy`] where a queue is at its bound; nothing was done then.
///
/// Operations that are in flight at the same time have no order; one that begins after another was
/// acknowledged sees what it did.
pub trait BlockStore: fmt::Debug + Send + Sync {
    /// What this store can do; it doesn't change.
    fn capabilities(&self) -> BlockCapabilities;

    /// How full the store is.
    fn usage(&self) -> BlockUsage;

    /// Stores blocks; a block of the same key is replaced as a whole.
    ///
    /// An item that succeeded is stored, and durable where the store is. One that failed left either
    /// the old block or the new one; a later fetch says which, and never gives a mixture.
    ///
    /// # Errors
    /// For each item, with its payload: [`ErrorKind::NoSpace`] at the bound of the store (eviction is
    /// the caller's choice), [`ErrorKind::InvalidInput`] for a payload that is empty or too long,
    /// [`ErrorKind::Poisoned`], [`ErrorKind::Io`].
    fn put(&self, puts: Vec<BlockPut>) -> Transfer<Vec<Result<BufferMut, Failure>>>;

    /// Fetches blocks into the targets given, and checks them.
    ///
    /// # Errors
    /// For each item, with its target: [`ErrorKind::NotFound`], [`ErrorKind::Corrupt`],
    /// [`ErrorKind::InvalidInput`] for a target that is too short, [`ErrorKind::Io`].
    fn get(&self, gets: Vec<BlockGet>) -> Transfer<Vec<Result<Block, Failure>>>;

    /// Fetches blocks as [`BlockStore::get`] does, and waits for them. A store that can does the work on the calling
    /// thread, so that no other has to be woken.
    ///
    /// # Errors
    /// As [`BlockStore::get`].
    fn get_blocking(&self, gets: Vec<BlockGet>) -> Result<Vec<Result<Block, Failure>>, Failure> {
        self.get(gets).wait()
    }

    /// Which of the keys are stored, in order.
    ///
    /// # Errors
    /// [`ErrorKind::Poisoned`] or [`ErrorKind::Io`] when the store can't tell.
    fn contains(&self, keys: &[BlockKey]) -> Result<Vec<bool>, ContractError>;

    /// Removes blocks and tells which were there, in order; durable as [`BlockStore::put`] is. A key that
    /// is named twice is there at most once. If it fails, each block is there as a whole or not at all.
    ///
    /// # Errors
    /// Through the transfer: [`ErrorKind::Poisoned`], [`ErrorKind::Io`].
    fn remove(&self, keys: &[BlockKey]) -> Transfer<Vec<bool>>;

    /// Whether a removal counts as done, its room included, for puts that begin after it, also while neither is
    /// acknowledged: after a crash no such put is there without the removal. Who makes room for what comes may
    /// start both at once then, and the store may commit them together. `false` unless a store says so.
    fn orders_removals(&self) -> bool {
        false
    }

    /// At most `count_max` entries in order of their keys, beginning after `after`.
    ///
    /// # Errors
    /// [`ErrorKind::Poisoned`] or [`ErrorKind::Io`] when the store can't tell.
    fn list(
        &self,
        after: Option<BlockKey>,
        count_max: usize,
    ) -> Result<Vec<BlockEntry>, ContractError>;
}
