//! Tiers made of what this machine has.

use std::path::Path;
use std::sync::Arc;

use blockmgr::layout::{Layout, LayoutConfig};
use blockmgr::movement::{MoveSink, TieredCache};
use blockmgr::policy::PolicyKind;
use blockmgr::{BlockPool, BlockPoolBuilder, Salt};
use core_alloc::{StorageAllocator, SystemAllocator};
use core_view::contract::{BlockStore, HostTier, MemoryTier};
use tier_nvme::{BlockSlab, SlabConfig, SlabConfigBuilder};

use crate::error::CliError;

/// Of a segment of the disk tier.
const SEGMENT_BYTES: u64 = 256 << 20;
/// Places beyond the tier's capacity: a batch comes in while the one before leaves.
const SPARE_BLOCKS: u64 = 64;

/// What a pool needs to know of each of its blocks, about.
const POOL_BYTES_PER_BLOCK: usize = 128;

/// How large the tiers are, and what is in them.
#[derive(Debug, Clone)]
pub(crate) struct Sizes {
    /// Blocks of G1, G2 and G3; the last two may be 0.
    pub(crate) blocks: [usize; 3],
    pub(crate) block_bytes: usize,
    pub(crate) policy: PolicyKind,
    /// The name that blocks on disk are salted with.
    pub(crate) model: String,
}

/// Tiers in system memory and on disk.
pub(crate) struct Tiers {
    pub(crate) cache: TieredCache,
    slab: Option<Arc<BlockSlab>>,
}

impl Tiers {
    /// Makes the tiers in memory, and opens the one on disk in `folder`, or makes it.
    pub(crate) fn open(
        sizes: &Sizes,
        folder: Option<&Path>,
        sink: Option<Arc<dyn MoveSink>>,
    ) -> Result<Self, CliError> {
        let [g1, g2, g3] = sizes.blocks;
        let layout = layout(sizes.block_bytes)?;
        check_pools(sizes)?;
        let (memory, pool) = memory(sizes, g1)?;
        let mut builder =
            TieredCache::builder(&layout, Salt::new(&sizes.model)).device(memory, pool);
        if g2 > 0 {
            let (memory, pool) = self::memory(sizes, g2)?;
            builder = builder.host(memory, pool);
        }
        let mut slab = None;
        if let (true, Some(folder)) = (g3 > 0, folder) {
            let opened = Arc::new(open_slab(sizes, folder, g3 as u64)?);
            slab = Some(Arc::clone(&opened));
            builder = builder.disk(opened as Arc<dyn BlockStore>, pool_of(sizes, g3));
        }
        if let Some(sink) = sink {
            builder = builder.move_sink(sink);
        }
        let cache = builder.build()?;
        Ok(Self { cache, slab })
    }

    /// What the tier on disk found wrong with itself when it was opened.
    pub(crate) fn damage(&self) -> impl Iterator<Item = String> + '_ {
        let slab = self.slab.iter();
        let damage = slab.flat_map(|slab| &slab.recovery_report().damage);
        damage.map(|it| format!("{} {}: {}", it.structure, it.location, it.reason))
    }

    /// Ends the use of the tier on disk in order.
    pub(crate) fn close(self) -> Result<(), CliError> {
        if let Some(slab) = self.slab {
            slab.close()?;
        }
        Ok(())
    }
}

/// Blocks whose inside is nobody's business.
fn layout(block_bytes: usize) -> Result<Layout, CliError> {
    let layout = LayoutConfig::builder()
        .num_blocks(1)
        .num_layers(1)
        .outer_dim(1)
        .page_size(1)
        .inner_dim(block_bytes)
        .dtype_bytes(1);
    Ok(layout.build()?)
}

fn pool_of(sizes: &Sizes, blocks: usize) -> BlockPoolBuilder {
    BlockPool::builder()
        .capacity_blocks(blocks)
        .policy(sizes.policy)
}

/// Refuses more blocks than this machine can keep count of.
fn check_pools(sizes: &Sizes) -> Result<(), CliError> {
    let blocks = sizes
        .blocks
        .iter()
        .fold(0, |sum: usize, &more| sum.saturating_add(more));
    let mut books: Vec<[u8; POOL_BYTES_PER_BLOCK]> = Vec::new();
    books
        .try_reserve_exact(blocks)
        .map_err(|_| CliError::Memory {
            requested_bytes: blocks.saturating_mul(POOL_BYTES_PER_BLOCK),
        })
}

fn memory(sizes: &Sizes, blocks: usize) -> Result<(Arc<dyn MemoryTier>, BlockPool), CliError> {
    let pool = pool_of(sizes, blocks).build()?;
    let requested_bytes = blocks.saturating_mul(sizes.block_bytes);
    let refused = |_| CliError::Memory { requested_bytes };
    let storage = SystemAllocator.allocate(requested_bytes).map_err(refused)?;
    let tier = HostTier::new(storage, sizes.block_bytes);
    let tier = tier.map_err(|_| CliError::Memory { requested_bytes })?;
    Ok((Arc::new(tier), pool))
}

/// Opens the slab in `folder` with room for so many blocks and a batch, or makes it.
fn open_slab(sizes: &Sizes, folder: &Path, blocks: u64) -> Result<BlockSlab, CliError> {
    let slab = BlockSlab::open(folder, slab_config(sizes, blocks)?)?;
    let stats = slab.stats();
    let wanted = blocks.saturating_add(SPARE_BLOCKS);
    if stats.slots_max >= wanted {
        return Ok(slab);
    }
    // It was made for another number of blocks, and has whole segments of the size of then.
    let segments = wanted.div_ceil(stats.segment_slots.max(1));
    slab.close()?;
    let capacity_bytes = segments.saturating_mul(stats.segment_bytes);
    let config = slab_builder(sizes).capacity_bytes(capacity_bytes);
    Ok(BlockSlab::open(folder, config.build()?)?)
}

fn slab_builder(sizes: &Sizes) -> SlabConfigBuilder {
    SlabConfig::builder()
        .block_bytes(sizes.block_bytes as u64)
        .segment_bytes(SEGMENT_BYTES)
}

fn slab_config(sizes: &Sizes, blocks: u64) -> Result<SlabConfig, CliError> {
    let slot_bytes = (sizes.block_bytes as u64).next_multiple_of(4096);
    let payload_bytes = blocks
        .saturating_add(SPARE_BLOCKS)
        .saturating_mul(slot_bytes);
    // Each segment has a log, and may end in less than a block.
    let segments = payload_bytes / SEGMENT_BYTES + 2;
    let overhead_bytes = segments.saturating_mul(slot_bytes + (2 << 20));
    let config = slab_builder(sizes).capacity_bytes(payload_bytes.saturating_add(overhead_bytes));
    Ok(config.build()?)
}
