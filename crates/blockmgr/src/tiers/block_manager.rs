//! The tiers of one process.

use super::{BlockTier, KvBlockManagerConfig};
use crate::Error;

/// The tiers of one process that serves one model.
///
/// ```
/// use blockmgr::tiers::{
///     KvBlockManager, KvBlockManagerConfig, KvManagerLayoutConfig, KvManagerModelConfig,
///     KvManagerRuntimeConfig,
/// };
/// use blockmgr::SequenceHash;
/// use blockmgr::layout::LayoutType;
/// use core_alloc::SystemAllocator;
///
/// let model = KvManagerModelConfig::builder()
///     .num_layers(2)
///     .outer_dim(2)
///     .page_size(16)
///     .inner_dim(64)
///     .build()?;
/// let host_layout = KvManagerLayoutConfig::builder()
///     .num_blocks(32)
///     .layout_type(LayoutType::Paged)
///     .allocator(SystemAllocator)
///     .build()?;
/// let config = KvBlockManagerConfig::builder()
///     .runtime(KvManagerRuntimeConfig::new(1))
///     .model(model)
///     .host_layout(host_layout)
///     .build()?;
/// let manager = KvBlockManager::new(config)?;
///
/// let host = manager.host().ok_or("configured above")?;
/// let mut block = host.pool().allocate_blocks(1)?.into_iter().next().ok_or("one")?;
/// let bytes = vec![7; host.layout().block_bytes()];
/// host.write_block(&mut block, &bytes)?;
/// let block = host.pool().register_block(block.complete_as(SequenceHash::new(0xfeed, 0)))?;
/// let mut read = vec![0; bytes.len()];
/// host.read_block(&block, &mut read)?;
/// assert_eq!(read, bytes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct KvBlockManager {
    worker_id: u64,
    device: Option<BlockTier>,
    host: Option<BlockTier>,
    disk: Option<BlockTier>,
}

impl KvBlockManager {
    /// Allocates the memory of all tiers and makes their pools.
    ///
    /// # Errors
    /// [`Error::Storage`] names the tier whose memory can't be had; [`Error::InvalidConfig`] and
    /// [`Error::SizeOverflow`] what doesn't go together.
    pub fn new(config: KvBlockManagerConfig) -> Result<Self, Error> {
        let model = config.model;
        let tier = |name, layout: Option<_>| {
            layout
                .map(|layout| BlockTier::new(name, &model, layout))
                .transpose()
        };
        Ok(Self {
            worker_id: config.runtime.worker_id,
            device: tier("device", config.device)?,
            host: tier("host", config.host)?,
            disk: tier("disk", config.disk)?,
        })
    }

    /// The process.
    pub fn worker_id(&self) -> u64 {
        self.worker_id
    }

    /// The tier that the engine computes in.
    pub fn device(&self) -> Option<&BlockTier> {
        self.device.as_ref()
    }

    /// The tier in host memory.
    pub fn host(&self) -> Option<&BlockTier> {
        self.host.as_ref()
    }

    /// The tier on disk.
    pub fn disk(&self) -> Option<&BlockTier> {
        self.disk.as_ref()
    }
}
