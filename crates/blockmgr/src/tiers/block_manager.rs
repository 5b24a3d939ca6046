//! The tiers of one process.

use std::sync::Arc;

use core_view::contract::MemoryTier;

use super::layout_config::Place;
use super::{BlockTier, KvBlockManagerConfig, KvManagerLayoutConfig, KvManagerModelConfig};
use crate::{Error, Salt, TieredCache, TieredCacheBuilder};

/// The tiers of one process that serves one model, and the cache that moves blocks between them.
///
/// The first tier in memory, the device's or else the host's, is where the engine works; the next, and the disk's store,
/// are below it.
///
/// ```
/// use blockmgr::movement::OffloadOptions;
/// use blockmgr::tiers::{
///     KvBlockManager, KvBlockManagerConfig, KvManagerLayoutConfig, KvManagerModelConfig,
///     KvManagerRuntimeConfig,
/// };
/// use blockmgr::{RequestOptions, SequenceHash};
/// use blockmgr::layout::LayoutType;
/// use core_alloc::SystemAllocator;
///
/// let model = KvManagerModelConfig::builder()
///     .name("llama-3-8b-f16")
///     .num_layers(2)
///     .outer_dim(2)
///     .page_size(16)
///     .inner_dim(64)
///     .build()?;
/// let layout = |blocks, layout_type| {
///     KvManagerLayoutConfig::builder()
///         .num_blocks(blocks)
///         .layout_type(layout_type)
///         .allocator(SystemAllocator)
///         .build()
/// };
/// let config = KvBlockManagerConfig::builder()
///     .runtime(KvManagerRuntimeConfig::new(1))
///     .model(model)
///     .device_layout(layout(2, LayoutType::FullyContiguous)?)
///     .host_layout(layout(32, LayoutType::Paged)?)
///     .build()?;
/// let manager = KvBlockManager::new(config)?;
/// let device = manager.device().ok_or("set")?;
/// let cache = manager.cache().map_err(ToString::to_string)?;
///
/// let bytes = vec![7; device.layout().block_bytes()];
/// let hash = SequenceHash::new(0xfeed, 0);
/// let mut block = cache.allocate_blocks(1)?.into_iter().next().ok_or("one")?;
/// device.write_block(&mut block, &bytes)?;
/// drop(cache.register_blocks(block.complete_as(hash).into(), OffloadOptions::default())?);
/// cache.drain();
///
/// // It left the device, and comes back from the host's memory.
/// cache.pool().reset();
/// let matched = cache.match_blocks(&[hash], &RequestOptions::default());
/// assert_eq!(matched.onboarded_blocks, 1);
/// let mut read = vec![0; bytes.len()];
/// device.read_block(&matched.blocks.get(0).ok_or("one")?, &mut read)?;
/// assert_eq!(read, bytes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct KvBlockManager {
    worker_id: u64,
    device: Option<BlockTier>,
    host: Option<BlockTier>,
    disk: Option<BlockTier>,
    cache: Result<TieredCache, Error>,
}

impl KvBlockManager {
    /// Allocates the memory of all tiers, makes their pools, and composes them. What a durable store has can be matched
    /// again.
    ///
    /// # Errors
    /// [`Error::Storage`] names the tier whose memory can't be had; [`Error::InvalidConfig`] and
    /// [`Error::SizeOverflow`] what doesn't go together; a store fails as
    /// [`TieredCacheBuilder::build`](crate::TieredCacheBuilder::build) says.
    pub fn new(config: KvBlockManagerConfig) -> Result<Self, Error> {
        let model = config.model;
        let tier = |name, layout: Option<_>| {
            layout
                .map(|layout| BlockTier::new(name, &model, layout))
                .transpose()
        };
        let device = tier("device", config.device)?;
        let host = tier("host", config.host)?;
        let (store, disk) = match config.disk {
            Some(KvManagerLayoutConfig {
                place: Place::Store(store),
                pool,
                num_blocks,
                ..
            }) => (Some((store, pool.capacity_blocks(num_blocks))), None),
            other => (None, tier("disk", other)?),
        };
        let composed = compose(&model, [&device, &host], store.is_some());
        let cache = match composed {
            Ok(mut builder) => {
                if let Some((store, pool)) = store {
                    builder = builder.disk(store, pool);
                }
                if let Some(configure) = config.movement {
                    builder = configure(builder);
                }
                Ok(builder.build()?)
            }
            Err(error) => Err(error),
        };
        Ok(Self {
            worker_id: config.runtime.worker_id,
            device,
            host,
            disk,
            cache,
        })
    }

    /// The process.
    pub fn worker_id(&self) -> u64 {
        self.worker_id
    }

    /// The tiers in memory and the disk's store, composed.
    ///
    /// # Errors
    /// Why they can't be: [`Error::MissingConfig`] without a tier in memory, [`Error::InvalidConfig`] where the host does not
    /// reach a tier's storage and was not given its memory. The tiers are there all the same, each with its pool.
    pub fn cache(&self) -> Result<&TieredCache, &Error> {
        self.cache.as_ref()
    }

    /// The tier that the engine computes in.
    pub fn device(&self) -> Option<&BlockTier> {
        self.device.as_ref()
    }

    /// The tier in host memory.
    pub fn host(&self) -> Option<&BlockTier> {
        self.host.as_ref()
    }

    /// A tier on disk that has storage of an allocator: it has a pool of its own, and nothing survives in it. One with a
    /// [store](super::KvManagerLayoutConfigBuilder::store) is part of the [cache](KvBlockManager::cache) instead, where its
    /// pool is that of [`TierId::G3`](crate::movement::TierId::G3).
    pub fn disk(&self) -> Option<&BlockTier> {
        self.disk.as_ref()
    }
}

/// The tiers in memory, the first where the engine works.
fn compose(
    model: &KvManagerModelConfig,
    tiers: [&Option<BlockTier>; 2],
    has_store: bool,
) -> Result<TieredCacheBuilder, Error> {
    let mut memory = tiers.into_iter().flatten();
    let first = memory.next().ok_or(Error::MissingConfig {
        field: "device_layout or host_layout",
    })?;
    let second = memory.next();
    let alone = second.is_none() && !has_store;
    let mut builder = TieredCache::builder(&model.canonical, Salt::new(&model.name))
        .device(movable(first, alone)?, first.pool().clone());
    if let Some(second) = second {
        builder = builder.host(movable(second, false)?, second.pool().clone());
    }
    Ok(builder)
}

/// A tier's memory, if blocks can be moved to and from it, which one that is alone need not bear.
fn movable(tier: &BlockTier, alone: bool) -> Result<Arc<dyn MemoryTier>, Error> {
    if !alone && !tier.is_movable() {
        return Err(Error::InvalidConfig {
            field: "allocator",
            value: tier.storage_type().to_string(),
            reason: "the host does not reach it; give the tier its memory with memory()",
        });
    }
    tier.memory()
}
