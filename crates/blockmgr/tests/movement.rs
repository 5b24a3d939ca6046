//! Blocks go down the tiers and come back, across a restart too.
#![cfg(feature = "trace")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use blockmgr::layout::{Layout, LayoutConfig};
use blockmgr::movement::{Admission, DropReason, ForeignBlocks, TierId, TieredCache};
use blockmgr::policy::PolicyKind;
use blockmgr::replay::Replay;
use blockmgr::trace::TraceRequest;
use blockmgr::{BlockPool, Error, RequestOptions, Salt};
use core_alloc::{StorageAllocator, SystemAllocator};
use core_view::contract::mock::{MockBlockStore, MockMedia, Schedule};
use core_view::contract::{BlockCapabilities, BlockKey, BlockStore, HostTier, MemoryTier};

fn layout(heads: usize) -> Layout {
    LayoutConfig::builder()
        .num_blocks(64)
        .num_layers(2)
        .outer_dim(2)
        .page_size(4)
        .heads(heads)
        .head_dim(8)
        .build()
        .unwrap()
}

fn memory(layout: &Layout, blocks: usize) -> (Arc<dyn MemoryTier>, BlockPool) {
    let storage = SystemAllocator
        .allocate(blocks * layout.block_bytes())
        .unwrap();
    let tier = HostTier::new(storage, layout.block_bytes()).unwrap();
    let pool = BlockPool::builder()
        .capacity_blocks(blocks)
        .build()
        .unwrap();
    (Arc::new(tier), pool)
}

fn store(media: &MockMedia) -> Arc<dyn BlockStore> {
    Arc::new(MockBlockStore::open(media.clone(), Schedule::immediate()))
}

/// Tiers of so many blocks, in one layout; the second is left out if it has none.
fn manager(layout: &Layout, salt: &str, blocks: [usize; 3], media: &MockMedia) -> TieredCache {
    let (device, pool) = memory(layout, blocks[0]);
    let mut builder = TieredCache::builder(layout, Salt::new(salt)).device(device, pool);
    if blocks[1] > 0 {
        let (host, pool) = memory(layout, blocks[1]);
        builder = builder.host(host, pool);
    }
    builder
        .disk(
            store(media),
            BlockPool::builder().capacity_blocks(blocks[2]),
        )
        .build()
        .unwrap()
}

fn request(ids: impl IntoIterator<Item = u64>) -> TraceRequest {
    TraceRequest {
        hash_ids: ids.into_iter().collect(),
        ..TraceRequest::default()
    }
}

#[test]
fn blocks_come_back_from_each_tier_with_their_bytes() {
    for host in [0, 6] {
        let manager = manager(&layout(2), "m", [4, host, 32], &MockMedia::default());
        let mut replay = Replay::new(&manager, Salt::new("m"));
        for chain in 0..5 {
            replay
                .request(&request(chain * 10..chain * 10 + 4))
                .unwrap();
            manager.drain();
        }
        for chain in 0..5 {
            replay
                .request(&request(chain * 10..chain * 10 + 4))
                .unwrap();
            manager.drain();
        }
        let counts = replay.counts();
        assert_eq!((counts.blocks, counts.hit_blocks), (40, 20));
        assert_eq!((counts.verified_blocks, counts.mismatched_blocks), (20, 0));
        let traffic = manager.traffic();
        let disk = traffic.tiers[&TierId::G3];
        assert_eq!(disk.blocks_in, 20);
        assert!(disk.hits > 0);
        assert_eq!(
            disk.hits + traffic.tiers.get(&TierId::G2).map_or(0, |host| host.hits),
            20
        );
        assert_eq!(disk.bytes_in, 20 * layout(2).block_bytes() as u64);
        let pool = manager.pool().status();
        assert_eq!(pool.in_use_blocks, 0, "{pool:?}");
    }
}

#[test]
fn what_was_stored_is_matched_after_a_restart() {
    let media = MockMedia::default();
    let ids = || request(0..12);
    {
        let manager = manager(&layout(2), "m", [16, 0, 32], &media);
        Replay::new(&manager, Salt::new("m"))
            .request(&ids())
            .unwrap();
        manager.drain();
        // These were never stored.
        Replay::new(&manager, Salt::new("m"))
            .request(&request(50..54))
            .unwrap();
    }
    let manager = manager(&layout(2), "m", [16, 0, 32], &media);
    let reopened = manager.reopened().unwrap();
    assert_eq!((reopened.restored_blocks, reopened.surplus_blocks), (12, 0));
    let mut replay = Replay::new(&manager, Salt::new("m"));
    replay.request(&ids()).unwrap();
    replay.request(&request(50..54)).unwrap();
    assert_eq!(replay.counts().hit_blocks, 12);
    assert_eq!(replay.counts().verified_blocks, 12);
}

#[test]
fn a_flipped_bit_is_a_miss_that_is_counted_and_shortens_the_prefix() {
    let media = MockMedia::default();
    let layout = layout(2);
    let hashes = {
        let manager = manager(&layout, "m", [8, 0, 32], &media);
        let mut replay = Replay::new(&manager, Salt::new("m"));
        replay.request(&request(0..8)).unwrap();
        manager.drain();
        replay.sequence_hashes(&request(0..8))
    };
    assert!(media.flip_bit(BlockKey(hashes[5].as_u128()), 77));
    let manager = manager(&layout, "m", [8, 0, 32], &media);
    let matched = manager.match_blocks(&hashes, &RequestOptions::default());
    assert_eq!((matched.blocks.len(), matched.onboarded_blocks), (5, 5));
    Replay::new(&manager, Salt::new("m"))
        .check(&matched.blocks)
        .unwrap();
    let traffic = manager.traffic();
    assert_eq!(traffic.missed[&DropReason::Mismatch], 3);
    assert_eq!(traffic.mismatches["store"], 1);
    drop(matched);
    // The damaged block leaves the store, and the same can be stored again.
    manager.drain();
    assert!(
        !store(&media)
            .contains(&[BlockKey(hashes[5].as_u128())])
            .unwrap()[0]
    );
    assert_eq!(manager.pool().status().in_use_blocks, 0);
}

#[test]
fn a_store_that_is_smaller_than_its_tier_goes_on_taking_blocks() {
    const FITTING: usize = 24;
    let layout = layout(2);
    let (device, pool) = memory(&layout, 8);
    let store = MockBlockStore::open(MockMedia::default(), Schedule::immediate());
    let store = store.with_capabilities(BlockCapabilities {
        durable: true,
        payload_alignment_bytes: 1,
        payload_bytes_max: 1 << 20,
        capacity_bytes: Some((FITTING * layout.block_bytes()) as u64),
    });
    let manager = TieredCache::builder(&layout, Salt::new("m"))
        .device(device, pool)
        .disk(
            Arc::new(store),
            BlockPool::builder()
                .capacity_blocks(100)
                .policy(PolicyKind::Lru),
        )
        .batch_blocks(4)
        .build()
        .unwrap();
    assert_eq!(manager.shortfall(), None);
    let mut replay = Replay::new(&manager, Salt::new("m"));
    for chain in 0..100 {
        let ids = chain * 10..chain * 10 + 4;
        replay.request(&request(ids)).unwrap();
        manager.drain();
    }
    let shortfall = manager.shortfall().unwrap();
    assert_eq!(shortfall.fitting_blocks, FITTING);
    assert_eq!(shortfall.withheld_blocks, 100 - FITTING);
    assert!(shortfall.reason.contains("no space"), "{shortfall:?}");
    // One batch is refused whenever the store is asked whether it holds more, and no other.
    let traffic = manager.traffic();
    assert_eq!(traffic.dropped[&DropReason::TargetFull], 4 * 4);
    assert_eq!(traffic.tiers[&TierId::G3].blocks_in, 400 - 4 * 4);
    let held = manager.pool_of(TierId::G3).unwrap().status();
    assert_eq!(held.cached_blocks, FITTING);
    // What came last is there, and what came first is not.
    for (chain, found) in [(99, 4), (0, 0)] {
        manager.pool().reset();
        let hashes = replay.sequence_hashes(&request(chain * 10..chain * 10 + 4));
        let matched = manager.match_blocks(&hashes, &RequestOptions::default());
        assert_eq!(matched.blocks.len(), found, "chain {chain}");
        replay.check(&matched.blocks).unwrap();
    }
}

#[test]
fn another_layout_is_refused_by_field_and_another_salt_ignored() {
    let media = MockMedia::default();
    {
        let manager = manager(&layout(2), "m", [8, 0, 32], &media);
        Replay::new(&manager, Salt::new("m"))
            .request(&request(0..8))
            .unwrap();
        manager.drain();
    }
    let open = |heads, foreign| {
        let layout = layout(heads);
        let (device, pool) = memory(&layout, 8);
        TieredCache::builder(&layout, Salt::new("m"))
            .device(device, pool)
            .disk(store(&media), BlockPool::builder().capacity_blocks(32))
            .foreign_blocks(foreign)
            .build()
    };
    let refused = open(3, ForeignBlocks::Refuse).unwrap_err();
    assert!(
        matches!(
            refused,
            Error::LayoutMismatch {
                field: "heads",
                expected: 3,
                found: 2
            }
        ),
        "{refused}"
    );
    let ignoring = open(3, ForeignBlocks::Ignore).unwrap();
    assert_eq!(ignoring.reopened().unwrap().ignored["layout"], 8);
    let other = manager(&layout(2), "n", [8, 0, 32], &media);
    let reopened = other.reopened().unwrap();
    assert_eq!((reopened.restored_blocks, reopened.ignored["salt"]), (0, 8));
    let same = manager(&layout(2), "m", [8, 0, 5], &media);
    let reopened = same.reopened().unwrap();
    assert_eq!((reopened.restored_blocks, reopened.surplus_blocks), (5, 3));
}

#[test]
fn filters_and_bounds_are_counted_by_reason() {
    let layout = layout(2);
    let (device, pool) = memory(&layout, 8);
    let manager = TieredCache::builder(&layout, Salt::new("m"))
        .device(device, pool)
        .disk(
            store(&MockMedia::default()),
            BlockPool::builder().capacity_blocks(3),
        )
        .admission(
            TierId::G3,
            Admission {
                frequency_min: 2,
                ..Admission::default()
            },
        )
        .queue_blocks(2)
        .build()
        .unwrap();
    let mut replay = Replay::new(&manager, Salt::new("m"));
    replay.request(&request(0..4)).unwrap();
    assert_eq!(manager.traffic().dropped[&DropReason::Frequency], 4);
    manager.pool().reset();
    replay.request(&request(0..4)).unwrap();
    assert_eq!(manager.traffic().dropped[&DropReason::QueueFull], 2);
    assert_eq!(manager.queued_blocks(), 2);
    manager.pool().reset();
    manager.drain();
    assert_eq!(manager.traffic().dropped[&DropReason::Evicted], 2);
}

#[test]
fn what_cannot_be_used_is_named() {
    let layout = layout(2);
    let named = |field: &str, built: Result<TieredCache, Error>| {
        let message = built.unwrap_err().to_string();
        assert!(message.contains(field), "{message}");
    };
    let salt = || Salt::new("m");
    named("device", TieredCache::builder(&layout, salt()).build());
    let (device, pool) = memory(&layout, 2);
    let builder =
        || TieredCache::builder(&layout, salt()).device(Arc::clone(&device), pool.clone());
    named("queue_blocks", builder().queue_blocks(0).build());
    named("batch_blocks", builder().batch_blocks(0).build());
    let wide = BlockPool::builder().capacity_blocks(3).build().unwrap();
    named(
        "capacity_blocks",
        builder().device(Arc::clone(&device), wide).build(),
    );
    let small = memory(&self::layout(1), 2);
    named("slot_bytes", builder().device(small.0, small.1).build());
}
