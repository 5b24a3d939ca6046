//! How one tier keeps its blocks.

use std::fmt;
use std::sync::Arc;

use core_alloc::{DynAllocator, Storage, StorageAllocator};
use core_view::contract::{BlockStore, MemoryTier};

use crate::layout::{AxisOrder, LayoutType};
use crate::{BlockPool, BlockPoolBuilder, Error};

/// One tier: how many blocks, how they lie, where the memory comes from.
pub struct KvManagerLayoutConfig {
    pub(super) num_blocks: usize,
    pub(super) layout_type: LayoutType,
    pub(super) order: AxisOrder,
    pub(super) alignment: usize,
    pub(super) place: Place,
    pub(super) pool: BlockPoolBuilder,
}

/// What a tier's blocks are kept in.
pub(super) enum Place {
    Allocator(Box<dyn DynAllocator>),
    Memory(Arc<dyn MemoryTier>),
    Store(Arc<dyn BlockStore>),
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allocator(allocator) => allocator.dyn_storage_type().fmt(f),
            Self::Memory(memory) => memory.fmt(f),
            Self::Store(store) => store.fmt(f),
        }
    }
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
            .field("place", &self.place)
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
    place: Option<Place>,
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

    /// Where the memory comes from. A tier has an allocator, [`memory`](Self::memory) or a [`store`](Self::store); the last
    /// that is set counts.
    pub fn allocator<S: Storage, A: StorageAllocator<S> + 'static>(self, allocator: A) -> Self {
        self.dyn_allocator(allocator.erase())
    }

    /// The same, of a type that is not known.
    pub fn dyn_allocator(mut self, allocator: Box<dyn DynAllocator>) -> Self {
        self.place = Some(Place::Allocator(allocator));
        self
    }

    /// The tier's memory itself, with a slot for each block, which has the block in canonical order: layer by layer, plane by
    /// plane, token by token, head by head. For memory that the host does not reach, as a device's.
    pub fn memory(mut self, memory: Arc<dyn MemoryTier>) -> Self {
        self.place = Some(Place::Memory(memory));
        self
    }

    /// What a disk tier is kept in: each block with a header, checked when it comes back, and there again after a
    /// restart if the store is durable. Of the layout only the number of blocks matters then.
    pub fn store(mut self, store: Arc<dyn BlockStore>) -> Self {
        self.place = Some(Place::Store(store));
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
        let place = self
            .place
            .ok_or(Error::MissingConfig { field: "allocator" })?;
        let alignment = self.alignment.unwrap_or(1);
        let kept = match &place {
            Place::Allocator(allocator) => allocator.dyn_alignment_bytes(),
            // It is what it is.
            Place::Memory(_) | Place::Store(_) => alignment,
        };
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
            place,
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
