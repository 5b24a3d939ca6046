//! Policies that panic, and one that uses its own pool: nobody may wait for ever, and no slot be lost.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use blockmgr::policy::{Access, EvictionPolicy, Heritage, Lru, Policy, Slot};
use blockmgr::{
    BlockEvent, BlockPool, CompleteBlocks, Duplicates, Error, EventSink, ImmutableBlocks,
    RequestOptions, SequenceHash,
};

/// More than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A call of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Insert,
    Heritage,
    Hit,
    Release,
    Evict,
    Remove,
    Count,
}

/// Panics at some calls of one kind.
struct Panicking {
    lru: Lru,
    call: Call,
    panics: Range<usize>,
    /// Calls of this kind until now.
    calls: AtomicUsize,
}

impl Panicking {
    fn called(&self, call: Call) {
        if call == self.call {
            let before = self.calls.fetch_add(1, Ordering::Relaxed);
            assert!(!self.panics.contains(&before), "{call:?} panics");
        }
    }
}

impl EvictionPolicy for Panicking {
    fn insert(&mut self, slot: Slot, access: &Access) {
        self.called(Call::Insert);
        self.lru.insert(slot, access);
    }

    fn hit(&mut self, slot: Slot, access: &Access) {
        self.called(Call::Hit);
        self.lru.hit(slot, access);
    }

    fn pin(&mut self, slot: Slot) {
        self.lru.pin(slot);
    }

    fn heritage(&self, slot: Slot) -> Heritage {
        self.called(Call::Heritage);
        self.lru.heritage(slot)
    }

    fn release(&mut self, slot: Slot) {
        self.called(Call::Release);
        self.lru.release(slot);
    }

    fn evict(&mut self) -> Option<Slot> {
        self.called(Call::Evict);
        self.lru.evict()
    }

    fn remove(&mut self, slot: Slot) {
        self.called(Call::Remove);
        self.lru.remove(slot);
    }

    fn evictable_slots(&self) -> u32 {
        self.called(Call::Count);
        self.lru.evictable_slots()
    }
}

/// Blocks that the pool says it stored, less those that it says it removed.
#[derive(Default)]
struct Stored(AtomicUsize);

impl EventSink for Stored {
    fn publish(&self, events: &[BlockEvent]) {
        for event in events {
            match event {
                BlockEvent::Stored { .. } => self.0.fetch_add(1, Ordering::Relaxed),
                _ => self.0.fetch_sub(1, Ordering::Relaxed),
            };
        }
    }
}

const CAPACITY: usize = 6;

/// A pool of one shard, whose policy panics after so many calls of a kind.
fn pool(call: Call, remaining: usize, duplicates: Duplicates) -> (BlockPool, Arc<Stored>) {
    let stored = Arc::new(Stored::default());
    let sink = Arc::clone(&stored) as Arc<dyn EventSink>;
    let pool = pool_of(CAPACITY, 1, once(call, remaining), duplicates, sink);
    (pool, stored)
}

fn once(call: Call, remaining: usize) -> (Call, Range<usize>) {
    (call, remaining..remaining + 1)
}

fn pool_of(
    capacity_blocks: usize,
    shards: usize,
    (call, panics): (Call, Range<usize>),
    duplicates: Duplicates,
    sink: Arc<dyn EventSink>,
) -> BlockPool {
    let policy = move |slots| {
        Policy::Custom(Box::new(Panicking {
            lru: Lru::new(slots),
            call,
            panics: panics.clone(),
            calls: AtomicUsize::new(0),
        }))
    };
    BlockPool::builder()
        .capacity_blocks(capacity_blocks)
        .shards(shards)
        .duplicates(duplicates)
        .custom_policy(Box::new(policy))
        .event_sink(sink)
        .build()
        .unwrap()
}

/// A sink that panics at one call.
struct Deaf {
    /// Calls before the one that panics.
    remaining: AtomicUsize,
}

impl EventSink for Deaf {
    fn publish(&self, _events: &[BlockEvent]) {
        let before = self.remaining.fetch_sub(1, Ordering::Relaxed);
        assert_ne!(before, 0, "the sink panics");
    }
}

fn hashes(blocks: u32) -> Vec<SequenceHash> {
    let hash = |position| SequenceHash::new(1_000 + u128::from(position), position);
    (0..blocks).map(hash).collect()
}

fn complete(pool: &BlockPool, hashes: &[SequenceHash]) -> CompleteBlocks {
    let fresh = pool.allocate_blocks(hashes.len()).unwrap();
    fresh.complete(hashes).unwrap()
}

fn registered(pool: &BlockPool, hashes: &[SequenceHash]) -> ImmutableBlocks {
    pool.register_blocks(complete(pool, hashes)).unwrap()
}

fn panics(body: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(body)).is_err(), "no panic");
}

/// Runs something that might wait for ever.
fn in_time(body: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(body);
    let start = std::time::Instant::now();
    while !thread.is_finished() {
        assert!(start.elapsed() < PATIENCE, "it waits for ever");
        std::thread::sleep(Duration::from_millis(1));
    }
    thread.join().unwrap();
}

/// All blocks can be registered and let go, and all slots handed out.
fn serves(pool: BlockPool, stored: &Stored, cached: usize) {
    let status = pool.status();
    assert_eq!(status.in_use_blocks, 0, "{status:?}");
    assert_eq!(status.cached_blocks, cached, "{status:?}");
    assert_eq!(stored.0.load(Ordering::Relaxed), cached);
    in_time(move || {
        let all = hashes(CAPACITY as u32);
        let found = pool.match_sequence_hashes(&all);
        let rest = registered(&pool, &all[found.len()..]);
        drop((found, rest));
        assert_eq!(pool.match_sequence_hashes(&all).len(), CAPACITY);
        assert_eq!(pool.allocate_blocks(CAPACITY).unwrap().len(), CAPACITY);
    });
}

#[test]
fn a_registration_that_a_policy_breaks_off_leaves_nothing_behind() {
    for duplicates in [Duplicates::Allow, Duplicates::Reject] {
        for inserted in 0..3 {
            let (pool, stored) = pool(Call::Insert, inserted, duplicates);
            let blocks = complete(&pool, &hashes(3));
            panics(|| drop(pool.register_blocks(blocks)));
            serves(pool, &stored, inserted);
        }
    }
}

#[test]
fn a_duplicate_whose_takeover_a_policy_breaks_off_is_freed() {
    for call in [Call::Insert, Call::Release] {
        let (pool, stored) = pool(call, 1, Duplicates::Allow);
        let first = registered(&pool, &hashes(1));
        let later = registered(&pool, &hashes(1));
        drop(first);
        assert_eq!(pool.remove_blocks(&hashes(1)), 1);
        panics(|| drop(later));
        serves(pool, &stored, 0);
    }
}

#[test]
fn slots_come_back_from_an_allocation_that_a_policy_breaks_off() {
    for evicted in 0..3 {
        let (pool, stored) = pool(Call::Evict, evicted, Duplicates::Reject);
        drop(registered(&pool, &hashes(4)));
        panics(|| drop(pool.allocate_blocks(CAPACITY)));
        // What had left by then is free.
        assert_eq!(pool.status().cached_blocks, 4 - evicted);
        serves(pool, &stored, 4 - evicted);
    }
}

#[test]
fn a_removal_that_a_policy_breaks_off_has_happened() {
    let (pool, stored) = pool(Call::Remove, 0, Duplicates::Reject);
    drop(registered(&pool, &hashes(2)));
    panics(|| {
        pool.remove_blocks(&hashes(1));
    });
    serves(pool, &stored, 1);
}

#[test]
fn a_registration_is_not_counted_when_asking_for_heritage_panics() {
    for registered in 0..3 {
        let (pool, stored) = pool(Call::Heritage, registered, Duplicates::Allow);
        let blocks = complete(&pool, &hashes(3));
        panics(|| drop(pool.register_blocks(blocks)));
        serves(pool, &stored, registered);
    }
}

#[test]
fn a_duplicate_that_took_over_stays_when_the_sink_panics() {
    let sink = Arc::new(Deaf {
        remaining: AtomicUsize::new(2),
    });
    let never = (Call::Insert, 0..0);
    let pool = pool_of(CAPACITY, 1, never, Duplicates::Allow, sink);
    let first = registered(&pool, &hashes(1));
    let later = registered(&pool, &hashes(1));
    drop(first);
    assert_eq!(pool.remove_blocks(&hashes(1)), 1);
    panics(|| drop(later));
    assert_eq!(pool.match_sequence_hashes(&hashes(1)).len(), 1);
    assert_eq!(pool.status().in_use_blocks, 0);
    assert_eq!(pool.allocate_blocks(CAPACITY).unwrap().len(), CAPACITY);
}

#[test]
fn a_policy_that_panics_is_told_the_rest_the_next_time() {
    let (pool, _) = pool(Call::Release, 0, Duplicates::Allow);
    drop(registered(&pool, &hashes(4)));
    panics(|| drop(pool.allocate_blocks(CAPACITY)));
    // One block it believes in use.
    assert_eq!(
        pool.allocate_blocks(CAPACITY - 1).unwrap().len(),
        CAPACITY - 1
    );
    assert_eq!(pool.remove_blocks(&hashes(4)), 1);
    assert_eq!(pool.allocate_blocks(CAPACITY).unwrap().len(), CAPACITY);
}

#[test]
fn many_blocks_are_let_go_though_a_policy_panics_midway() {
    const MANY: usize = 600;
    for call in [Call::Release, Call::Hit] {
        let sink = Arc::new(Stored::default());
        let pool = pool_of(MANY, 1, once(call, 0), Duplicates::Allow, sink);
        let all = hashes(MANY as u32);
        if call == Call::Release {
            let blocks = registered(&pool, &all);
            panics(|| drop(blocks));
        } else {
            drop(registered(&pool, &all));
            panics(|| drop(pool.match_sequence_hashes(&all)));
        }
        let status = pool.status();
        assert_eq!((status.in_use_blocks, status.cached_blocks), (0, MANY));
        drop(pool.match_sequence_hashes(&all));
        assert_eq!(pool.allocate_blocks(MANY).unwrap().len(), MANY);
    }
}

#[test]
fn a_duplicate_is_freed_though_a_policy_panics_at_what_is_let_go_before_it() {
    // So many that whoever notes them tells the policy.
    const MANY: usize = 256;
    let capacity = MANY + 2;
    let sink = Arc::new(Stored::default());
    let fault = once(Call::Release, 0);
    let pool = pool_of(capacity, 1, fault, Duplicates::Allow, sink);
    let all = hashes(MANY as u32 + 1);
    let first = registered(&pool, &all[..1]);
    let mut blocks = registered(&pool, &all[..1]);
    blocks.append(registered(&pool, &all[1..])).unwrap();
    panics(|| drop(blocks));
    drop(first);
    let status = pool.status();
    assert_eq!((status.free_blocks, status.in_use_blocks), (1, 0));
    assert_eq!(status.cached_blocks, MANY + 1);
}

#[test]
fn slots_come_back_whenever_a_policy_panics_at_counting_what_may_leave() {
    // Each shard is counted once when the pool is made.
    for before in 1.. {
        let sink = Arc::new(Stored::default());
        let fault = once(Call::Count, before);
        let pool = pool_of(CAPACITY, 2, fault, Duplicates::Allow, sink);
        let served = || drop(pool.allocate_blocks(CAPACITY).unwrap());
        if catch_unwind(AssertUnwindSafe(served)).is_ok() {
            assert!(before > 2, "nothing panicked");
            break;
        }
        // The policy of the other shard may panic at this.
        drop(catch_unwind(AssertUnwindSafe(|| pool.status())));
        let status = pool.status();
        let counts = (status.free_blocks, status.in_use_blocks);
        assert_eq!(counts, (CAPACITY, 0), "call {before}");
    }
}

#[test]
fn many_blocks_are_let_go_by_a_policy_that_always_panics_on_a_small_stack() {
    const MANY: usize = 3000;
    // Less than a quarter of what other threads have: glibc gives a new thread one of theirs otherwise.
    const STACK_BYTES: usize = 256 << 10;
    let sink = Arc::new(Stored::default());
    let fault = (Call::Release, 0..usize::MAX);
    let pool = pool_of(MANY, 2, fault, Duplicates::Allow, sink);
    let mut shards = [Vec::new(), Vec::new()];
    for block in registered(&pool, &hashes(MANY as u32)) {
        shards[block.slot().0 as usize % 2].push(block);
    }
    // Each is of another shard than the one before: what was noted for that one is handed over, and the policy is told.
    let [even, odd] = shards;
    let in_turns = even.into_iter().zip(odd).flat_map(<[_; 2]>::from);
    let mut in_turns = in_turns.map(ImmutableBlocks::from);
    let mut blocks = in_turns.next().unwrap();
    for block in in_turns {
        blocks.append(block).unwrap();
    }
    assert_eq!(blocks.len(), MANY);
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    let thread = thread.spawn(move || panics(|| drop(blocks))).unwrap();
    thread.join().unwrap();
    // Of each block it is told once.
    let status = (0..=MANY).find_map(|_| catch_unwind(AssertUnwindSafe(|| pool.status())).ok());
    let status = status.unwrap();
    assert_eq!((status.in_use_blocks, status.cached_blocks), (0, MANY));
}

#[test]
fn a_sink_that_panics_while_a_policy_does_ends_no_process() {
    let sink = Arc::new(Deaf {
        remaining: AtomicUsize::new(0),
    });
    let pool = pool_of(CAPACITY, 1, once(Call::Insert, 2), Duplicates::Allow, sink);
    let blocks = complete(&pool, &hashes(3));
    panics(|| drop(pool.register_blocks(blocks)));
    assert_eq!(pool.status().in_use_blocks, 0);
    drop(registered(&pool, &hashes(CAPACITY as u32)));
    assert_eq!(pool.allocate_blocks(CAPACITY).unwrap().len(), CAPACITY);
}

/// Keeps what it has, and has a block used again whenever it is asked for one: as if others did so all the time.
struct Busy {
    pool: Arc<OnceLock<BlockPool>>,
    blocks: u32,
}

impl EvictionPolicy for Busy {
    fn insert(&mut self, _slot: Slot, _access: &Access) {
        self.blocks += 1;
    }

    fn hit(&mut self, _slot: Slot, _access: &Access) {}

    fn pin(&mut self, _slot: Slot) {}

    fn release(&mut self, _slot: Slot) {}

    fn evict(&mut self) -> Option<Slot> {
        if let Some(pool) = self.pool.get() {
            pool.touch_blocks(&hashes(1), &RequestOptions::default());
        }
        None
    }

    fn remove(&mut self, _slot: Slot) {}

    fn evictable_slots(&self) -> u32 {
        self.blocks
    }
}

#[test]
fn a_pool_whose_blocks_are_used_all_the_time_refuses_before_long() {
    let own = Arc::new(OnceLock::new());
    let known = Arc::clone(&own);
    let policy = move |_| {
        let pool = Arc::clone(&known);
        Policy::Custom(Box::new(Busy { pool, blocks: 0 }))
    };
    let builder = BlockPool::builder().capacity_blocks(CAPACITY).shards(1);
    let pool = builder.custom_policy(Box::new(policy)).build().unwrap();
    drop(registered(&pool, &hashes(2)));
    own.set(pool.clone()).unwrap();
    in_time(move || {
        let refused = pool.allocate_blocks(CAPACITY).unwrap_err();
        assert!(matches!(refused, Error::Exhausted { requested, .. } if requested == CAPACITY));
        assert_eq!(pool.status().free_blocks, CAPACITY - 2);
    });
}
