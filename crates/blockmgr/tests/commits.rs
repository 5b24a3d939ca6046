//! What a batch costs a disk tier that keeps the order of removals and puts.
#![cfg(all(feature = "trace", target_os = "linux", not(shuttle)))]

use std::error::Error;
use std::sync::Arc;

use blockmgr::layout::LayoutConfig;
use blockmgr::movement::{TierId, TieredCache};
use blockmgr::replay::Replay;
use blockmgr::trace::TraceRequest;
use blockmgr::{BlockPool, Salt};
use core_alloc::{StorageAllocator, SystemAllocator};
use core_view::contract::HostTier;
use tier_nvme::{BlockSlab, SlabConfig};

const BLOCK_BYTES: usize = 4096;
const BATCH: u64 = 8;

/// Plays batches of new blocks through a cache on the slab; the records that it committed for each.
fn records(config: SlabConfig) -> Result<Vec<u64>, Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let slab = Arc::new(BlockSlab::open(directory.path(), config)?);
    let layout = LayoutConfig::builder()
        .num_blocks(1)
        .num_layers(1)
        .outer_dim(1)
        .page_size(1)
        .inner_dim(BLOCK_BYTES)
        .dtype_bytes(1)
        .build()?;
    let storage = SystemAllocator.allocate(BATCH as usize * BLOCK_BYTES)?;
    let memory = Arc::new(HostTier::new(storage, BLOCK_BYTES)?);
    let pool = BlockPool::builder()
        .capacity_blocks(BATCH as usize)
        .build()?;
    let disk = BlockPool::builder().capacity_blocks(2 * BATCH as usize);
    let cache = TieredCache::builder(&layout, Salt::new("m"))
        .device(memory, pool)
        .disk(Arc::clone(&slab) as _, disk)
        .batch_blocks(BATCH as usize)
        .build()?;
    let mut replay = Replay::new(&cache, Salt::new("m"));
    let mut records = Vec::new();
    for batch in 0..20 {
        let before = slab.stats().records;
        replay.request(&TraceRequest {
            hash_ids: (100 * batch..100 * batch + BATCH).collect(),
            ..TraceRequest::default()
        })?;
        cache.drain();
        records.push(slab.stats().records - before);
    }
    let disk = cache.traffic().tiers[&TierId::G3];
    assert_eq!(disk.blocks_in, 20 * BATCH);
    assert_eq!(slab.stats().blocks, 2 * BATCH);
    Ok(records)
}

fn config() -> SlabConfig {
    SlabConfig::default()
        .with_block_bytes(BLOCK_BYTES as u64)
        .with_segment_bytes(4 << 20)
        .with_capacity_bytes(4 << 20)
}

#[test]
fn what_comes_and_what_goes_for_it_share_a_commit() -> Result<(), Box<dyn Error>> {
    assert_eq!(records(config().with_own_thread(false))?, [1; 20]);
    Ok(())
}

#[test]
fn a_slab_with_a_thread_of_its_own_commits_no_more_than_each_apart() -> Result<(), Box<dyn Error>> {
    let records = records(config())?;
    println!("records of each batch: {records:?}");
    assert!(records.iter().all(|&count| count == 1 || count == 2));
    assert_eq!(records[..2], [1, 1], "nothing leaves yet");
    Ok(())
}
