//! The tiers of one life.

use std::sync::Arc;

use blockmgr::BlockPool;
use blockmgr::layout::{Layout, LayoutConfig};
use blockmgr::policy::PolicyKind;
use core_alloc::{StorageAllocator, SystemAllocator};
use core_view::contract::HostTier;
use core_view::contract::mock::{FaultCounts, MockBlockStore, MockTier};

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
