//! Blocks on their way between tiers, and the cache that composes tiers.
//!
//! [`TieredCache`] has the engine's memory (G1), host memory (G2) and a store below (G3), the last two if there
//! are such. What the engine registers is offered to the tier below through a bounded queue, and [`TieredCache::step`]
//! copies a batch of what was offered; [`TieredCache::match_blocks`] brings a prefix back, as a whole or not at all. Each block that
//! comes from below memory is checked against its header before anybody sees it.
//!
//! Nothing here runs on a thread of its own, so that what happens depends on the calls alone.

mod admission;
mod builder;
mod clock;
mod durable;
mod event;
mod header;
mod memory;
#[cfg(feature = "metrics")]
mod metrics;
mod offload;
mod onboard;
mod patience;
mod plan;
mod queue;
mod shortfall;
mod staging;
mod traffic;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use core_view::contract::MemoryTier;

pub use admission::Admission;
pub use builder::TieredCacheBuilder;
pub use clock::Clock;
pub use durable::{ForeignBlocks, Reopened};
pub use event::{MoveEvent, MoveSink};
pub use header::Mismatch;
pub use onboard::Matched;
pub use patience::Cancellation;
pub use plan::{CountLeading, Move, MovePlan};
pub use queue::{OffloadOptions, Origin};
pub use shortfall::Shortfall;
pub use traffic::{DropReason, TierId, TierTraffic, Traffic};

use admission::FrequencySketch;
use durable::DurableTier;
use memory::MemoryLevel;
use patience::{Late, Patience};
use queue::OfferQueue;
use staging::Staging;

use crate::{BlockPool, CompleteBlocks, Error, ImmutableBlocks, MutableBlocks, Refused};

/// Operations that were given up and have not ended; with more, tiers take nothing new.
const LATE_MAX: usize = 64;

/// The blocks of all tiers of one model.
///
/// ```
/// use std::sync::Arc;
///
/// use blockmgr::layout::LayoutConfig;
/// use blockmgr::movement::TieredCache;
/// use blockmgr::{BlockPool, RequestOptions, Salt, SequenceHash};
/// use core_alloc::{StorageAllocator, SystemAllocator};
/// use core_view::contract::HostTier;
///
/// let layout = LayoutConfig::builder()
///     .num_blocks(8).num_layers(2).outer_dim(2).page_size(16).inner_dim(64).build()?;
/// let tier = |blocks: usize| -> Result<_, Box<dyn std::error::Error>> {
///     let storage = SystemAllocator.allocate(blocks * layout.block_bytes())?;
///     let pool = BlockPool::builder().capacity_blocks(blocks).build()?;
///     Ok((Arc::new(HostTier::new(storage, layout.block_bytes())?), pool))
/// };
/// let (device, host) = (tier(2)?, tier(8)?);
/// let cache = TieredCache::builder(&layout, Salt::new("llama-3-8b"))
///     .device(device.0, device.1)
///     .host(host.0, host.1)
///     .build()?;
///
/// for hash in [11, 12, 13].map(|hash| SequenceHash::new(hash, 0)) {
///     let fresh = cache.allocate_blocks(1)?;
///     // … fill the memory of `fresh.slots()` …
///     drop(cache.register_blocks(fresh.complete(&[hash])?, Default::default())?);
///     cache.drain();
/// }
/// // Two blocks fit the device; the first comes back from the host.
/// let first = cache.match_blocks(&[SequenceHash::new(11, 0)], &RequestOptions::default());
/// assert_eq!((first.blocks.len(), first.onboarded_blocks), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TieredCache {
    g1: MemoryLevel,
    g2: Option<MemoryLevel>,
    g3: Option<DurableTier>,
    reopened: Option<Reopened>,
    queues: BTreeMap<TierId, LevelQueue>,
    block_bytes: usize,
    batch_blocks: usize,
    timeout: Duration,
    clock: Arc<dyn Clock>,
    counts_uses: bool,
    sketch: Mutex<FrequencySketch>,
    staging: Staging,
    traffic: Mutex<Traffic>,
    late: Mutex<Vec<Late>>,
    stepping: Mutex<()>,
    sink: Option<Arc<dyn MoveSink>>,
}

/// What waits for a tier, and what is let in.
struct LevelQueue {
    admission: Admission,
    offers: Mutex<OfferQueue>,
}

impl TieredCache {
    /// Takes blocks of the engine's memory, as [`BlockPool::allocate_blocks`] does.
    ///
    /// # Errors
    /// [`Error::Exhausted`].
    pub fn allocate_blocks(&self, count: usize) -> Result<MutableBlocks, Error> {
        self.g1.pool.allocate_blocks(count)
    }

    /// Makes filled blocks known, as [`BlockPool::register_blocks`] does, and offers them to the tier below.
    ///
    /// # Errors
    /// [`Error::ForeignBlock`], with the blocks.
    pub fn register_blocks(
        &self,
        blocks: CompleteBlocks,
        options: OffloadOptions,
    ) -> Result<ImmutableBlocks, Refused<CompleteBlocks>> {
        let registered = self.g1.pool.register_blocks(blocks)?;
        let count = registered.len() as u64;
        self.traffic_mut()
            .arrive(TierId::G1, count, count * self.block_bytes as u64);
        self.offer(TierId::G1, &registered, options);
        Ok(registered)
    }

    /// The pool of the engine's memory.
    pub fn pool(&self) -> &BlockPool {
        &self.g1.pool
    }

    /// The pool of a tier, if there is the tier. That of a tier below memory counts places in it.
    pub fn pool_of(&self, tier: TierId) -> Option<&BlockPool> {
        match tier {
            TierId::G1 => Some(&self.g1.pool),
            TierId::G2 => self.g2.as_ref().map(|level| &level.pool),
            TierId::G3 => self.g3.as_ref().map(|tier| &tier.pool),
        }
    }

    /// The engine's memory.
    pub fn memory(&self) -> &Arc<dyn MemoryTier> {
        &self.g1.memory
    }

    /// Bytes a block.
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// What the tier below memory had when it was opened, if there is one.
    pub fn reopened(&self) -> Option<&Reopened> {
        self.reopened.as_ref()
    }

    /// That the store below memory has taken no more than some part of its tier's blocks, if it has. Its tier then goes on
    /// with the places that proved to be there, and tries the others now and then.
    pub fn shortfall(&self) -> Option<Shortfall> {
        self.g3.as_ref().and_then(|tier| tier.withheld.shortfall())
    }

    /// What moved so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic_mut().clone()
    }

    /// Offers that wait, for all tiers.
    pub fn queued_blocks(&self) -> usize {
        let tiers = self.queues.keys();
        tiers.map(|&tier| self.queued_blocks_of(tier)).sum()
    }

    /// Offers that wait for a tier.
    pub fn queued_blocks_of(&self, tier: TierId) -> usize {
        self.queues.get(&tier).map_or(0, |level| {
            let offers = level.offers.lock();
            offers.unwrap_or_else(PoisonError::into_inner).len()
        })
    }

    /// Operations that were given up and are still under way, with the blocks and buffers that they hold.
    pub fn late_operations(&self) -> usize {
        self.late_mut().len()
    }

    /// Staging buffers in use.
    pub fn staged_blocks(&self) -> usize {
        self.staging.taken()
    }

    fn below(&self, tier: TierId) -> Option<TierId> {
        self.queues.keys().copied().find(|&lower| lower > tier)
    }

    fn above(&self, tier: TierId) -> Option<&MemoryLevel> {
        match tier {
            TierId::G1 => None,
            TierId::G2 => Some(&self.g1),
            TierId::G3 => Some(self.g2.as_ref().unwrap_or(&self.g1)),
        }
    }

    fn traffic_mut(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sketch(&self) -> MutexGuard<'_, FrequencySketch> {
        self.sketch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn late_mut(&self) -> MutexGuard<'_, Vec<Late>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn patience(&self, cancellation: &Cancellation) -> Patience {
        Patience::new(&self.clock, self.timeout, cancellation.clone())
    }

    fn add_late(&self, late: Late) {
        self.late_mut().push(late);
    }

    /// Frees what operations held that have ended by now.
    fn collect_late(&self) {
        // Polling may run what others chained, so it happens without the lock.
        let late = std::mem::take(&mut *self.late_mut());
        let mut pending = Vec::new();
        for mut operation in late {
            let Some(buffers) = operation.poll() else {
                pending.push(operation);
                continue;
            };
            if operation.staged > 0 {
                self.staging.give(buffers, operation.staged);
            }
            if let Some(disk) = &self.g3 {
                disk.doom(&operation.stored);
            }
        }
        self.late_mut().append(&mut pending);
    }

    /// Whether so much hangs that nothing new is begun.
    fn is_stalled(&self) -> bool {
        let late = self.late_mut();
        late.len() >= LATE_MAX || late.iter().any(|operation| operation.fences)
    }

    fn announce(&self, events: impl Iterator<Item = MoveEvent>) {
        if let Some(sink) = &self.sink {
            let events: Vec<MoveEvent> = events.collect();
            if !events.is_empty() {
                sink.publish(&events);
            }
        }
    }
}

impl std::fmt::Debug for TieredCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TieredCache")
            .field("block_bytes", &self.block_bytes)
            .field("tiers", &(1 + self.queues.len()))
            .finish_non_exhaustive()
    }
}
