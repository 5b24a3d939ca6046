//! The slab as a [`BlockStore`].

use core_view::BufferMut;
use core_view::contract::{
    Block, BlockCapabilities, BlockEntry, BlockGet, BlockKey, BlockMeta, BlockPut, BlockStore,
    BlockUsage, ContractError, Failure, Transfer,
};

use super::BlockSlab;

impl BlockStore for BlockSlab {
    fn capabilities(&self) -> BlockCapabilities {
        let geometry = &self.shared.geometry;
        let slots = self.shared.segments_max * geometry.slots();
        BlockCapabilities {
            durable: self.shared.config.durable(),
            payload_alignment_bytes: self.shared.unit_bytes(),
            payload_bytes_max: geometry.block_bytes as usize,
            capacity_bytes: Some(slots * geometry.block_bytes),
        }
    }

    fn usage(&self) -> BlockUsage {
        self.shared.table.usage()
    }

    fn put(&self, puts: Vec<BlockPut>) -> Transfer<Vec<Result<BufferMut, Failure>>> {
        self.shared.put(puts)
    }

    fn get(&self, gets: Vec<BlockGet>) -> Transfer<Vec<Result<Block, Failure>>> {
        self.shared.get(gets)
    }

    fn get_blocking(&self, gets: Vec<BlockGet>) -> Result<Vec<Result<Block, Failure>>, Failure> {
        self.shared.get_blocking(gets)
    }

    fn contains(&self, keys: &[BlockKey]) -> Result<Vec<bool>, ContractError> {
        self.shared.check_open()?;
        self.shared.check_known(keys.iter().copied())?;
        let contains = |key: &BlockKey| self.shared.table.contains(*key);
        Ok(keys.iter().map(contains).collect())
    }

    fn remove(&self, keys: &[BlockKey]) -> Transfer<Vec<bool>> {
        self.shared.remove(keys)
    }

    fn orders_removals(&self) -> bool {
        // A removal is ready when it comes, a put once its payload is on its way; commits are in this order. A put that
        // finds no slot waits for what is ready.
        true
    }

    fn list(
        &self,
        after: Option<BlockKey>,
        count_max: usize,
    ) -> Result<Vec<BlockEntry>, ContractError> {
        self.shared.check_open()?;
        self.shared.check_all_known()?;
        let page = self.shared.table.page(after, count_max).into_iter();
        page.map(|(key, place)| {
            Ok(BlockEntry {
                key,
                meta: BlockMeta::new(&place.meta)?,
                payload_bytes: u64::from(place.payload_bytes),
            })
        })
        .collect()
    }
}
