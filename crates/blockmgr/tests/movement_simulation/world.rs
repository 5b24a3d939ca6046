//! A medium, and the lives of the caches on it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use blockmgr::layout::Layout;
use blockmgr::movement::{Cancellation, MoveEvent, TierId, TieredCache};
use blockmgr::policy::PolicyKind;
use blockmgr::replay::Replay;
use blockmgr::trace::TraceRequest;
use blockmgr::{BlockPool, Error, RequestOptions, Salt};
use core_view::contract::mock::{
    Dice, Faults, MockBlockStore, MockDevice, MockMedia, MockTier, Schedule,
};
use core_view::contract::{BlockCapabilities, BlockKey, BlockStore, MemoryTier};

use crate::Counts;
use crate::notes::Notes;
use crate::tiers::{Faulty, host, layout, pool};
use crate::turns::TurnClock;

const G1: usize = 12;
const G3: usize = 24;
const REQUESTS: u64 = 24;
const MODEL: &str = "m";

/// Chains of blocks that requests are made of, and the blocks of each.
const CHAINS: u64 = 6;
const CHAIN_BLOCKS: u64 = 9;

/// Steps within which everything that was given up has ended.
const STEPS_MAX: usize = 2000;

/// What one seed decides.
pub(crate) struct World {
    media: MockMedia,
    notes: Arc<Notes>,
    clock: Arc<TurnClock>,
    dice: Dice,
    bounded: bool,
    with_host: bool,
    remote: bool,
}

fn request(ids: std::ops::Range<u64>) -> TraceRequest {
    TraceRequest {
        hash_ids: ids.collect(),
        ..TraceRequest::default()
    }
}

fn add(counts: &mut Counts, kind: impl Into<String>, count: u64) {
    *counts.entry(kind.into()).or_default() += count;
}

impl World {
    /// Two lives with faults, and what a restart finds after each; all events.
    pub(crate) fn run(seed: u64, counts: &mut Counts) -> Vec<MoveEvent> {
        let mut dice = Dice::new(seed);
        let mut chance = |most: f64| dice.below(1000) as f64 / 1000.0 * most;
        let faults = Faults {
            refused: chance(0.1),
            torn: chance(0.1),
            flipped: chance(0.1),
            delayed: chance(0.1),
            hung: chance(0.04),
            abandoned: chance(0.04),
        };
        let mut world = Self {
            media: MockMedia::default(),
            notes: Arc::default(),
            clock: Arc::default(),
            bounded: dice.chance(0.5),
            with_host: dice.chance(0.5),
            remote: dice.chance(0.5),
            dice,
        };
        for _ in 0..2 {
            world.live(faults, counts);
            world.restart(counts);
        }
        world.notes.read().events
    }

    fn store(&mut self, seed: u64, faults: Faults) -> Arc<MockBlockStore> {
        let schedule = Schedule::driven(seed).with_faults(seed, faults);
        let store = MockBlockStore::open(self.media.clone(), schedule);
        if !self.bounded {
            return Arc::new(store);
        }
        Arc::new(store.with_capabilities(BlockCapabilities {
            durable: true,
            payload_alignment_bytes: 1,
            payload_bytes_max: 1 << 20,
            capacity_bytes: Some((G3 as u64 - 6) * layout(1).block_bytes() as u64),
        }))
    }

    fn open(&mut self, faults: Faults) -> (TieredCache, Faulty) {
        let seed = self.dice.next_u64();
        let store = self.store(seed, faults);
        // A listing that fails is an error of opening; a cache that is to be opened tries again.
        loop {
            let device: Arc<dyn MemoryTier> = match self.remote {
                true => Arc::new(MockDevice::new(host(G1))),
                false => Arc::new(host(G1)),
            };
            let mut builder = TieredCache::builder(&layout(1), Salt::new(MODEL))
                .device(device, pool(G1))
                .disk(
                    Arc::clone(&store) as Arc<dyn BlockStore>,
                    BlockPool::builder()
                        .capacity_blocks(G3)
                        .policy(PolicyKind::Lru),
                )
                .batch_blocks(4)
                .queue_blocks(16)
                .timeout_ms(1)
                .clock(Arc::clone(&self.clock) as _)
                .move_sink(Arc::clone(&self.notes) as _);
            let host = self.with_host.then(|| {
                let schedule = Schedule::driven(seed ^ 1).with_faults(seed ^ 1, faults);
                Arc::new(MockTier::new(host(G1), schedule))
            });
            if let Some(tier) = &host {
                builder = builder.host(Arc::clone(tier) as Arc<dyn MemoryTier>, pool(G1));
            }
            if let Ok(cache) = builder.build() {
                return (cache, Faulty { store, host });
            }
        }
    }

    /// One life under faults.
    fn live(&mut self, faults: Faults, counts: &mut Counts) {
        let stored_before = self.notes.read().stored;
        let (cache, faulty) = self.open(faults);
        let mut replay = Replay::new(&cache, Salt::new(MODEL));
        for _ in 0..REQUESTS {
            let first = self.dice.below(CHAINS) * 100;
            let request = request(first..first + 1 + self.dice.below(CHAIN_BLOCKS));
            let hashes = replay.sequence_hashes(&request);
            self.damage(&hashes, counts);
            if self.dice.chance(0.1) {
                let cancellation = Cancellation::default();
                let looks = self.dice.below(12);
                self.clock.cancel_after(looks, cancellation.clone());
                let timeout = Duration::from_secs(1);
                let options = RequestOptions::default();
                let matched = cache.match_blocks_within(&hashes, &options, timeout, &cancellation);
                replay.check(&matched.blocks).unwrap();
                let cancelled = cancellation.is_cancelled();
                add(counts, "injected: cancelled", u64::from(cancelled));
            }
            replay.request(&request).unwrap();
            add(counts, "late operations", cache.late_operations() as u64);
            if self.dice.chance(0.7) {
                cache.drain();
            }
        }
        let seen = replay.counts();
        assert_eq!(seen.mismatched_blocks, 0, "a wrong byte");
        add(counts, "verified", seen.verified_blocks);
        // Whatever is delayed ends, and what hangs was asked to stop; then nothing is held.
        cache.drain();
        let mut steps = 0;
        while cache.late_operations() > 0 {
            cache.step();
            steps += 1;
            assert!(steps < STEPS_MAX, "an operation never ends: {cache:?}");
        }
        cache.drain();
        self.reconcile(&cache, stored_before, counts);
        faulty.tell(counts);
    }

    /// Nothing is held, and every offer went down or is in a count.
    fn reconcile(&self, cache: &TieredCache, stored_before: u64, counts: &mut Counts) {
        assert_eq!(cache.staged_blocks(), 0, "a staging buffer leaked");
        assert_eq!(cache.queued_blocks(), 0);
        for tier in [TierId::G1, TierId::G2, TierId::G3] {
            let Some(pool) = cache.pool_of(tier) else {
                continue;
            };
            let status = pool.status();
            let withheld = match tier {
                TierId::G3 => cache.shortfall().map_or(0, |it| it.withheld_blocks),
                _ => 0,
            };
            assert_eq!(status.in_use_blocks, withheld, "{tier} leaked: {status:?}");
            add(counts, "withheld", withheld as u64);
        }
        let traffic = cache.traffic();
        let came = |tier| traffic.tiers.get(&tier).map_or(0, |moved| moved.blocks_in);
        let moved = came(TierId::G2) + came(TierId::G3);
        let dropped: u64 = traffic.dropped.values().sum();
        assert_eq!(
            traffic.offered_blocks,
            moved + dropped,
            "an offer is lost or counted twice: {traffic:?}"
        );
        assert_eq!(came(TierId::G3), self.notes.read().stored - stored_before);
        for (reason, &count) in &traffic.dropped {
            add(counts, format!("dropped: {}", reason.name()), count);
        }
        for (reason, &count) in &traffic.missed {
            add(counts, format!("missed: {}", reason.name()), count);
        }
        for (what, &count) in &traffic.mismatches {
            add(counts, format!("mismatched: {what}"), count);
        }
    }

    /// Now and then, does something to a block at rest.
    fn damage(&mut self, hashes: &[blockmgr::SequenceHash], counts: &mut Counts) {
        let index = self.dice.index(hashes.len());
        let other = self.dice.index(hashes.len());
        let (what, bit) = (self.dice.below(30), self.dice.next_u64());
        let (Some(hash), Some(other)) = (hashes.get(index), hashes.get(other)) else {
            return;
        };
        let (key, other) = (BlockKey(hash.as_u128()), BlockKey(other.as_u128()));
        let (kind, done) = match what {
            0 => ("flipped at rest", self.media.flip_bit(key, bit)),
            1 => ("rotten unnoticed", self.media.rot_bit(key, bit)),
            2 => ("swapped", self.media.swap(key, other)),
            _ => return,
        };
        if done {
            add(counts, format!("injected: {kind}"), 1);
            self.notes.damage(key.0);
            if kind == "swapped" {
                self.notes.damage(other.0);
            }
        }
    }

    /// Without faults: what was acknowledged is there unless it was damaged at rest, all that is there was on its way,
    /// and all of it has the right bytes. Under another salt or layout nothing is there.
    fn restart(&mut self, counts: &mut Counts) {
        let (cache, _) = self.open(Faults::NONE);
        let noted = self.notes.read();
        let disk = cache.pool_of(TierId::G3).unwrap();
        let reopened = cache.reopened().unwrap().clone();
        let whole = |hash: &&u128| reopened.surplus_blocks == 0 && !noted.damaged.contains(*hash);
        for &hash in noted.there.iter().filter(whole) {
            let hash = blockmgr::SequenceHash::new(hash, 0);
            let found = disk.count_sequence_hashes(&[hash]);
            assert_eq!(found, 1, "{hash} was acknowledged");
        }
        let mut replay = Replay::new(&cache, Salt::new(MODEL));
        let mut found = HashSet::new();
        for chain in 0..CHAINS {
            let request = request(chain * 100..chain * 100 + CHAIN_BLOCKS);
            for hash in replay.sequence_hashes(&request) {
                let key = hash.as_u128();
                if disk.count_sequence_hashes(&[hash]) == 0 {
                    continue;
                }
                assert!(
                    noted.there.contains(&key) || noted.open.contains(&key),
                    "{hash} was never on its way"
                );
                found.insert(key);
                let matched = cache.match_blocks(&[hash], &RequestOptions::default());
                replay.check(&matched.blocks).unwrap();
            }
        }
        assert_eq!(
            found.len() as u64,
            reopened.restored_blocks,
            "something is there that nobody made"
        );
        assert_eq!(
            replay.counts().mismatched_blocks,
            0,
            "a wrong byte after a restart"
        );
        add(counts, "verified", replay.counts().verified_blocks);
        // What was found damaged leaves, and what is left of it is what the next life finds.
        cache.drain();
        drop(cache);
        self.refuse_others(reopened.restored_blocks);
        let left = MockBlockStore::open(self.media.clone(), Schedule::immediate());
        let left = left.list(None, usize::MAX).unwrap();
        self.notes
            .settle(&left.iter().map(|entry| entry.key.0).collect());
    }

    /// Another model finds nothing, and another layout is refused by field.
    fn refuse_others(&mut self, restored_blocks: u64) {
        let other = Salt::new("n");
        let cache = self.open_as(&layout(1), other).unwrap();
        assert_eq!(
            cache.reopened().unwrap().restored_blocks,
            0,
            "another model's blocks match"
        );
        drop(cache);
        let opened = self.open_as(&layout(2), Salt::new(MODEL));
        let named = matches!(
            opened,
            Err(Error::LayoutMismatch {
                field: "num_layers",
                expected: 2,
                found: 1,
            })
        );
        assert!(
            named || restored_blocks == 0,
            "another layout's blocks match"
        );
    }

    fn open_as(&mut self, layout: &Layout, salt: Salt) -> Result<TieredCache, Error> {
        let store = MockBlockStore::open(self.media.clone(), Schedule::immediate());
        TieredCache::builder(layout, salt)
            .device(Arc::new(host(G1)), pool(G1))
            .disk(
                Arc::new(store),
                BlockPool::builder().capacity_blocks(10 * G3),
            )
            .build()
    }
}
