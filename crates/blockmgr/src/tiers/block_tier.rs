//! One tier: blocks and the storage that they lie in.

use std::fmt;
use std::sync::{PoisonError, RwLock};

use core_alloc::{DynAllocator, DynStorage, Storage, StorageAllocator, StorageError, StorageType};

use super::{KvManagerLayoutConfig, KvManagerModelConfig};
use crate::layout::{ConversionPlan, Layout};
use crate::{BlockPool, Error, ImmutableBlock, MutableBlock};

/// A pool of blocks, and the storage that holds their content.
pub struct BlockTier {
    name: &'static str,
    pool: BlockPool,
    layout: Layout,
    canonical: Layout,
    storage_type: StorageType,
    /// In order of the layout's regions.
    regions: Vec<RwLock<DynStorage>>,
}

impl BlockTier {
    pub(super) fn new(
        name: &'static str,
        model: &KvManagerModelConfig,
        config: KvManagerLayoutConfig,
    ) -> Result<Self, Error> {
        let layout = model
            .layout()
            .num_blocks(config.num_blocks)
            .layout_type(config.layout_type)
            .order(config.order)
            .alignment(config.alignment)
            .build()?;
        let pool = config
            .pool
            .capacity_blocks(config.num_blocks)
            .block_tokens(layout.page_size())
            .build()?;
        let allocator: &dyn DynAllocator = config.allocator.as_ref();
        let regions = layout.regions().iter().map(|region| {
            let storage = StorageAllocator::allocate(allocator, region.len_bytes);
            let storage = storage.map_err(|source| Error::Storage { tier: name, source })?;
            Ok(RwLock::new(storage))
        });
        Ok(Self {
            name,
            pool,
            storage_type: allocator.dyn_storage_type(),
            regions: regions.collect::<Result<_, Error>>()?,
            canonical: model.canonical.clone(),
            layout,
        })
    }

    /// The blocks.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// Where their content lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The kind of the storage.
    pub fn storage_type(&self) -> StorageType {
        self.storage_type
    }

    /// Fills a block. `bytes` are all of it: layer by layer, plane by plane, token by token, head by head, without
    /// padding.
    ///
    /// # Errors
    /// [`Error::ForeignBlock`] for a block of another pool, [`Error::LayoutMismatch`] for another number of bytes,
    /// [`Error::Storage`] where the host can't reach the storage.
    pub fn write_block(&self, block: &mut MutableBlock, bytes: &[u8]) -> Result<(), Error> {
        if !block.is_of(&self.pool) {
            return Err(Error::ForeignBlock);
        }
        self.check_len(bytes.len())?;
        let slot = block.slot().0 as usize;
        let plan = ConversionPlan::new(&self.canonical, 0, &self.layout, slot)?;
        for runs in plan
            .runs()
            .chunk_by(|one, next| one.target_region == next.target_region)
        {
            let Some(region) = runs
                .first()
                .and_then(|run| self.regions.get(run.target_region))
            else {
                continue;
            };
            let mut region = region.write().unwrap_or_else(PoisonError::into_inner);
            let host = region.as_host_mut().ok_or_else(|| self.not_accessible())?;
            let memory = host.as_mut_slice();
            for run in runs {
                let source = run.source_offset_bytes..run.source_offset_bytes + run.len_bytes;
                let target = run.target_offset_bytes..run.target_offset_bytes + run.len_bytes;
                memory[target].copy_from_slice(&bytes[source]);
            }
        }
        Ok(())
    }

    /// Reads a block, in the order in which [`BlockTier::write_block`] takes it.
    ///
    /// # Errors
    /// As [`BlockTier::write_block`].
    pub fn read_block(&self, block: &ImmutableBlock, bytes: &mut [u8]) -> Result<(), Error> {
        if !block.is_of(&self.pool) {
            return Err(Error::ForeignBlock);
        }
        self.check_len(bytes.len())?;
        let slot = block.slot().0 as usize;
        let plan = ConversionPlan::new(&self.layout, slot, &self.canonical, 0)?;
        for runs in plan
            .runs()
            .chunk_by(|one, next| one.source_region == next.source_region)
        {
            let Some(region) = runs
                .first()
                .and_then(|run| self.regions.get(run.source_region))
            else {
                continue;
            };
            let region = region.read().unwrap_or_else(PoisonError::into_inner);
            let host = region.as_host().ok_or_else(|| self.not_accessible())?;
            let memory = host.as_slice();
            for run in runs {
                let source = run.source_offset_bytes..run.source_offset_bytes + run.len_bytes;
                let target = run.target_offset_bytes..run.target_offset_bytes + run.len_bytes;
                bytes[target].copy_from_slice(&memory[source]);
            }
        }
        Ok(())
    }

    fn check_len(&self, found: usize) -> Result<(), Error> {
        let expected = self.layout.block_bytes();
        if found == expected {
            return Ok(());
        }
        Err(Error::LayoutMismatch {
            field: "block_bytes",
            expected,
            found,
        })
    }

    fn not_accessible(&self) -> Error {
        Error::Storage {
            tier: self.name,
            source: StorageError::NotAccessible {
                kind: self.storage_type,
                how: "by the host; move the block by a transfer of its tier",
            },
        }
    }
}

impl fmt::Debug for BlockTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockTier")
            .field("name", &self.name)
            .field("storage_type", &self.storage_type)
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}
