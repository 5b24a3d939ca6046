//! The blocks of one tier: which are free, which are in use, which are kept for whoever asks again.
//!
//! A pool has a fixed number of slots. Slots are divided among shards, each with its lock, an instance of the policy
//! and an index of its blocks, which can be read without the lock. A batch takes slots where the blocks that leave are worth
//! least, mostly in shards that are the thread's own; a block may be in any shard, and is in one of them at most.
//!
//! Users of a block are counted in a word of its slot, without a lock. A slot is taken from a block only in one step with seeing
//! that there is no user, so what is in use stays; the shard's policy is told of uses by whoever locks the shard next.
//!
//! A thread has at most one shard locked, or all of them in order; a lock that is taken while one is held is given up before
//! anything else is.

mod allocate;
mod backlog;
mod builder;
mod cell;
mod choice;
mod core;
mod cursor;
mod directory;
mod expected;
mod index;
mod lane;
mod lease;
mod matching;
#[cfg(feature = "metrics")]
mod metrics;
mod observer;
mod register;
mod shard;
mod shards;
mod unfinished;

use crate::block::{CompleteBlock, CompleteBlocks, ImmutableBlock, ImmutableBlocks, MutableBlocks};
use crate::{Error, Refused, SequenceHash};

use self::lane::Shares;
pub(crate) use self::lane::{Share, WeakShare};
pub use builder::{BlockPoolBuilder, PolicyFactory};
pub use lease::LeaseId;
pub use observer::{BlockEvent, EventSink, EvictedBlock, EvictionHook};

/// What happens when a block is registered whose content another block of the pool has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Duplicates {
    /// Both live; the later one can't be matched, and goes with its last user unless the first has gone by then.
    #[default]
    Allow,
    /// The later one is freed, and its owner gets the first.
    Reject,
}

/// What is known of a request beside its blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestOptions {
    /// Larger is kept longer, by policies that heed it.
    pub priority: u8,
    /// Time of arrival in milliseconds from any instant, monotone; the pool's own clock if there is none.
    pub time_ms: Option<u64>,
}

/// How a pool stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// Blocks of the pool.
    pub capacity_blocks: usize,
    /// Blocks that hold nothing.
    pub free_blocks: usize,
    /// Registered blocks that nobody uses; they can be matched and evicted.
    pub cached_blocks: usize,
    /// Blocks in somebody's hands, registered or not.
    pub in_use_blocks: usize,
    /// Shards of the pool.
    pub shards: usize,
    /// Calls that matched or touched, since the pool was made.
    pub requests: u64,
    /// Blocks asked for by them.
    pub requested_blocks: u64,
    /// Blocks of those that were matched.
    pub hit_blocks: u64,
    /// Blocks registered.
    pub registered_blocks: u64,
    /// Blocks registered that the pool had already.
    pub duplicate_blocks: u64,
    /// Blocks evicted to make room.
    pub evicted_blocks: u64,
    /// Blocks removed by `reset` and `remove_blocks`.
    pub removed_blocks: u64,
}

/// The blocks of one tier. Clones share it.
///
/// ```
/// use blockmgr::{BlockPool, Salt, TokenSequence};
///
/// let pool = BlockPool::builder().capacity_blocks(64).block_tokens(4).build()?;
/// let mut prompt = TokenSequence::new(Salt::new("llama-3-8b"), 4)?;
/// prompt.extend(&[1, 2, 3, 4, 5, 6, 7, 8])?;
/// let hashes = prompt.sequence_hashes();
///
/// let cached = pool.match_sequence_hashes(hashes);
/// assert_eq!(cached.len(), 0);
/// let fresh = pool.allocate_blocks(hashes.len())?;
/// // … the engine fills the slots of `fresh` …
/// let complete = fresh.complete(hashes)?;
/// let registered = pool.register_blocks(complete)?;
/// drop(registered);
///
/// assert_eq!(pool.match_sequence_hashes(hashes).len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct BlockPool {
    core: Shares,
}

impl BlockPool {
    /// A pool to be configured.
    pub fn builder() -> BlockPoolBuilder {
        BlockPoolBuilder::default()
    }

    /// Takes `count` blocks, free ones or in the place of cached ones that the policy gives up.
    ///
    /// # Errors
    /// [`Error::Exhausted`] if the pool can't give all of them; it gives none then, and evicts none unless another
    /// thread took in the middle of this what was there at first.
    pub fn allocate_blocks(&self, count: usize) -> Result<MutableBlocks, Error> {
        let slots = self.core.allocate(count)?;
        Ok(MutableBlocks::new(self.core.own().clone(), slots))
    }

    /// Makes filled blocks known, in the order of their sequence. They come back in the same order.
    ///
    /// # Errors
    /// [`Error::ForeignBlock`], with the blocks, if they were allocated from another pool.
    pub fn register_blocks(
        &self,
        blocks: CompleteBlocks,
    ) -> Result<ImmutableBlocks, Refused<CompleteBlocks>> {
        if !blocks.is_of(self.core.own()) {
            return Err(Refused::new(Error::ForeignBlock, blocks));
        }
        let parent = blocks.parent();
        let (core, mut slots, hashes) = blocks.into_parts();
        self.core.register(&mut slots, &hashes, parent);
        Ok(ImmutableBlocks::new(core, slots))
    }

    /// Makes one filled block known.
    ///
    /// # Errors
    /// As [`BlockPool::register_blocks`].
    pub fn register_block(
        &self,
        block: CompleteBlock,
    ) -> Result<ImmutableBlock, Refused<CompleteBlock>> {
        if !block.is_of(self.core.own()) {
            return Err(Refused::new(Error::ForeignBlock, block));
        }
        let (core, slot, hash, parent) = block.into_parts();
        let mut slots = [slot];
        self.core.register(&mut slots, &[hash], parent);
        let [slot] = slots;
        Ok(ImmutableBlock::new(core, slot))
    }

    /// Takes hold of the longest leading part of a sequence that the pool has.
    pub fn match_sequence_hashes(&self, hashes: &[SequenceHash]) -> ImmutableBlocks {
        self.match_sequence_hashes_with(hashes, &RequestOptions::default())
    }

    /// The same, with what else is known of the request.
    pub fn match_sequence_hashes_with(
        &self,
        hashes: &[SequenceHash],
        options: &RequestOptions,
    ) -> ImmutableBlocks {
        let slots = self.core.match_prefix(hashes, options);
        ImmutableBlocks::new(self.core.own().clone(), slots)
    }

    /// How many of the leading blocks the pool has; for a router that asks many pools. No use is counted.
    pub fn count_sequence_hashes(&self, hashes: &[SequenceHash]) -> usize {
        self.core.count_prefix(hashes)
    }

    /// Counts a use of blocks that the caller doesn't need to hold; tells how many of them the pool has.
    pub fn touch_blocks(&self, hashes: &[SequenceHash], options: &RequestOptions) -> usize {
        self.core.touch(hashes, options)
    }

    /// Removes blocks that nobody uses, whose content is no longer wanted; tells how many.
    pub fn remove_blocks(&self, hashes: &[SequenceHash]) -> usize {
        self.core.remove(hashes)
    }

    /// Removes all blocks that nobody uses; tells how many. Those in use stay, as [`PoolStatus`] shows.
    pub fn reset(&self) -> usize {
        self.core.reset()
    }

    /// Keeps blocks for a time without a handle, as between the turns of a conversation. When the time is over, by the
    /// pool's clock, they go back to the pool with the next allocation.
    ///
    /// # Errors
    /// [`Error::ForeignBlock`], with the blocks, if they belong to another pool.
    pub fn lease_blocks(
        &self,
        blocks: ImmutableBlocks,
        duration_ms: u64,
    ) -> Result<LeaseId, Refused<ImmutableBlocks>> {
        if !blocks.is_of(self) {
            return Err(Refused::new(Error::ForeignBlock, blocks));
        }
        Ok(self.core.lease(blocks.into_slots(), duration_ms))
    }

    /// Ends a lease before its time; whether it was still running.
    pub fn end_lease(&self, lease: LeaseId) -> bool {
        self.core.end_lease(lease)
    }

    /// Counts of blocks now and since the pool was made. The numbers of a pool in use are of slightly different
    /// instants.
    pub fn status(&self) -> PoolStatus {
        self.core.status()
    }

    pub(crate) fn is(&self, core: &Share) -> bool {
        core.is_of(self.core.own())
    }

    /// Blocks of the pool.
    pub fn capacity_blocks(&self) -> usize {
        self.core.capacity as usize
    }

    /// Blocks that could be allocated now.
    pub fn available_blocks(&self) -> usize {
        self.core.available()
    }

    /// Tokens a block.
    pub fn block_tokens(&self) -> usize {
        self.core.block_tokens
    }
}
