//! Engines on several threads and one that steps, over one cache. Also a run for ThreadSanitizer.
#![cfg(all(feature = "trace", not(shuttle)))]
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use blockmgr::layout::{Layout, LayoutConfig};
use blockmgr::movement::{MoveEvent, MoveSink, TierId, TieredCache};
use blockmgr::replay::{Replay, ReplayCounts};
use blockmgr::trace::TraceRequest;
use blockmgr::{BlockPool, Error, Salt};
use core_alloc::{StorageAllocator, SystemAllocator};
use core_view::contract::mock::{Dice, MockBlockStore, Schedule};
use core_view::contract::{HostTier, MemoryTier};

const ENGINES: u64 = 3;
const CHAINS: u64 = 12;
const BLOCKS: u64 = 16;

/// Requests an engine: `STEPWELL_SEEDS` times ten, or so many.
fn requests() -> u64 {
    let seeds = std::env::var("STEPWELL_SEEDS").ok();
    let seeds = seeds.and_then(|seeds| seeds.parse::<u64>().ok());
    seeds.map_or(1000, |seeds| seeds * 10)
}

fn layout() -> Layout {
    let layout = LayoutConfig::builder()
        .num_blocks(1)
        .num_layers(1)
        .outer_dim(1)
        .page_size(1);
    layout.inner_dim(256).dtype_bytes(1).build().unwrap()
}

fn memory(blocks: usize) -> (Arc<dyn MemoryTier>, BlockPool) {
    let block_bytes = layout().block_bytes();
    let storage = SystemAllocator.allocate(blocks * block_bytes).unwrap();
    let pool = BlockPool::builder().capacity_blocks(blocks);
    let tier = HostTier::new(storage, block_bytes).unwrap();
    (Arc::new(tier), pool.build().unwrap())
}

/// Counts what came to the disk tier.
#[derive(Default)]
struct Sink(std::sync::Mutex<u64>);

impl MoveSink for Sink {
    fn publish(&self, events: &[MoveEvent]) {
        let is_stored = |event: &&MoveEvent| {
            let target = TierId::G3;
            matches!(event, MoveEvent::Moved { target: found, .. } if *found == target)
        };
        *self.0.lock().unwrap() += events.iter().filter(is_stored).count() as u64;
    }
}

fn engine(cache: &TieredCache, seed: u64) -> ReplayCounts {
    let mut dice = Dice::new(seed);
    let mut replay = Replay::new(cache, Salt::new("m"));
    for _ in 0..requests() {
        let first = dice.below(CHAINS) * 100;
        let request = TraceRequest {
            hash_ids: (first..first + 1 + dice.below(BLOCKS)).collect(),
            ..TraceRequest::default()
        };
        match replay.request(&request) {
            // Another engine took what was there a moment before.
            Ok(()) | Err(Error::Exhausted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    replay.counts()
}

fn run(with_host: bool) {
    let sink = Arc::new(Sink::default());
    let (device, pool) = memory(ENGINES as usize * BLOCKS as usize + 8);
    let store = MockBlockStore::new(Schedule::reordering(1));
    let mut builder = TieredCache::builder(&layout(), Salt::new("m"))
        .device(device, pool)
        .disk(Arc::new(store), BlockPool::builder().capacity_blocks(100))
        .batch_blocks(8)
        .move_sink(Arc::clone(&sink) as _);
    if with_host {
        let (host, pool) = memory(24);
        builder = builder.host(host, pool);
    }
    let cache = builder.build().unwrap();
    let over = AtomicBool::new(false);
    let counts: Vec<ReplayCounts> = std::thread::scope(|scope| {
        let (cache, over) = (&cache, &over);
        scope.spawn(move || {
            while !over.load(Ordering::Acquire) {
                if cache.step() == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let engines: Vec<_> = (0..ENGINES)
            .map(|seed| scope.spawn(move || engine(cache, seed)))
            .collect();
        let counts = engines.into_iter().map(|engine| engine.join());
        let counts = counts.collect::<Result<_, _>>();
        over.store(true, Ordering::Release);
        counts.unwrap()
    });
    cache.drain();
    for counts in counts {
        assert_eq!(counts.mismatched_blocks, 0, "a wrong byte");
        assert!(counts.verified_blocks > 0, "{counts:?}");
    }
    let traffic = cache.traffic();
    let came = |tier| traffic.tiers.get(&tier).map_or(0, |moved| moved.blocks_in);
    let dropped: u64 = traffic.dropped.values().sum();
    let moved = came(TierId::G2) + came(TierId::G3);
    assert_eq!(traffic.offered_blocks, moved + dropped, "{traffic:?}");
    assert_eq!(came(TierId::G3), *sink.0.lock().unwrap());
    assert!(traffic.mismatches.is_empty(), "{traffic:?}");
    for tier in traffic.tiers.keys() {
        let status = cache.pool_of(*tier).unwrap().status();
        assert_eq!(status.in_use_blocks, 0, "{tier} leaked: {status:?}");
    }
    assert_eq!((cache.staged_blocks(), cache.late_operations()), (0, 0));
}

#[test]
fn engines_share_memory_and_disk() {
    run(false);
}

#[test]
fn engines_share_three_tiers() {
    run(true);
}
