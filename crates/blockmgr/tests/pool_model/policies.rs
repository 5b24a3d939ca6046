//! What pools and policies tell each other, policies that are wrong about what they keep, and pools that are too large: nobody may lose
//! a block, and no slot.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use blockmgr::policy::{Access, EvictionPolicy, Policy, PolicyKind, Request, Slot};
use blockmgr::{
    BlockPool, Error, EvictedBlock, EvictionHook, ImmutableBlocks, RequestOptions, SequenceHash,
};

/// Gives slots up in the order in which they were inserted, whoever uses them, or none at all.
struct Wrong {
    slots: VecDeque<Slot>,
    gives: bool,
}

impl EvictionPolicy for Wrong {
    fn insert(&mut self, slot: Slot, _access: &Access) {
        self.slots.push_back(slot);
    }

    fn hit(&mut self, _slot: Slot, _access: &Access) {}

    fn pin(&mut self, _slot: Slot) {}

    fn release(&mut self, _slot: Slot) {}

    fn evict(&mut self) -> Option<Slot> {
        if self.gives {
            self.slots.pop_front()
        } else {
            None
        }
    }

    fn remove(&mut self, slot: Slot) {
        self.slots.retain(|kept| *kept != slot);
    }

    fn evictable_slots(&self) -> u32 {
        self.slots.len() as u32
    }
}

fn pool(gives: bool) -> BlockPool {
    let wrong = move |_| {
        let slots = VecDeque::new();
        Policy::Custom(Box::new(Wrong { slots, gives }))
    };
    let builder = BlockPool::builder().capacity_blocks(4);
    builder.custom_policy(Box::new(wrong)).build().unwrap()
}

fn hashes(blocks: u32) -> Vec<SequenceHash> {
    let hash = |position| SequenceHash::new(1_000 + u128::from(position), position);
    (0..blocks).map(hash).collect()
}

fn registered(pool: &BlockPool, blocks: u32) -> ImmutableBlocks {
    let fresh = pool.allocate_blocks(blocks as usize).unwrap();
    let complete = fresh.complete(&hashes(blocks)).unwrap();
    pool.register_blocks(complete).unwrap()
}

#[test]
fn blocks_in_use_stay_though_the_policy_names_them() {
    let pool = pool(true);
    let mut used = registered(&pool, 4);
    drop(used.split_off(2));
    let taken = pool.allocate_blocks(2).unwrap();
    let slots: BTreeSet<_> = taken.slots().chain(used.slots()).collect();
    assert_eq!(slots.len(), 4, "a slot is in two hands");
    assert_eq!(pool.match_sequence_hashes(&hashes(4)).len(), 2);
    assert!(used.sequence_hashes().eq(hashes(2)));
    assert!(matches!(
        pool.allocate_blocks(1),
        Err(Error::Exhausted { available: 0, .. })
    ));
    drop((taken, used));
    assert_eq!(pool.reset(), 2);
    assert_eq!(pool.status().free_blocks, 4);
}

#[test]
fn what_was_taken_for_a_refused_request_comes_back() {
    let pool = pool(false);
    drop(registered(&pool, 2));
    let refused = pool.allocate_blocks(3).unwrap_err();
    assert!(matches!(refused, Error::Exhausted { requested: 3, .. }));
    let status = pool.status();
    assert_eq!((status.free_blocks, status.cached_blocks), (2, 2));
    assert_eq!(pool.allocate_blocks(2).unwrap().len(), 2);
}

#[test]
fn a_pool_that_no_memory_holds_is_refused() {
    // A system that promises all memory that it is asked for would have to keep the promise.
    let promises = std::fs::read_to_string("/proc/sys/vm/overcommit_memory");
    if promises.is_ok_and(|mode| mode.trim() == "1") {
        return;
    }
    let most = 1 << 31;
    let refused = BlockPool::builder().capacity_blocks(most).build();
    assert!(
        matches!(
            refused,
            Err(Error::PoolMemory { capacity_blocks, needed_bytes })
                if capacity_blocks == most && needed_bytes >= 1 << 40
        ) || refused.is_ok_and(|pool| pool.capacity_blocks() == most)
    );
}

/// Keeps what it is told of uses, and gives up nothing.
struct Listener(Arc<Mutex<Vec<Told>>>);

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Insert { tick: u64, is_unasked: bool },
    Hit { tick: u64 },
    Again { access: Access, times: u32 },
    Release,
}

impl Listener {
    fn note(&self, told: Told) {
        self.0.lock().unwrap().push(told);
    }
}

impl EvictionPolicy for Listener {
    fn insert(&mut self, _slot: Slot, access: &Access) {
        let Request {
            tick, is_unasked, ..
        } = access.request;
        self.note(Told::Insert { tick, is_unasked });
    }

    fn hit(&mut self, _slot: Slot, access: &Access) {
        let tick = access.request.tick;
        self.note(Told::Hit { tick });
    }

    fn hit_again(&mut self, _slot: Slot, access: &Access, times: u32) {
        let access = *access;
        self.note(Told::Again { access, times });
    }

    fn pin(&mut self, _slot: Slot) {}

    fn release(&mut self, _slot: Slot) {
        self.note(Told::Release);
    }

    fn evict(&mut self) -> Option<Slot> {
        None
    }

    fn remove(&mut self, _slot: Slot) {}

    fn evictable_slots(&self) -> u32 {
        0
    }
}

#[test]
fn a_policy_is_told_of_uses_while_a_block_is_in_use_when_that_ends() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    let policy = move |_| Policy::Custom(Box::new(Listener(Arc::clone(&listener))));
    let builder = BlockPool::builder().capacity_blocks(4);
    let pool = builder.custom_policy(Box::new(policy)).build().unwrap();
    let heard = || {
        // Whoever takes slots tells the policy first.
        drop(pool.allocate_blocks(1).unwrap());
        std::mem::take(&mut *told.lock().unwrap())
    };
    let matched = |priority, time_ms| {
        let time_ms = Some(time_ms);
        let options = RequestOptions { priority, time_ms };
        let found = pool.match_sequence_hashes_with(&hashes(2), &options);
        assert_eq!(found.len(), 1);
        found
    };
    let held = registered(&pool, 1);
    let unasked = Told::Insert {
        tick: 0,
        is_unasked: true,
    };
    assert_eq!(heard(), [unasked]);
    let again = [matched(3, 70), matched(1, 90)];
    pool.touch_blocks(&hashes(1), &RequestOptions::default());
    let last = matched(2, 95);
    drop(again);
    drop(held);
    assert_eq!(heard(), [], "it is in use");
    drop(last);
    let heard_last = heard();
    let [Told::Again { access, times: 4 }, Told::Release] = heard_last[..] else {
        panic!("{heard_last:?}");
    };
    assert_eq!(access.sequence_hash, hashes(1)[0].as_u128());
    let request = access.request;
    assert_eq!((request.tick, request.time_ms), (3, 95));
    assert_eq!((request.priority, request.chain_blocks), (3, 2));
    drop(matched(0, 99));
    assert_eq!(heard(), [Told::Hit { tick: 4 }, Told::Release]);
}

#[test]
fn a_policy_is_told_which_blocks_no_request_asked_for() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    let policy = move |_| Policy::Custom(Box::new(Listener(Arc::clone(&listener))));
    let builder = BlockPool::builder().capacity_blocks(8);
    let pool = builder.custom_policy(Box::new(policy)).build().unwrap();
    let all = hashes(4);
    let register = |hashes: &[SequenceHash]| {
        let fresh = pool.allocate_blocks(hashes.len()).unwrap();
        pool.register_blocks(fresh.complete(hashes).unwrap())
            .unwrap()
    };
    let insert = |tick, is_unasked| Told::Insert { tick, is_unasked };
    let heard = || std::mem::take(&mut *told.lock().unwrap());
    for _ in 0..3 {
        assert_eq!(pool.match_sequence_hashes(&[]).len(), 0);
    }
    assert_eq!(pool.match_sequence_hashes(&all[..2]).len(), 0);
    let prompt = register(&all[..2]);
    assert_eq!(heard(), [insert(3, false), insert(3, false)]);
    // What the model answers is of the newest request, not of the one to come.
    let answer = [register(&all[2..3]), register(&all[3..])];
    assert_eq!(heard(), [insert(3, true), insert(3, true)]);
    drop((prompt, answer));
}

/// Tells apart which slots it may be asked about uses of.
#[derive(Default)]
struct Strict {
    evictable: BTreeSet<Slot>,
    hits: Arc<AtomicUsize>,
}

impl EvictionPolicy for Strict {
    fn insert(&mut self, slot: Slot, _access: &Access) {
        assert!(!self.evictable.contains(&slot));
    }

    fn hit(&mut self, slot: Slot, _access: &Access) {
        assert!(self.evictable.contains(&slot), "somebody uses it");
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    fn pin(&mut self, slot: Slot) {
        self.evictable.remove(&slot);
    }

    fn release(&mut self, slot: Slot) {
        self.evictable.insert(slot);
    }

    fn evict(&mut self) -> Option<Slot> {
        self.evictable.pop_first()
    }

    fn remove(&mut self, slot: Slot) {
        self.evictable.remove(&slot);
    }

    fn evictable_slots(&self) -> u32 {
        self.evictable.len() as u32
    }
}

#[test]
fn a_policy_hears_of_hits_on_slots_that_nobody_uses() {
    let hits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&hits);
    let policy = move |_| {
        Policy::Custom(Box::new(Strict {
            hits: Arc::clone(&counted),
            ..Strict::default()
        }))
    };
    let builder = BlockPool::builder().capacity_blocks(4);
    let pool = builder.custom_policy(Box::new(policy)).build().unwrap();
    let matched = || {
        let found = pool.match_sequence_hashes(&hashes(1));
        assert_eq!(found.len(), 1);
        found
    };
    // Matched while in use, and used again before the policy was told that it was let go.
    let held = registered(&pool, 1);
    drop(matched());
    drop(held);
    let again = matched();
    drop(pool.allocate_blocks(1).unwrap());
    drop(matched());
    drop(again);
    drop(pool.allocate_blocks(1).unwrap());
    assert_eq!(hits.load(Ordering::Relaxed), 3);
    assert_eq!(pool.status().cached_blocks, 1);
    assert_eq!(pool.allocate_blocks(4).unwrap().len(), 4);
}

/// Counts how often it is told that time goes on.
struct Clocked(Arc<AtomicUsize>);

impl EvictionPolicy for Clocked {
    fn insert(&mut self, _slot: Slot, _access: &Access) {}

    fn hit(&mut self, _slot: Slot, _access: &Access) {}

    fn pin(&mut self, _slot: Slot) {}

    fn release(&mut self, _slot: Slot) {}

    fn evict(&mut self) -> Option<Slot> {
        None
    }

    fn remove(&mut self, _slot: Slot) {}

    fn evictable_slots(&self) -> u32 {
        0
    }

    fn advance(&mut self, _tick: u64) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn victim_worth(&self) -> Option<f32> {
        Some(1.0)
    }
}

#[test]
fn pools_that_a_thread_uses_in_turns_all_notice_that_time_goes_on() {
    let pools = [(); 4].map(|()| {
        let advances = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&advances);
        let policy = move |_| Policy::Custom(Box::new(Clocked(Arc::clone(&counted))));
        let builder = BlockPool::builder().capacity_blocks(4);
        let pool = builder.custom_policy(Box::new(policy)).build().unwrap();
        (pool, advances)
    });
    for _ in 0..64 {
        for (pool, _) in &pools {
            drop(pool.allocate_blocks(1).unwrap());
        }
    }
    let advances = pools.map(|(_, advances)| advances.load(Ordering::Relaxed));
    assert_eq!(advances, [16; 4]);
}

#[test]
fn a_block_may_have_the_last_position_that_there_is() {
    for policy in PolicyKind::ALL {
        let builder = BlockPool::builder().capacity_blocks(2).policy(policy);
        let pool = builder.build().unwrap();
        let last = [SequenceHash::new(1 << 70, u32::MAX)];
        let complete = pool.allocate_blocks(1).unwrap().complete(&last).unwrap();
        let registered = pool.register_blocks(complete).unwrap();
        // While it is in use, and after that.
        assert_eq!(pool.match_sequence_hashes(&last).len(), 1);
        drop(registered);
        assert_eq!(pool.match_sequence_hashes(&last).len(), 1);
        assert_eq!(pool.allocate_blocks(2).unwrap().len(), 2, "{policy}");
    }
}

#[test]
fn what_nobody_uses_is_handed_out_however_little_it_is() {
    let capacity = 50;
    let hash = |number: usize| SequenceHash::new((number as u128 + 1) << 70 | 1, 0);
    let all: Vec<_> = (0..capacity).map(hash).collect();
    for policy in PolicyKind::ALL {
        for rest in 1..10 {
            let builder = BlockPool::builder().capacity_blocks(capacity).shards(1);
            let pool = builder.policy(policy).build().unwrap();
            let fresh = pool.allocate_blocks(capacity).unwrap();
            drop(pool.register_blocks(fresh.complete(&all).unwrap()).unwrap());
            // All were in nobody's hands when the policy was told last, and most are used again.
            assert_eq!(pool.status().cached_blocks, capacity);
            let held = all[rest..]
                .iter()
                .map(|hash| pool.match_sequence_hashes(&[*hash]));
            let held: Vec<_> = held.collect();
            assert!(held.iter().all(|found| found.len() == 1));
            let taken = pool.allocate_blocks(rest);
            assert!(taken.is_ok(), "{policy}: {taken:?}");
        }
    }
}

#[test]
fn room_is_made_where_nothing_was_touched_lately() {
    let capacity = 64;
    let builder = BlockPool::builder().capacity_blocks(capacity).shards(2);
    let pool = builder.policy(PolicyKind::Lru).build().unwrap();
    let hash = |number: usize| SequenceHash::new((number as u128 + 1) << 70, 0);
    let serve = |number| {
        let hash = [hash(number)];
        assert_eq!(pool.match_sequence_hashes(&hash).len(), 0);
        let complete = pool.allocate_blocks(1).unwrap().complete(&hash).unwrap();
        let registered = pool.register_blocks(complete).unwrap();
        registered.slots().next().unwrap().0
    };
    let slots: Vec<_> = (0..capacity).map(serve).collect();
    for _ in 0..8 {
        for (number, _) in slots.iter().enumerate().filter(|(_, slot)| **slot % 2 == 0) {
            let touched = pool.touch_blocks(&[hash(number)], &RequestOptions::default());
            assert_eq!(touched, 1);
        }
    }
    let taken: Vec<_> = (capacity..capacity + 24).map(serve).collect();
    let of_touched = taken.iter().filter(|slot| **slot % 2 == 0).count();
    assert!(of_touched <= 4, "{of_touched} of 24");
}

/// Can't keep what it is offered.
struct Failing;

impl EvictionHook for Failing {
    fn evicted(&self, blocks: &[EvictedBlock]) {
        panic!("nobody takes {} blocks", blocks.len());
    }
}

#[test]
fn slots_come_back_from_a_hook_that_panics() {
    let builder = BlockPool::builder().capacity_blocks(4);
    let pool = builder.eviction_hook(Arc::new(Failing)).build().unwrap();
    drop(registered(&pool, 3));
    let allocates = || drop(pool.allocate_blocks(2));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(allocates)).is_err());
    let status = pool.status();
    assert_eq!((status.free_blocks, status.cached_blocks), (2, 2));
}
