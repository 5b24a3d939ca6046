//! One tier in memory: blocks and the storage that they lie in.

use std::fmt;
use std::sync::Arc;

use core_alloc::StorageType;
use core_view::BufferMut;
use core_view::contract::{ContractError, Failure, MemoryTier, SlotRead, SlotWrite};

use super::layout_config::Place;
use super::layout_memory::LayoutMemory;
use super::regions::Regions;
use super::{KvManagerLayoutConfig, KvManagerModelConfig};
use crate::layout::Layout;
use crate::{BlockPool, Error, ImmutableBlock, MutableBlock};

/// A pool of blocks, and the storage that holds their content.
pub struct BlockTier {
    name: &'static str,
    pool: BlockPool,
    content: Content,
}

/// Where content lies.
enum Content {
    Regions(Arc<Regions>),
    /// Slots in canonical order.
    Slots(Arc<dyn MemoryTier>, Layout),
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
        let content = match config.place {
            Place::Allocator(allocator) => Content::Regions(Arc::new(Regions::allocate(
                name,
                layout,
                &model.canonical,
                allocator.as_ref(),
            )?)),
            Place::Memory(memory) => {
                let layout = model.layout().num_blocks(config.num_blocks).build()?;
                check_slots(memory.as_ref(), &layout)?;
                Content::Slots(memory, layout)
            }
            Place::Store(_) => {
                return Err(Error::InvalidConfig {
                    field: "store",
                    value: name.to_owned(),
                    reason: "only the disk tier is a store; give this one an allocator or memory",
                });
            }
        };
        Ok(Self {
            name,
            pool,
            content,
        })
    }

    /// The blocks.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// Where their content lies.
    pub fn layout(&self) -> &Layout {
        match &self.content {
            Content::Regions(regions) => regions.layout(),
            Content::Slots(_, layout) => layout,
        }
    }

    /// The kind of the storage.
    pub fn storage_type(&self) -> StorageType {
        match &self.content {
            Content::Regions(regions) => regions.storage_type(),
            Content::Slots(memory, _) => memory.storage_type(),
        }
    }

    /// Whether blocks can be moved to and from it.
    pub(super) fn is_movable(&self) -> bool {
        match &self.content {
            Content::Regions(regions) => regions.is_accessible(),
            Content::Slots(..) => true,
        }
    }

    /// The tier as slots in canonical order.
    pub(super) fn memory(&self) -> Result<Arc<dyn MemoryTier>, Error> {
        Ok(match &self.content {
            Content::Regions(regions) => Arc::new(LayoutMemory::new(Arc::clone(regions))?),
            Content::Slots(memory, _) => Arc::clone(memory),
        })
    }

    /// Fills a block. `bytes` are all of it: layer by layer, plane by plane, token by token, head by head, without
    /// padding.
    ///
    /// # Errors
    /// [`Error::ForeignBlock`] for a block of another pool, [`Error::LayoutMismatch`] for another number of bytes,
    /// [`Error::Storage`] where the host can't reach the storage, [`Error::Tier`] if the tier fails.
    pub fn write_block(&self, block: &mut MutableBlock, bytes: &[u8]) -> Result<(), Error> {
        if !block.is_of(&self.pool) {
            return Err(Error::ForeignBlock);
        }
        let slot = block.slot();
        match &self.content {
            Content::Regions(regions) => regions.write(slot.0 as usize, bytes),
            Content::Slots(memory, layout) => {
                check_len(layout, bytes.len())?;
                let write = SlotWrite {
                    slot,
                    offset_bytes: 0,
                    source: BufferMut::from_vec(bytes.to_vec()),
                };
                let written = memory.write(vec![write]).wait();
                written.map_err(|failure| self.failed("write a block", failure))?;
                Ok(())
            }
        }
    }

    /// Reads a block, in the order in which [`BlockTier::write_block`] takes it.
    ///
    /// # Errors
    /// As [`BlockTier::write_block`].
    pub fn read_block(&self, block: &ImmutableBlock, bytes: &mut [u8]) -> Result<(), Error> {
        if !block.is_of(&self.pool) {
            return Err(Error::ForeignBlock);
        }
        let slot = block.slot();
        match &self.content {
            Content::Regions(regions) => regions.read(slot.0 as usize, bytes),
            Content::Slots(memory, layout) => {
                check_len(layout, bytes.len())?;
                let read = SlotRead {
                    slot,
                    offset_bytes: 0,
                    target: BufferMut::from_vec(vec![0; bytes.len()]),
                };
                let read = memory.read(vec![read]).wait();
                let read = read.map_err(|failure| self.failed("read a block", failure))?;
                for buffer in read {
                    bytes.copy_from_slice(&buffer);
                }
                Ok(())
            }
        }
    }

    fn failed(&self, operation: &'static str, failure: Failure) -> Error {
        Error::Tier {
            tier: self.name,
            operation,
            source: ContractError::from(failure),
        }
    }
}

fn check_len(layout: &Layout, found: usize) -> Result<(), Error> {
    let expected = layout.block_bytes();
    if found == expected {
        return Ok(());
    }
    Err(Error::LayoutMismatch {
        field: "block_bytes",
        expected,
        found,
    })
}

fn check_slots(memory: &dyn MemoryTier, layout: &Layout) -> Result<(), Error> {
    let invalid = |field, value: usize, reason| Error::InvalidConfig {
        field,
        value: value.to_string(),
        reason,
    };
    if memory.slot_bytes() != layout.block_bytes() {
        let reason = "a slot of the tier's memory is as long as a block of the model";
        return Err(invalid("slot_bytes", memory.slot_bytes(), reason));
    }
    if (memory.slot_count() as usize) < layout.num_blocks() {
        let reason = "the tier's memory has fewer slots";
        return Err(invalid("num_blocks", layout.num_blocks(), reason));
    }
    Ok(())
}

impl fmt::Debug for BlockTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockTier")
            .field("name", &self.name)
            .field("storage_type", &self.storage_type())
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}
