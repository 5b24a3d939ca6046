//! The storage of one tier, and the blocks in it.

use std::fmt;
use std::sync::{PoisonError, RwLock};

use core_alloc::{DynAllocator, DynStorage, Storage, StorageAllocator, StorageError, StorageType};

use crate::Error;
use crate::layout::{ConversionPlan, Layout};

/// Regions that an allocator gave for a layout. Blocks go in and come out in canonical order: layer by layer, plane by
/// plane, token by token, head by head, without padding.
pub(super) struct Regions {
    tier: &'static str,
    layout: Layout,
    canonical: Layout,
    storage_type: StorageType,
    /// In order of the layout's regions.
    regions: Vec<RwLock<DynStorage>>,
}

impl Regions {
    pub(super) fn allocate(
        tier: &'static str,
        layout: Layout,
        canonical: &Layout,
        allocator: &(dyn DynAllocator + 'static),
    ) -> Result<Self, Error> {
        let regions = layout.regions().iter().map(|region| {
            let storage = StorageAllocator::allocate(allocator, region.len_bytes);
            let storage = storage.map_err(|source| Error::Storage { tier, source })?;
            Ok(RwLock::new(storage))
        });
        Ok(Self {
            tier,
            storage_type: allocator.dyn_storage_type(),
            regions: regions.collect::<Result<_, Error>>()?,
            canonical: canonical.clone(),
            layout,
        })
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn storage_type(&self) -> StorageType {
        self.storage_type
    }

    /// Whether the host reaches all of it.
    pub(super) fn is_accessible(&self) -> bool {
        self.regions.iter().all(|region| {
            let region = region.read().unwrap_or_else(PoisonError::into_inner);
            region.as_host().is_some()
        })
    }

    /// Where a block begins, if its storage has addresses.
    pub(super) fn address(&self, slot: usize) -> Result<u64, Error> {
        let first = self.layout.layer(slot, 0)?;
        let region = self.regions.get(first.region);
        let region = region.ok_or_else(|| self.not_accessible())?;
        let region = region.read().unwrap_or_else(PoisonError::into_inner);
        let storage = region.as_addressable();
        let storage = storage.ok_or_else(|| self.not_accessible())?;
        Ok(storage.addr() + first.offset_bytes as u64)
    }

    /// Fills a block.
    pub(super) fn write(&self, slot: usize, bytes: &[u8]) -> Result<(), Error> {
        self.check_len(bytes.len())?;
        let plan = ConversionPlan::new(&self.canonical, 0, &self.layout, slot)?;
        for runs in plan
            .runs()
            .chunk_by(|one, next| one.target_region == next.target_region)
        {
            let region = runs.first();
            let region = region.and_then(|run| self.regions.get(run.target_region));
            let region = region.ok_or_else(|| self.not_accessible())?;
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

    /// Reads a block.
    pub(super) fn read(&self, slot: usize, bytes: &mut [u8]) -> Result<(), Error> {
        self.check_len(bytes.len())?;
        let plan = ConversionPlan::new(&self.layout, slot, &self.canonical, 0)?;
        for runs in plan
            .runs()
            .chunk_by(|one, next| one.source_region == next.source_region)
        {
            let region = runs.first();
            let region = region.and_then(|run| self.regions.get(run.source_region));
            let region = region.ok_or_else(|| self.not_accessible())?;
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
            tier: self.tier,
            source: StorageError::NotAccessible {
                kind: self.storage_type,
                how: "by the host; move the block by a transfer of its tier",
            },
        }
    }
}

impl fmt::Debug for Regions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Regions")
            .field("tier", &self.tier)
            .field("storage_type", &self.storage_type)
            .field("regions", &self.regions.len())
            .finish_non_exhaustive()
    }
}
