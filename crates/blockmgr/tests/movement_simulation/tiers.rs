//! The tiers of one life.

use std::sync::Arc;

use blockmgr::BlockPool;
use blockmgr::layout::{Layout, LayoutConfig};
use blockmgr::policy::PolicyKind;
use core_alloc::{StorageAllocator, StorageType, SystemAllocator};
use core_view::BufferMut;
use core_view::contract::mock::{FaultCounts, MockBlockStore, MockTier};
use core_view::contract::{
    ContractError, ErrorKind, HostTier, MemoryTier, SlotCopy, SlotId, SlotRead, SlotWrite, Transfer,
};

use crate::Counts;

/// Blocks of so many layers, all of 96 bytes.
pub(crate) fn layout(layers: usize) -> Layout {
    let layout = LayoutConfig::builder()
        .num_blocks(1)
        .num_layers(layers)
        .outer_dim(1)
        .page_size(1);
    let layout = layout.inner_dim(96 / layers).dtype_bytes(1);
    layout.build().unwrap()
}

pub(crate) fn pool(blocks: usize) -> BlockPool {
    BlockPool::builder()
        .capacity_blocks(blocks)
        .policy(PolicyKind::Lru)
        .build()
        .unwrap()
}

pub(crate) fn host(blocks: usize) -> HostTier {
    let block_bytes = layout(1).block_bytes();
    let storage = SystemAllocator.allocate(blocks * block_bytes).unwrap();
    HostTier::new(storage, block_bytes).unwrap()
}

/// Memory out of reach of the host: what goes there is staged.
#[derive(Debug)]
pub(crate) struct Remote(pub(crate) HostTier);

impl MemoryTier for Remote {
    fn storage_type(&self) -> StorageType {
        StorageType::Device(0)
    }

    fn slot_count(&self) -> u32 {
        self.0.slot_count()
    }

    fn slot_bytes(&self) -> usize {
        self.0.slot_bytes()
    }

    fn slot_addr(&self, slot: SlotId) -> Result<u64, ContractError> {
        self.0.slot_addr(slot)
    }

    fn lease(&self, _slot: SlotId) -> Result<BufferMut, ContractError> {
        Err(ContractError::new(ErrorKind::Unsupported, "lease slot"))
    }

    fn write(&self, writes: Vec<SlotWrite>) -> Transfer<Vec<BufferMut>> {
        self.0.write(writes)
    }

    fn read(&self, reads: Vec<SlotRead>) -> Transfer<Vec<BufferMut>> {
        self.0.read(reads)
    }

    fn copy(&self, copies: Vec<SlotCopy>) -> Transfer<()> {
        self.0.copy(copies)
    }
}

/// Those of a life that inject faults.
#[derive(Debug)]
pub(crate) struct Faulty {
    pub(crate) store: Arc<MockBlockStore>,
    pub(crate) host: Option<Arc<MockTier<HostTier>>>,
}

impl Faulty {
    /// Adds what they injected.
    pub(crate) fn tell(&self, counts: &mut Counts) {
        let host = self.host.as_ref().map(|tier| tier.fault_counts());
        for injected in [Some(self.store.fault_counts()), host]
            .into_iter()
            .flatten()
        {
            let FaultCounts {
                refused,
                torn,
                flipped,
                delayed,
                hung,
                abandoned,
                full,
            } = injected;
            for (kind, count) in [
                ("failed", refused),
                ("torn", torn),
                ("flipped when stored", flipped),
                ("delayed", delayed),
                ("hung past the deadline", hung),
                ("abandoned", abandoned),
                ("full", full),
            ] {
                *counts.entry(format!("injected: {kind}")).or_default() += count;
            }
        }
    }
}
