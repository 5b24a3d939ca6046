//! Many threads at one pool: nothing is lost, and nobody is refused who must not be. Also a run for ThreadSanitizer.
#![cfg(not(shuttle))]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use blockmgr::policy::PolicyKind;
use blockmgr::{BlockPool, Duplicates, EvictedBlock, EvictionHook, SequenceHash};

const THREADS: usize = 4;

/// The most blocks that a thread holds.
const HELD: usize = 24;

/// Requests a thread: `STEPWELL_SEEDS` times ten, or so many.
fn requests() -> usize {
    let seeds = std::env::var("STEPWELL_SEEDS").ok();
    let seeds = seeds.and_then(|seeds| seeds.parse::<usize>().ok());
    seeds.map_or(3000, |seeds| seeds * 10)
}

/// What each slot's memory holds: the low bits of its block's hash, or nothing.
struct Memory(Vec<AtomicU32>);

impl Memory {
    fn content(hash: SequenceHash) -> u32 {
        hash.as_u128() as u32 | 1
    }
}

/// Sees that a block which leaves still has its content.
struct Checker(Arc<Memory>, AtomicUsize);

impl EvictionHook for Checker {
    fn evicted(&self, blocks: &[EvictedBlock]) {
        for block in blocks {
            let content = self.0.0[block.slot.0 as usize].load(Ordering::Relaxed);
            assert_eq!(content, Memory::content(block.sequence_hash));
        }
        self.1.fetch_add(blocks.len(), Ordering::Relaxed);
    }
}

/// A block of one of a few chains that begin alike.
fn hash(chain: u64, position: u32) -> SequenceHash {
    let chain = if position < 2 { chain % 3 } else { chain };
    let number = u128::from(chain) << 32 | u128::from(position + 1);
    let bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    SequenceHash::new(bits ^ bits >> 64, position)
}

fn next(random: &mut u64, below: u64) -> u64 {
    *random = random
        .wrapping_mul(0x5851_f42d_4c95_7f2d)
        .wrapping_add(0x14057);
    (*random >> 33) % below
}

/// What an engine does, again and again, with every byte checked; its requests have at least so many blocks.
fn engine(pool: &BlockPool, memory: &Memory, least: usize, seed: u64) -> u64 {
    let mut random = seed;
    let mut matched = 0;
    for _ in 0..requests() {
        let chain = next(&mut random, 40);
        let blocks = (least as u64 + next(&mut random, (HELD + 1 - least) as u64)) as u32;
        let hashes: Vec<_> = (0..blocks).map(|position| hash(chain, position)).collect();
        let found = pool.match_sequence_hashes(&hashes);
        for (slot, hash) in found.slots().zip(found.sequence_hashes()) {
            let content = memory.0[slot.0 as usize].load(Ordering::Relaxed);
            assert_eq!(content, Memory::content(hash));
        }
        matched += found.len() as u64;
        let missing = &hashes[found.len()..];
        // There is room for what all threads hold at most, so this is never refused.
        let fresh = pool.allocate_blocks(missing.len()).unwrap();
        for (slot, &hash) in fresh.slots().zip(missing) {
            memory.0[slot.0 as usize].store(Memory::content(hash), Ordering::Relaxed);
        }
        if next(&mut random, 8) == 0 {
            continue;
        }
        let complete = fresh.complete(missing).unwrap();
        let registered = pool.register_blocks(complete).unwrap();
        for (slot, hash) in registered.slots().zip(missing) {
            let content = memory.0[slot.0 as usize].load(Ordering::Relaxed);
            assert_eq!(content, Memory::content(*hash));
        }
        let weak = registered.get(0).map(|block| block.downgrade());
        drop(registered.clone());
        drop(registered);
        if let Some(block) = weak.and_then(|weak| weak.upgrade()) {
            let content = memory.0[block.slot().0 as usize].load(Ordering::Relaxed);
            assert_eq!(content, Memory::content(block.sequence_hash()));
        }
        match next(&mut random, 64) {
            0 => drop(pool.reset()),
            1 => drop(pool.remove_blocks(&hashes)),
            2 => drop(pool.touch_blocks(&hashes, &blockmgr::RequestOptions::default())),
            _ => {}
        }
    }
    matched
}

fn run(shards: usize, duplicates: Duplicates, policy: PolicyKind, least: usize) {
    // As tight as can be: each thread holds at most so many at once, and one more by upgrading.
    let capacity = THREADS * (HELD + 1);
    let memory = Arc::new(Memory((0..capacity).map(|_| AtomicU32::new(0)).collect()));
    let checker = Arc::new(Checker(Arc::clone(&memory), AtomicUsize::new(0)));
    let pool = BlockPool::builder()
        .capacity_blocks(capacity)
        .shards(shards)
        .policy(policy)
        .duplicates(duplicates)
        .eviction_hook(Arc::clone(&checker) as Arc<dyn EvictionHook>)
        .build()
        .unwrap();
    let matched: u64 = std::thread::scope(|scope| {
        let engines = (0..THREADS as u64).map(|seed| {
            let (pool, memory) = (&pool, &memory);
            scope.spawn(move || engine(pool, memory, least, seed))
        });
        let engines: Vec<_> = engines.collect();
        engines
            .into_iter()
            .map(|engine| engine.join().unwrap())
            .sum()
    });
    assert!(matched > 0 && checker.1.load(Ordering::Relaxed) > 0);
    let status = pool.status();
    assert_eq!(status.in_use_blocks, 0);
    assert_eq!(status.free_blocks + status.cached_blocks, capacity);
    pool.reset();
    assert_eq!(pool.allocate_blocks(capacity).unwrap().len(), capacity);
}

#[test]
fn one_shard_serves_threads() {
    run(1, Duplicates::Allow, PolicyKind::default(), 1);
}

#[test]
fn shards_serve_threads_with_duplicates() {
    run(4, Duplicates::Allow, PolicyKind::default(), 1);
}

#[test]
fn shards_serve_threads_without_duplicates() {
    run(4, Duplicates::Reject, PolicyKind::default(), 1);
}

#[test]
fn every_policy_serves_threads() {
    for policy in PolicyKind::ALL {
        run(2, Duplicates::Allow, policy, 1);
    }
}

#[test]
fn every_policy_serves_threads_that_hold_nearly_all() {
    for policy in PolicyKind::ALL {
        run(2, Duplicates::Allow, policy, HELD - 2);
    }
}

#[test]
fn free_slots_go_before_kept_blocks_whosever_shard_has_them() {
    let capacity = 64;
    let builder = BlockPool::builder().capacity_blocks(capacity).shards(4);
    let pool = builder.build().unwrap();
    let serve = |number: usize| {
        let fresh = pool.allocate_blocks(1).unwrap();
        let hash = SequenceHash::new((number as u128 + 1) << 70 | 1, 0);
        pool.register_blocks(fresh.complete(&[hash]).unwrap())
            .unwrap()
    };
    // Another thread has a shard of its own by this, nearly all of it free.
    let held = std::thread::scope(|scope| scope.spawn(|| serve(0)).join().unwrap());
    for number in 1..capacity {
        drop(serve(number));
        assert_eq!(pool.status().evicted_blocks, 0, "after {number} blocks");
    }
    drop(held);
    assert_eq!(pool.status().free_blocks, 0);
    assert_eq!(pool.allocate_blocks(1).unwrap().len(), 1);
    assert_eq!(pool.status().evicted_blocks, 1);
}
