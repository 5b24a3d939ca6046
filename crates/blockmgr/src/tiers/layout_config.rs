//! How one tier keeps its blocks.

use std::fmt;

use core_alloc::{DynAllocator, Storage, StorageAllocator};

use crate::layout::{AxisOrder, LayoutType};
use crate::{BlockPool, BlockPoolBuilder, Error};

/// One tier: how many blocks, how they lie, where the memory comes from.
pub struct KvManagerLayoutConfig {
    pub(super) num_blocks: usize,
    pub(super) layout_type: LayoutType,
    pub(super) order: AxisOrder,
    pub(super) alignment: usize,
    pub(super) allocator: Box<dyn DynAllocator>,
    pub(super) pool: BlockPoolBuilder,
}

impl KvManagerLayoutConfig {
    /// A configuration to be filled in.
    pub fn builder() -> KvManagerLayoutConfigBuilder {
        KvManagerLayoutConfigBuilder::default()
    }
}

impl fmt::Debug for KvManagerLayoutConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvManagerLayoutConfig")
            .field("num_blocks", &self.num_blocks)
            .field("layout_type", &self.layout_type)
            .field("storage_type", &self.allocator.dyn_storage_type())
            .finish_non_exhaustive()
    }
}

/// Collects a [`KvManagerLayoutConfig`].
#[derive(Default)]
pub struct KvManagerLayoutConfigBuilder {
    num_blocks: usize,
    layout_type: LayoutType,
    order: AxisOrder,
    alignment: Option<usize>,
    allocator: Option<Box<dyn DynAllocator>>,
    pool: Option<BlockPoolBuilder>,
}

impl KvManagerLayoutConfigBuilder {
    /// Blocks of the tier; required.
    pub fn num_blocks(mut self, num_blocks: usize) -> Self {
        self.num_blocks = num_blocks;
        self
    }

    /// How blocks and layers are divided among regions of memory; fully contiguous by default.
    pub fn layout_type(mut self, layout_type: LayoutType) -> Self {
        self.layout_type = layout_type;
        self
    }

    /// The order of the axes within a block; [`AxisOrder::NHD`] by default.
    pub fn order(mut self, order: AxisOrder) -> Self {
        self.order = order;
        self
    }

    /// What the address of each block is a multiple of; a power of two that the allocator can keep, 1 by default.
    pub fn alignment(mut self, alignment: usize) -> Self {
        self.alignment = Some(alignment);
        self
    }

    /// Where the memory comes from; required.
    pub fn allocator<S: Storage, A: StorageAllocator<S> + 'static>(self, allocator: A) -> Self {
        self.dyn_allocator(allocator.erase())
    }

    /// The same, of a type that is not known.
    pub fn dyn_allocator(mut self, allocator: Box<dyn DynAllocator>) -> Self {
        self.allocator = Some(allocator);
        self
    }

    /// The tier's pool: policy, shards, duplicates, who is told. Its size and block size are set here.
    pub fn pool(mut self, pool: BlockPoolBuilder) -> Self {
        self.pool = Some(pool);
        self
    }

    /// The tier's configuration.
    ///
    /// # Errors
    /// [`Error::MissingConfig`] and [`Error::InvalidConfig`] name the field. What depends on the model is checked by
    /// [`KvBlockManager::new`](super::KvBlockManager::new).
    pub fn build(self) -> Result<KvManagerLayoutConfig, Error> {
        if self.num_blocks == 0 {
            return Err(Error::MissingConfig {
                field: "num_blocks",
            });
        }
        let allocator = self
            .allocator
            .ok_or(Error::MissingConfig { field: "allocator" })?;
        let alignment = self.alignment.unwrap_or(1);
        let kept = allocator.dyn_alignment_bytes();
        if !alignment.is_power_of_two() || !kept.is_multiple_of(alignment) {
            return Err(Error::InvalidConfig {
                field: "alignment",
                value: alignment.to_string(),
                reason: "it is a power of two, and the allocator's alignment is a multiple of it",
            });
        }
        Ok(KvManagerLayoutConfig {
            num_blocks: self.num_blocks,
            layout_type: self.layout_type,
            order: self.order,
            alignment,
            allocator,
            pool: self.pool.unwrap_or_else(BlockPool::builder),
        })
    }
}

impl fmt::Debug for KvManagerLayoutConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvManagerLayoutConfigBuilder")
            .field("num_blocks", &self.num_blocks)
            .field("layout_type", &self.layout_type)
            .finish_non_exhaustive()
    }
}
