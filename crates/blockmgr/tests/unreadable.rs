//! A block that the disk can't read any more leaves, and is stored anew.
#![cfg(all(feature = "trace", not(shuttle)))]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};

use blockmgr::layout::LayoutConfig;
use blockmgr::movement::{DropReason, TierId, TieredCache};
use blockmgr::replay::Replay;
use blockmgr::trace::TraceRequest;
use blockmgr::{BlockPool, RequestOptions, Salt};
use core_alloc::{StorageAllocator, SystemAllocator};
use core_view::BufferMut;
use core_view::contract::mock::{MockBlockStore, MockMedia, Schedule};
use core_view::contract::{
    Block, BlockCapabilities, BlockEntry, BlockGet, BlockKey, BlockPut, BlockStore, BlockUsage,
    ContractError, ErrorKind, Failure, HostTier, Transfer,
};

/// A store whose device fails to read one block, until that is stored anew.
#[derive(Debug)]
struct BadSector {
    store: MockBlockStore,
    bad: Mutex<Option<BlockKey>>,
}

impl BadSector {
    fn break_block(&self, key: Option<BlockKey>) {
        *self.bad.lock().unwrap() = key;
    }
}

impl BlockStore for BadSector {
    fn capabilities(&self) -> BlockCapabilities {
        self.store.capabilities()
    }

    fn usage(&self) -> BlockUsage {
        self.store.usage()
    }

    fn put(&self, puts: Vec<BlockPut>) -> Transfer<Vec<Result<BufferMut, Failure>>> {
        self.store.put(puts)
    }

    fn get(&self, gets: Vec<BlockGet>) -> Transfer<Vec<Result<Block, Failure>>> {
        let bad = *self.bad.lock().unwrap();
        let read = |get: BlockGet| {
            if Some(get.key) != bad {
                return self.store.get(vec![get]).wait().unwrap().remove(0);
            }
            let error = ContractError::new(ErrorKind::Io, "get block");
            Err(Failure::new(error, vec![get.target]))
        };
        Transfer::ready(Ok(gets.into_iter().map(read).collect()))
    }

    fn contains(&self, keys: &[BlockKey]) -> Result<Vec<bool>, ContractError> {
        self.store.contains(keys)
    }

    fn remove(&self, keys: &[BlockKey]) -> Transfer<Vec<bool>> {
        self.store.remove(keys)
    }

    fn list(
        &self,
        after: Option<BlockKey>,
        count_max: usize,
    ) -> Result<Vec<BlockEntry>, ContractError> {
        self.store.list(after, count_max)
    }
}

#[test]
fn a_block_that_can_not_be_read_leaves_its_tier_and_comes_back_when_it_is_made_anew() {
    let layout = LayoutConfig::builder()
        .num_blocks(1)
        .num_layers(1)
        .outer_dim(1)
        .page_size(1);
    let layout = layout.inner_dim(64).dtype_bytes(1).build().unwrap();
    let storage = SystemAllocator.allocate(8 * 64).unwrap();
    let device = Arc::new(HostTier::new(storage, 64).unwrap());
    let store = Arc::new(BadSector {
        store: MockBlockStore::open(MockMedia::default(), Schedule::immediate()),
        bad: Mutex::default(),
    });
    let pool = BlockPool::builder().capacity_blocks(8).build().unwrap();
    let cache = TieredCache::builder(&layout, Salt::new("m"))
        .device(device, pool)
        .disk(
            Arc::clone(&store) as Arc<dyn BlockStore>,
            BlockPool::builder().capacity_blocks(32),
        )
        .build()
        .unwrap();
    let mut replay = Replay::new(&cache, Salt::new("m"));
    let request = TraceRequest {
        hash_ids: (0..8).collect(),
        ..TraceRequest::default()
    };
    replay.request(&request).unwrap();
    cache.drain();
    let hashes = replay.sequence_hashes(&request);
    let broken = BlockKey(hashes[5].as_u128());
    store.break_block(Some(broken));

    for _ in 0..2 {
        cache.pool().reset();
        let matched = cache.match_blocks(&hashes, &RequestOptions::default());
        assert_eq!(matched.blocks.len(), 5);
        drop(matched);
        cache.drain();
        assert!(!store.contains(&[broken]).unwrap()[0]);
        let disk = cache.pool_of(TierId::G3).unwrap().status();
        assert_eq!((disk.cached_blocks, disk.free_blocks), (7, 25));
        // The block was met once, and the two behind it were missed with it.
        assert_eq!(cache.traffic().missed[&DropReason::Failed], 3);
    }

    store.break_block(None);
    replay.request(&request).unwrap();
    cache.drain();
    cache.pool().reset();
    let matched = cache.match_blocks(&hashes, &RequestOptions::default());
    assert_eq!(matched.blocks.len(), 8);
    replay.check(&matched.blocks).unwrap();
    assert_eq!(replay.counts().mismatched_blocks, 0);
}
