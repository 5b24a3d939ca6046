//! Interleavings of calls to one pool, tried one after the other by a scheduler of the test's own.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test -p blockmgr --test pool_interleavings --target-dir target/shuttle`.
//! `STEPWELL_SEEDS` sets how many are tried of each kind.
#![cfg(shuttle)]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use blockmgr::policy::PolicyKind;
use blockmgr::{BlockEvent, BlockPool, Duplicates, EventSink, SequenceHash};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

/// Interleavings of each kind.
fn iterations() -> usize {
    let seeds = std::env::var("STEPWELL_SEEDS").ok();
    seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(1000)
}

/// Tries interleavings at random, and such that switch threads seldom and at bad moments.
fn explore(body: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_random(body, iterations());
    shuttle::check_pct(body, iterations(), 3);
}

/// A block of a chain; its hash is nobody else's.
fn hash(chain: u32, position: u32) -> SequenceHash {
    let number = u128::from(chain + 1) << 64 | u128::from(position + 1);
    SequenceHash::new(
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        position,
    )
}

fn chain(chain: u32, blocks: u32) -> Vec<SequenceHash> {
    (0..blocks).map(|position| hash(chain, position)).collect()
}

fn pool(capacity: usize, shards: usize, duplicates: Duplicates) -> BlockPool {
    pool_with(PolicyKind::Lru, capacity, shards, duplicates)
}

fn pool_with(
    policy: PolicyKind,
    capacity: usize,
    shards: usize,
    duplicates: Duplicates,
) -> BlockPool {
    let builder = BlockPool::builder()
        .capacity_blocks(capacity)
        .shards(shards);
    builder
        .policy(policy)
        .duplicates(duplicates)
        .build()
        .unwrap()
}

/// Matches, allocates, registers and lets go, as an engine does.
fn serve(pool: &BlockPool, hashes: &[SequenceHash]) {
    let found = pool.match_sequence_hashes(hashes);
    assert!(
        found
            .sequence_hashes()
            .eq(hashes[..found.len()].iter().copied())
    );
    let missing = &hashes[found.len()..];
    let fresh = pool.allocate_blocks(missing.len()).unwrap();
    let registered = pool
        .register_blocks(fresh.complete(missing).unwrap())
        .unwrap();
    assert!(registered.sequence_hashes().eq(missing.iter().copied()));
    let slots: BTreeSet<_> = found.slots().chain(registered.slots()).collect();
    assert_eq!(slots.len(), hashes.len(), "two blocks in one slot");
}

/// What must hold when everybody has let go.
fn check(pool: &BlockPool, capacity: usize) {
    let status = pool.status();
    assert_eq!(status.in_use_blocks, 0);
    assert_eq!(status.free_blocks + status.cached_blocks, capacity);
    pool.reset();
    let all = pool.allocate_blocks(capacity).unwrap();
    assert_eq!(all.slots().collect::<BTreeSet<_>>().len(), capacity);
}

fn engines(shards: usize, duplicates: Duplicates) {
    engines_with(PolicyKind::Lru, shards, duplicates);
}

fn engines_with(policy: PolicyKind, shards: usize, duplicates: Duplicates) {
    let pool = pool_with(policy, 6, shards, duplicates);
    let engines = [chain(0, 3), chain(0, 2)].map(|hashes| {
        let pool = pool.clone();
        thread::spawn(move || {
            serve(&pool, &hashes);
            serve(&pool, &chain(1, hashes.len() as u32));
        })
    });
    engines
        .into_iter()
        .for_each(|engine| engine.join().unwrap());
    check(&pool, 6);
}

#[test]
fn engines_share_one_shard() {
    explore(|| engines(1, Duplicates::Allow));
}

#[test]
fn engines_share_shards_with_duplicates() {
    explore(|| engines(2, Duplicates::Allow));
}

#[test]
fn engines_share_shards_without_duplicates() {
    explore(|| engines(2, Duplicates::Reject));
}

#[test]
fn engines_share_what_shards_learn() {
    explore(|| engines_with(PolicyKind::Adaptive, 2, Duplicates::Allow));
}

/// Threads that register the same content at once, each in a shard of its own: one of them has it, and it can be matched.
fn same_content(shards: usize, duplicates: Duplicates) {
    let capacity = 2 * shards;
    let pool = pool(capacity, shards, duplicates);
    let engines: Vec<_> = (0..shards)
        .map(|_| {
            let pool = pool.clone();
            thread::spawn(move || {
                let fresh = pool.allocate_blocks(2).unwrap();
                let complete = fresh.complete(&chain(0, 2)).unwrap();
                pool.register_blocks(complete).unwrap()
            })
        })
        .collect();
    let held: Vec<_> = engines
        .into_iter()
        .map(|engine| engine.join().unwrap())
        .collect();
    let matched = pool.match_sequence_hashes(&chain(0, 2));
    assert_eq!(matched.len(), 2, "content that nobody has");
    if duplicates == Duplicates::Reject {
        let mut all = held.iter();
        assert!(
            all.all(|held| held.slots().eq(matched.slots())),
            "one content in two slots"
        );
        assert_eq!(pool.status().in_use_blocks, 2);
    }
    let registered = pool.status().registered_blocks;
    assert_eq!(registered, 2, "one content registered twice");
    drop((held, matched));
    check(&pool, capacity);
}

#[test]
fn only_one_block_of_a_content_can_be_matched() {
    explore(|| same_content(2, Duplicates::Reject));
}

#[test]
fn of_duplicates_in_four_shards_one_can_be_matched() {
    explore(|| same_content(4, Duplicates::Allow));
}

#[test]
fn a_block_in_use_stays_while_others_evict_and_remove() {
    explore(|| {
        let pool = pool(4, 2, Duplicates::Allow);
        serve(&pool, &chain(0, 2));
        let holder = {
            let pool = pool.clone();
            thread::spawn(move || {
                let found = pool.match_sequence_hashes(&chain(0, 2));
                let slots: Vec<_> = found.slots().collect();
                thread::yield_now();
                assert!(found.sequence_hashes().eq(chain(0, found.len() as u32)));
                assert!(found.slots().eq(slots));
                let weak = found.get(0).map(|block| block.downgrade());
                drop(found);
                if let Some(block) = weak.and_then(|weak| weak.upgrade()) {
                    assert_eq!(block.sequence_hash(), hash(0, 0));
                }
            })
        };
        let remover = {
            let pool = pool.clone();
            thread::spawn(move || {
                pool.remove_blocks(&chain(0, 2));
                pool.reset();
            })
        };
        serve(&pool, &chain(1, 2));
        holder.join().unwrap();
        remover.join().unwrap();
        check(&pool, 4);
    });
}

/// Sees that the events of each block, in order of their numbers, are stored, removed, stored, ….
#[derive(Default)]
struct Log(std::sync::Mutex<Vec<(u64, u128, bool)>>);

impl EventSink for Log {
    fn publish(&self, events: &[BlockEvent]) {
        let mut log = self.0.lock().unwrap();
        log.extend(events.iter().map(|event| match *event {
            BlockEvent::Stored {
                sequence,
                sequence_hash,
            } => (sequence, sequence_hash.as_u128(), true),
            BlockEvent::Removed {
                sequence,
                sequence_hash,
            } => (sequence, sequence_hash.as_u128(), false),
            _ => unreachable!("all events are known"),
        }));
    }
}

#[test]
fn events_of_a_block_are_numbered_in_order() {
    explore(|| {
        let log = std::sync::Arc::new(Log::default());
        let builder = BlockPool::builder()
            .capacity_blocks(4)
            .shards(2)
            .policy(PolicyKind::Lru);
        let pool = builder
            .event_sink(std::sync::Arc::clone(&log) as _)
            .build()
            .unwrap();
        let engines = [0, 1].map(|number| {
            let pool = pool.clone();
            thread::spawn(move || {
                serve(&pool, &chain(number, 2));
                serve(&pool, &chain(0, 2));
            })
        });
        engines
            .into_iter()
            .for_each(|engine| engine.join().unwrap());
        let mut events = log.0.lock().unwrap().clone();
        events.sort_unstable();
        let mut present = BTreeSet::new();
        for (_, hash, stored) in events {
            let changed = if stored {
                present.insert(hash)
            } else {
                present.remove(&hash)
            };
            assert!(changed, "an event that changes nothing");
        }
        assert_eq!(present.len(), pool.status().cached_blocks);
    });
}

#[test]
fn who_must_be_served_is_served() {
    explore(|| {
        let pool = pool(4, 2, Duplicates::Allow);
        let turns = Arc::new(Mutex::new(0));
        let engines = [0, 1].map(|number| {
            let (pool, turns) = (pool.clone(), Arc::clone(&turns));
            thread::spawn(move || {
                for turn in 0..2 {
                    serve(&pool, &chain(2 * number + turn, 2));
                    *turns.lock().unwrap() += 1;
                }
            })
        });
        engines
            .into_iter()
            .for_each(|engine| engine.join().unwrap());
        assert_eq!(*turns.lock().unwrap(), 4);
        check(&pool, 4);
    });
}

#[test]
fn who_asks_beside_a_drop_gets_what_nobody_uses() {
    explore(|| {
        let pool = pool(2, 1, Duplicates::Allow);
        let used = pool
            .register_blocks(
                pool.allocate_blocks(1)
                    .unwrap()
                    .complete(&[hash(0, 0)])
                    .unwrap(),
            )
            .unwrap();
        serve(&pool, &[hash(1, 0)]);
        let dropping = thread::spawn(move || drop(used));
        let matching = {
            let pool = pool.clone();
            thread::spawn(move || pool.match_sequence_hashes(&[hash(0, 0)]))
        };
        // At most one block of the two is in use at any time.
        let fresh = {
            let pool = pool.clone();
            thread::spawn(move || pool.allocate_blocks(1))
        };
        let fresh = fresh.join().unwrap().unwrap();
        dropping.join().unwrap();
        let matched = matching.join().unwrap();
        drop((fresh, matched));
        check(&pool, 2);
    });
}
