//! Blocks of any layout as slots.

use std::sync::Arc;

use core_alloc::StorageType;
use core_view::BufferMut;
use core_view::contract::{
    ContractError, ErrorKind, Failure, MemoryTier, SlotCopy, SlotId, SlotRead, SlotTable,
    SlotWrite, Transfer,
};

use super::regions::Regions;
use crate::Error;

/// A tier of slots whose blocks lie as its layout has them, and are read and written in canonical order, so that tiers of
/// different layouts exchange them. Copies are done on the calling thread.
#[derive(Debug)]
pub(super) struct LayoutMemory {
    regions: Arc<Regions>,
    table: SlotTable,
}

impl LayoutMemory {
    pub(super) fn new(regions: Arc<Regions>) -> Result<Self, Error> {
        let layout = regions.layout();
        let count = u32::try_from(layout.num_blocks()).map_err(|_| Error::InvalidConfig {
            field: "num_blocks",
            value: layout.num_blocks().to_string(),
            reason: "a tier has at most 4294967295",
        })?;
        Ok(Self {
            table: SlotTable::new(count, layout.block_bytes()),
            regions,
        })
    }

    fn read_part(&self, slot: SlotId, at: usize, target: &mut [u8]) -> Result<(), Error> {
        if target.len() == self.slot_bytes() {
            return self.regions.read(slot.0 as usize, target);
        }
        let block = self.read_whole(slot)?;
        let part = block.get(at..at + target.len()).unwrap_or_default();
        target.copy_from_slice(part);
        Ok(())
    }

    fn write_part(&self, slot: SlotId, at: usize, source: &[u8]) -> Result<(), Error> {
        if source.len() == self.slot_bytes() {
            return self.regions.write(slot.0 as usize, source);
        }
        let mut block = self.read_whole(slot)?;
        if let Some(part) = block.get_mut(at..at + source.len()) {
            part.copy_from_slice(source);
        }
        self.regions.write(slot.0 as usize, &block)
    }

    fn read_whole(&self, slot: SlotId) -> Result<Vec<u8>, Error> {
        let mut block = vec![0; self.slot_bytes()];
        self.regions.read(slot.0 as usize, &mut block)?;
        Ok(block)
    }

    fn write_all(&self, writes: &[SlotWrite]) -> Result<(), ContractError> {
        let _claims = self.table.claim_writes(writes)?;
        for write in writes {
            let written = self.write_part(write.slot, write.offset_bytes, &write.source);
            written.map_err(|error| failed("write slots", &error))?;
        }
        Ok(())
    }

    fn read_all(&self, reads: &mut [SlotRead]) -> Result<(), ContractError> {
        let _claims = self.table.claim_reads(reads)?;
        for read in reads {
            let done = self.read_part(read.slot, read.offset_bytes, &mut read.target);
            done.map_err(|error| failed("read slots", &error))?;
        }
        Ok(())
    }

    fn copy_all(&self, copies: &[SlotCopy]) -> Result<(), ContractError> {
        let _claims = self.table.claim_copies(copies)?;
        for copy in copies {
            let mut bytes = vec![0; copy.len_bytes];
            self.read_part(copy.source, copy.source_offset_bytes, &mut bytes)
                .and_then(|()| self.write_part(copy.target, copy.target_offset_bytes, &bytes))
                .map_err(|error| failed("copy slots", &error))?;
        }
        Ok(())
    }
}

fn failed(operation: &'static str, error: &Error) -> ContractError {
    ContractError::new(ErrorKind::Unsupported, operation).detail(error.to_string())
}

fn ended(outcome: Result<(), ContractError>, buffers: Vec<BufferMut>) -> Transfer<Vec<BufferMut>> {
    Transfer::ready(match outcome {
        Ok(()) => Ok(buffers),
        Err(error) => Err(Failure::new(error, buffers)),
    })
}

impl MemoryTier for LayoutMemory {
    fn storage_type(&self) -> StorageType {
        self.regions.storage_type()
    }

    fn slot_count(&self) -> u32 {
        self.table.slot_count()
    }

    fn slot_bytes(&self) -> usize {
        self.table.slot_bytes()
    }

    fn slot_addr(&self, slot: SlotId) -> Result<u64, ContractError> {
        const OPERATION: &str = "find slot";
        self.table.check_slot(OPERATION, slot)?;
        let address = self.regions.address(slot.0 as usize);
        address.map_err(|error| failed(OPERATION, &error))
    }

    /// A slot need not lie together, nor in canonical order.
    fn lease(&self, slot: SlotId) -> Result<BufferMut, ContractError> {
        const OPERATION: &str = "lease slot";
        self.table.check_slot(OPERATION, slot)?;
        Err(ContractError::new(ErrorKind::Unsupported, OPERATION)
            .detail("blocks lie as their layout has them; read and write them"))
    }

    fn write(&self, writes: Vec<SlotWrite>) -> Transfer<Vec<BufferMut>> {
        let outcome = self.write_all(&writes);
        ended(
            outcome,
            writes.into_iter().map(|write| write.source).collect(),
        )
    }

    fn read(&self, mut reads: Vec<SlotRead>) -> Transfer<Vec<BufferMut>> {
        let outcome = self.read_all(&mut reads);
        ended(outcome, reads.into_iter().map(|read| read.target).collect())
    }

    fn copy(&self, copies: Vec<SlotCopy>) -> Transfer<()> {
        Transfer::ready(self.copy_all(&copies).map_err(Failure::from))
    }
}
