//! Composing tiers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use core_view::contract::{BlockStore, MemoryTier};

use super::admission::FrequencySketch;
use super::clock::SystemClock;
use super::durable::DurableTier;
use super::header::HeaderForm;
use super::memory::MemoryLevel;
use super::queue::OfferQueue;
use super::staging::Staging;
use super::watch::Watch;
use super::{Admission, Clock, ForeignBlocks, LevelQueue, MoveSink, TierId, TieredCache, Traffic};
use crate::layout::Layout;
use crate::{BlockPool, BlockPoolBuilder, Error, Salt};

/// A cache to be configured; `build` checks all of it.
pub struct TieredCacheBuilder {
    layout: Layout,
    salt: Salt,
    device: Option<(Arc<dyn MemoryTier>, BlockPool)>,
    host: Option<(Arc<dyn MemoryTier>, BlockPool)>,
    disk: Option<(Arc<dyn BlockStore>, BlockPoolBuilder)>,
    admissions: BTreeMap<TierId, Admission>,
    foreign: ForeignBlocks,
    queue_blocks: usize,
    batch_blocks: usize,
    timeout: Duration,
    clock: Option<Arc<dyn Clock>>,
    sink: Option<Arc<dyn MoveSink>>,
}

impl TieredCache {
    /// A cache to be configured, for blocks of this layout. Blocks below memory are of this salt: that of the
    /// model, whatever tenants and adapters the identities are salted with beside it.
    pub fn builder(layout: &Layout, salt: Salt) -> TieredCacheBuilder {
        TieredCacheBuilder {
            layout: layout.clone(),
            salt,
            device: None,
            host: None,
            disk: None,
            admissions: BTreeMap::new(),
            foreign: ForeignBlocks::default(),
            queue_blocks: 65_536,
            batch_blocks: 32,
            timeout: Duration::from_secs(10),
            clock: None,
            sink: None,
        }
    }
}

impl TieredCacheBuilder {
    /// The engine's memory (G1) and the pool of its blocks; required.
    pub fn device(mut self, memory: Arc<dyn MemoryTier>, pool: BlockPool) -> Self {
        self.device = Some((memory, pool));
        self
    }

    /// Host memory (G2) and the pool of its blocks.
    pub fn host(mut self, memory: Arc<dyn MemoryTier>, pool: BlockPool) -> Self {
        self.host = Some((memory, pool));
        self
    }

    /// A store below memory (G3), and how many blocks it may have under which policy.
    pub fn disk(mut self, store: Arc<dyn BlockStore>, pool: BlockPoolBuilder) -> Self {
        self.disk = Some((store, pool));
        self
    }

    /// What a block must have to be offered to a lower tier; everything is by default.
    pub fn admission(mut self, tier: TierId, admission: Admission) -> Self {
        self.admissions.insert(tier, admission);
        self
    }

    /// What to do with blocks of another layout or version in the store; refused by default.
    pub fn foreign_blocks(mut self, foreign: ForeignBlocks) -> Self {
        self.foreign = foreign;
        self
    }

    /// Most offers that wait for each lower tier; 65 536 by default.
    pub fn queue_blocks(mut self, blocks: usize) -> Self {
        self.queue_blocks = blocks;
        self
    }

    /// Most blocks moved at a time; 32 by default. Twice as many are staged at most.
    pub fn batch_blocks(mut self, blocks: usize) -> Self {
        self.batch_blocks = blocks;
        self
    }

    /// How long the transfers of one call are waited for; 10 seconds by default.
    pub fn timeout_ms(mut self, timeout_ms: u64) -> Self {
        self.timeout = Duration::from_millis(timeout_ms);
        self
    }

    /// What deadlines are measured by; real time by default.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Who is told of moves.
    pub fn move_sink(mut self, sink: Arc<dyn MoveSink>) -> Self {
        self.sink = Some(sink);
        self
    }

    /// The cache; what a store below memory has can be matched again.
    ///
    /// # Errors
    /// [`Error::MissingConfig`] and [`Error::InvalidConfig`] name the field; [`Error::LayoutMismatch`] and
    /// [`Error::BlockVersion`] name what differs in the store; [`Error::Tier`] if it can't be read.
    pub fn build(self) -> Result<TieredCache, Error> {
        for (field, value) in [
            ("queue_blocks", self.queue_blocks),
            ("batch_blocks", self.batch_blocks),
        ] {
            if value == 0 {
                return Err(Error::InvalidConfig {
                    field,
                    value: "0".to_owned(),
                    reason: "it is at least 1",
                });
            }
        }
        let block_bytes = self.layout.block_bytes();
        let level = |id, tier: Option<(Arc<dyn MemoryTier>, BlockPool)>| {
            tier.map(|(memory, pool)| MemoryLevel::new(id, memory, pool, block_bytes))
                .transpose()
        };
        let g1 = level(TierId::G1, self.device)?.ok_or(Error::MissingConfig { field: "device" })?;
        let g2 = level(TierId::G2, self.host)?;
        let form = HeaderForm::new(&self.layout, &self.salt)?;
        let (g3, reopened) = match self.disk {
            Some((store, pool)) => {
                let watch = Watch::restart();
                let (tier, reopened) = DurableTier::open(store, pool, form, self.foreign)?;
                watch.moved(reopened.restored_blocks as usize);
                (Some(tier), Some(reopened))
            }
            None => (None, None),
        };
        let present = [(TierId::G2, g2.is_some()), (TierId::G3, g3.is_some())];
        let queues: BTreeMap<TierId, LevelQueue> = present
            .into_iter()
            .filter(|(_, present)| *present)
            .map(|(tier, _)| {
                let level = LevelQueue {
                    admission: self.admissions.get(&tier).copied().unwrap_or_default(),
                    offers: Mutex::new(OfferQueue::new(self.queue_blocks)),
                };
                (tier, level)
            })
            .collect();
        let mut traffic = Traffic::default();
        for tier in std::iter::once(TierId::G1).chain(queues.keys().copied()) {
            traffic.tiers.entry(tier).or_default();
        }
        Ok(TieredCache {
            counts_uses: queues
                .values()
                .any(|level| level.admission.frequency_min > 0),
            g1,
            g2,
            g3,
            reopened,
            queues,
            block_bytes,
            batch_blocks: self.batch_blocks,
            timeout: self.timeout,
            clock: self.clock.unwrap_or_else(|| Arc::new(SystemClock::new())),
            sketch: Mutex::new(FrequencySketch::new()),
            staging: Staging::new(block_bytes, self.batch_blocks.saturating_mul(2)),
            traffic: Mutex::new(traffic),
            late: Mutex::default(),
            stepping: Mutex::default(),
            sink: self.sink,
        })
    }
}

impl fmt::Debug for TieredCacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredCacheBuilder")
            .field("layout", &self.layout)
            .field("queue_blocks", &self.queue_blocks)
            .field("batch_blocks", &self.batch_blocks)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
