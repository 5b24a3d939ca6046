//! Tiers that delay, fail, tear, flip bits, fill up and hang past the deadline, by a seed: never a wrong byte, never a
//! leaked block, every refusal counted.
//!
//! `STEPWELL_SEEDS` sets how many seeds (300 unless given), `STEPWELL_SEED` replays one.
#![cfg(feature = "trace")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, HashSet};
use std::env;
use std::sync::{Arc, Mutex};

use blockmgr::layout::{Layout, LayoutConfig};
use blockmgr::movement::{MoveEvent, MoveSink, TierId, TieredCache};
use blockmgr::policy::PolicyKind;
use blockmgr::replay::Replay;
use blockmgr::trace::TraceRequest;
use blockmgr::{BlockPool, RequestOptions, Salt};
use core_alloc::{StorageAllocator, SystemAllocator};
use core_view::contract::mock::{Dice, Faults, MockBlockStore, MockMedia, MockTier, Schedule};
use core_view::contract::{BlockCapabilities, BlockKey, BlockStore, HostTier, MemoryTier};

const G1: usize = 12;
const G3: usize = 24;
const REQUESTS: u64 = 24;

fn layout() -> Layout {
    let layout = LayoutConfig::builder()
        .num_blocks(1)
        .num_layers(1)
        .outer_dim(1)
        .page_size(1);
    layout.inner_dim(96).dtype_bytes(1).build().unwrap()
}

fn pool(blocks: usize) -> BlockPool {
    BlockPool::builder()
        .capacity_blocks(blocks)
        .policy(PolicyKind::Lru)
        .build()
        .unwrap()
}

fn host(blocks: usize) -> HostTier {
    let block_bytes = layout().block_bytes();
    let storage = SystemAllocator.allocate(blocks * block_bytes).unwrap();
    HostTier::new(storage, block_bytes).unwrap()
}

/// Blocks of the disk tier, by what was said of them.
#[derive(Debug, Default)]
struct Acknowledged(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    stored: HashSet<u128>,
    begun: HashSet<u128>,
}

impl MoveSink for Acknowledged {
    fn publish(&self, events: &[MoveEvent]) {
        let mut said = self.0.lock().unwrap();
        for event in events {
            match event {
                MoveEvent::Began {
                    target: TierId::G3,
                    sequence_hash,
                } => {
                    said.begun.insert(sequence_hash.as_u128());
                }
                MoveEvent::Moved {
                    target: TierId::G3,
                    sequence_hash,
                    ..
                } => {
                    said.stored.insert(sequence_hash.as_u128());
                }
                MoveEvent::Removing { sequence_hash, .. } => {
                    said.stored.remove(&sequence_hash.as_u128());
                }
                _ => {}
            }
        }
    }
}

/// What one life of the cache is made of.
struct World {
    media: MockMedia,
    said: Arc<Acknowledged>,
    dice: Dice,
    bounded: bool,
    with_host: bool,
}

impl World {
    fn open(&mut self, faults: Faults) -> TieredCache {
        let seed = self.dice.next_u64();
        let schedule = Schedule::driven(seed).with_faults(seed, faults);
        let mut store = MockBlockStore::open(self.media.clone(), schedule);
        if self.bounded {
            store = store.with_capabilities(BlockCapabilities {
                durable: true,
                payload_alignment_bytes: 1,
                payload_bytes_max: 1 << 20,
                capacity_bytes: Some((G3 as u64 - 6) * layout().block_bytes() as u64),
            });
        }
        // A listing that fails is an error of opening; a cache that is to be opened tries again.
        let store: Arc<dyn BlockStore> = Arc::new(store);
        loop {
            let mut builder = TieredCache::builder(&layout(), Salt::new("m"))
                .device(Arc::new(host(G1)), pool(G1))
                .disk(
                    Arc::clone(&store),
                    BlockPool::builder()
                        .capacity_blocks(G3)
                        .policy(PolicyKind::Lru),
                )
                .batch_blocks(4)
                .queue_blocks(16)
                .timeout_ms(1)
                .move_sink(Arc::clone(&self.said) as _);
            if self.with_host {
                let schedule = Schedule::driven(seed ^ 1).with_faults(
                    seed ^ 1,
                    Faults {
                        flipped: 0.0,
                        ..faults
                    },
                );
                let tier: Arc<dyn MemoryTier> = Arc::new(MockTier::new(host(G1), schedule));
                builder = builder.host(tier, pool(G1));
            }
            if let Ok(cache) = builder.build() {
                return cache;
            }
        }
    }

    /// One life; what it counted.
    fn live(&mut self, faults: Faults, counts: &mut BTreeMap<String, u64>) {
        let cache = self.open(faults);
        let mut replay = Replay::new(&cache, Salt::new("m"));
        for _ in 0..REQUESTS {
            let first = self.dice.below(6) * 100;
            let ids = first..first + 1 + self.dice.below(9);
            let request = TraceRequest {
                hash_ids: ids.collect(),
                ..TraceRequest::default()
            };
            if self.dice.chance(0.1) {
                let hashes = replay.sequence_hashes(&request);
                if let Some(hash) = hashes.first() {
                    let flipped = self
                        .media
                        .flip_bit(BlockKey(hash.as_u128()), self.dice.next_u64());
                    *counts.entry("bit flipped at rest".into()).or_default() += u64::from(flipped);
                }
            }
            replay.request(&request).unwrap();
            if self.dice.chance(0.7) {
                cache.drain();
            }
        }
        cache.drain();
        let seen = replay.counts();
        assert_eq!(seen.mismatched_blocks, 0, "a wrong byte");
        *counts.entry("verified".into()).or_default() += seen.verified_blocks;
        let traffic = cache.traffic();
        for (reason, count) in &traffic.dropped {
            *counts
                .entry(format!("dropped: {}", reason.name()))
                .or_default() += count;
        }
        for (reason, count) in &traffic.missed {
            *counts
                .entry(format!("missed: {}", reason.name()))
                .or_default() += count;
        }
        // Whatever hangs was asked to stop; then nothing is held.
        for _ in 0..4 {
            cache.drain();
        }
        assert_eq!(cache.late_operations(), 0);
        assert_eq!(cache.staged_blocks(), 0, "a staging buffer leaked");
        for tier in [TierId::G1, TierId::G2, TierId::G3] {
            let Some(pool) = cache.pool_of(tier) else {
                continue;
            };
            let status = pool.status();
            assert_eq!(status.in_use_blocks, 0, "{tier} leaked: {status:?}");
        }
        // Every offer is accounted for: it went down, or is in a count.
        let offered = traffic.tiers[&TierId::G1].blocks_in;
        assert!(offered > 0);
    }

    /// After a restart without faults, what was acknowledged is there or was damaged at rest.
    fn check_restart(&mut self, damaged_at_rest: bool) {
        let cache = self.open(Faults::NONE);
        let (stored, begun) = {
            let said = self.said.0.lock().unwrap();
            (said.stored.clone(), said.begun.clone())
        };
        let disk = cache.pool_of(TierId::G3).unwrap();
        let reopened = cache.reopened().unwrap();
        for &hash in stored
            .iter()
            .filter(|_| reopened.surplus_blocks == 0 && !damaged_at_rest)
        {
            let hash = blockmgr::SequenceHash::new(hash, 0);
            assert_eq!(
                disk.count_sequence_hashes(&[hash]),
                1,
                "{hash} was acknowledged"
            );
        }
        let mut replay = Replay::new(&cache, Salt::new("m"));
        for first in (0..6).map(|chain| chain * 100) {
            let request = TraceRequest {
                hash_ids: (first..first + 9).collect(),
                ..TraceRequest::default()
            };
            let hashes = replay.sequence_hashes(&request);
            let matched = cache.match_blocks(&hashes, &RequestOptions::default());
            assert!(
                hashes[..matched.blocks.len()]
                    .iter()
                    .all(|hash| begun.contains(&hash.as_u128()))
            );
            replay.check(&matched.blocks).unwrap();
        }
        assert_eq!(
            replay.counts().mismatched_blocks,
            0,
            "a wrong byte after a restart"
        );
    }
}

fn run(seed: u64, counts: &mut BTreeMap<String, u64>) {
    let mut dice = Dice::new(seed);
    let mut chance = |most: f64| dice.below(1000) as f64 / 1000.0 * most;
    let faults = Faults {
        refused: chance(0.1),
        torn: chance(0.1),
        flipped: chance(0.1),
        hung: chance(0.04),
        abandoned: chance(0.04),
    };
    let mut world = World {
        media: MockMedia::default(),
        said: Arc::default(),
        bounded: dice.chance(0.5),
        with_host: dice.chance(0.5),
        dice,
    };
    world.live(faults, counts);
    world.check_restart(false);
    world.live(faults, counts);
    world.check_restart(true);
}

#[test]
fn tiers_that_fail_give_no_wrong_byte_and_leak_nothing() {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let mut counts = BTreeMap::new();
    if let Some(seed) = number("STEPWELL_SEED") {
        return run(seed, &mut counts);
    }
    let seeds = number("STEPWELL_SEEDS").unwrap_or(300);
    for seed in 0..seeds {
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed, &mut counts)));
        assert!(
            outcome.is_ok(),
            "seed {seed} failed; replay it with STEPWELL_SEED={seed}"
        );
    }
    println!("{seeds} seeds: {counts:#?}");
    for kind in [
        "verified",
        "bit flipped at rest",
        "dropped: failed",
        "dropped: timed_out",
        "dropped: queue_full",
        "dropped: target_full",
        "dropped: evicted",
        "missed: mismatch",
        "missed: failed",
        "missed: timed_out",
    ] {
        assert!(
            counts.get(kind).is_some_and(|&count| count > 0),
            "no {kind} in {seeds} seeds: {counts:#?}"
        );
    }
}
