//! Configuring a pool.

use std::fmt;
use std::num::NonZero;
use std::time::Instant;

use super::cell::Cell;
use super::core::{Clock, Core};
use super::directory::Directory;
use super::expected::Expected;
use super::lane::{Lanes, Shares};
use super::lease::Leases;
use super::shards::Shards;
use super::{BlockPool, Duplicates, EventSink, EvictionHook};
use crate::Error;
use crate::policy::{EvictionPolicy, Policy, PolicyKind};
use crate::sync::Padded;
use crate::sync::atomic::AtomicU64;

/// The most blocks of a pool: slot numbers have 31 bits.
const CAPACITY_MAX: usize = 1 << 31;

/// The most that a pool keeps of each block, with any policy of this crate.
const TABLES_BYTES: u64 = 512;

/// The most shards of a pool.
const SHARDS_MAX: usize = 256;

/// The most shards by default, where there are so many blocks for each.
const SHARDS_DEFAULT_MAX: usize = 4;
const SHARD_BLOCKS_MIN: usize = 256;

/// Shards by default: a block that comes is looked for in each, so there are hardly more than threads that can run at once.
fn shards_default(capacity_blocks: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(SHARDS_DEFAULT_MAX, NonZero::get);
    let fitting = (capacity_blocks / SHARD_BLOCKS_MIN).clamp(1, SHARDS_DEFAULT_MAX);
    let useful = processors.min(SHARDS_DEFAULT_MAX).next_power_of_two();
    useful.min(1 << fitting.ilog2())
}

/// Makes a policy for a number of slots.
pub type PolicyFactory = Box<dyn Fn(u32) -> Policy + Send + Sync>;

/// A pool to be configured; `build` checks all of it.
///
/// ```
/// use blockmgr::policy::PolicyKind;
/// use blockmgr::{BlockPool, Duplicates};
///
/// let pool = BlockPool::builder()
///     .capacity_blocks(10_000)
///     .block_tokens(16)
///     .policy(PolicyKind::Lru)
///     .duplicates(Duplicates::Reject)
///     .build()?;
/// assert_eq!(pool.status().free_blocks, 10_000);
/// # Ok::<(), blockmgr::Error>(())
/// ```
#[derive(Default)]
pub struct BlockPoolBuilder {
    capacity_blocks: usize,
    block_tokens: Option<usize>,
    shards: Option<usize>,
    policy: PolicyKind,
    custom: Option<PolicyFactory>,
    duplicates: Duplicates,
    hook: Option<std::sync::Arc<dyn EvictionHook>>,
    sink: Option<std::sync::Arc<dyn EventSink>>,
}

impl BlockPoolBuilder {
    /// Blocks of the pool; required.
    pub fn capacity_blocks(mut self, capacity_blocks: usize) -> Self {
        self.capacity_blocks = capacity_blocks;
        self
    }

    /// Tokens a block; 16 by default.
    pub fn block_tokens(mut self, block_tokens: usize) -> Self {
        self.block_tokens = Some(block_tokens);
        self
    }

    /// Shards, a power of two; by default four, and fewer for a pool of less than 1024 blocks and where the thread that builds the pool
    /// may run on one or two processors only. More let more
    /// threads work side by side, and cost more for each block that comes. The default policy learns from all shards and evicts where a block is worth least, the others evict
    /// where blocks were used longest ago.
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Which block leaves a full pool.
    pub fn policy(mut self, policy: PolicyKind) -> Self {
        self.policy = policy;
        self.custom = None;
        self
    }

    /// A policy of your own, made once for each shard from its number of slots.
    pub fn custom_policy(mut self, factory: PolicyFactory) -> Self {
        self.custom = Some(factory);
        self
    }

    /// What happens to a block that the pool has already.
    pub fn duplicates(mut self, duplicates: Duplicates) -> Self {
        self.duplicates = duplicates;
        self
    }

    /// Who is offered what is evicted.
    pub fn eviction_hook(mut self, hook: std::sync::Arc<dyn EvictionHook>) -> Self {
        self.hook = Some(hook);
        self
    }

    /// Who is told what the pool has.
    pub fn event_sink(mut self, sink: std::sync::Arc<dyn EventSink>) -> Self {
        self.sink = Some(sink);
        self
    }

    /// The pool, all blocks free.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] names the field that can't be used, [`Error::PoolMemory`] says that there is no room for so many blocks.
    pub fn build(self) -> Result<BlockPool, Error> {
        let capacity = self.checked_capacity()?;
        let block_tokens = self.block_tokens.unwrap_or(16);
        if block_tokens == 0 {
            return Err(invalid("block_tokens", 0, "a block has at least one token"));
        }
        let shards = self.checked_shards()?;
        check_memory(capacity)?;
        let slots = Shards::slots_of_each(capacity, shards);
        let policies: Vec<Policy> = match &self.custom {
            Some(factory) => slots.iter().map(|&slots| factory(slots)).collect(),
            None => self.policy.build_parts(&slots),
        };
        let cells = |slots: &u32| (0..*slots).map(|_| Cell::new()).collect();
        let cells: Vec<_> = slots.iter().map(cells).collect();
        let study = policies.first().and_then(EvictionPolicy::study);
        let core = Core {
            study,
            capacity,
            block_tokens,
            duplicates: self.duplicates,
            shards: Shards::new(&cells, policies),
            lanes: Lanes::new(),
            directory: Directory::new(&cells),
            expected: Expected::new(),
            clock: Padded(Clock {
                started: Instant::now(),
                requests: AtomicU64::new(0),
                newest_ms: AtomicU64::new(0),
            }),
            leases: Leases::new(),
            hook: self.hook,
            sink: self.sink,
            event_sequence: AtomicU64::new(0),
        };
        Ok(BlockPool {
            core: Shares::new(core),
        })
    }

    fn checked_capacity(&self) -> Result<u32, Error> {
        let blocks = self.capacity_blocks;
        match u32::try_from(blocks) {
            Ok(capacity) if capacity > 0 && blocks <= CAPACITY_MAX => Ok(capacity),
            _ => Err(invalid(
                "capacity_blocks",
                blocks,
                "a pool has from 1 to 2147483648 blocks",
            )),
        }
    }

    fn checked_shards(&self) -> Result<usize, Error> {
        let shards = self
            .shards
            .unwrap_or_else(|| shards_default(self.capacity_blocks));
        let fits = shards <= SHARDS_MAX && shards <= self.capacity_blocks;
        if shards.is_power_of_two() && fits {
            return Ok(shards);
        }
        Err(invalid(
            "shards",
            shards,
            "it is a power of two, at most 256 and at most capacity_blocks",
        ))
    }
}

/// Asks for the memory of the pool's tables once, and gives it back: to ask for each of them could end the process.
fn check_memory(capacity: u32) -> Result<(), Error> {
    let needed_bytes = u64::from(capacity) * TABLES_BYTES;
    let mut room: Vec<u8> = Vec::new();
    let reserved = match usize::try_from(needed_bytes) {
        Ok(bytes) => room.try_reserve_exact(bytes).is_ok(),
        Err(_) => false,
    };
    // The compiler may take for granted that memory which nobody uses could be had.
    std::hint::black_box(&mut room);
    if reserved {
        return Ok(());
    }
    Err(Error::PoolMemory {
        capacity_blocks: capacity as usize,
        needed_bytes,
    })
}

fn invalid(field: &'static str, value: usize, reason: &'static str) -> Error {
    Error::InvalidConfig {
        field,
        value: value.to_string(),
        reason,
    }
}

impl fmt::Debug for BlockPoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockPoolBuilder")
            .field("capacity_blocks", &self.capacity_blocks)
            .field("block_tokens", &self.block_tokens)
            .field("shards", &self.shards)
            .field("policy", &self.policy)
            .field("duplicates", &self.duplicates)
            .finish_non_exhaustive()
    }
}
