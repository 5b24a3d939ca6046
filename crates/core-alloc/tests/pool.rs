//! What a pool keeps, wastes and frees, against a model.

use std::collections::BTreeMap;

use core_alloc::{
    AddressableStorage, Alignment, Fault, FixedPool, HostStorage, Limit, Pool, PoolConfig, Stats,
    StorageAllocator, StorageError, SystemAllocator,
};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Get(usize),
    Put(usize),
    Trim(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (1024usize..200_000).prop_map(Step::Get),
        4 => any::<usize>().prop_map(Step::Put),
        1 => (0usize..400_000).prop_map(Step::Trim),
    ];
    prop::collection::vec(step, 1..120)
}

/// The size class rule, written down a second time: the least multiple of the granule that is a
/// multiple of an eighth of the power of two below.
fn class_bytes(size: usize, granule: usize) -> usize {
    let below = (size - 1).max(1).ilog2();
    let step = (1usize << below.saturating_sub(3)).max(granule);
    size.div_ceil(step) * step
}

/// What a pool should hold: blocks in use and waiting, by size.
#[derive(Default)]
struct Model {
    waiting: BTreeMap<usize, usize>,
    held_bytes: usize,
    high_water_bytes: usize,
    misses: u64,
}

impl Model {
    fn get(&mut self, block: usize) {
        match self.waiting.get_mut(&block) {
            Some(count) if *count > 0 => *count -= 1,
            _ => {
                self.misses += 1;
                self.held_bytes += block;
                self.high_water_bytes = self.high_water_bytes.max(self.held_bytes);
            }
        }
    }

    fn idle_bytes(&self) -> usize {
        self.waiting.iter().map(|(size, count)| size * count).sum()
    }

    /// Largest first, until at most `keep` bytes wait.
    fn trim(&mut self, keep: usize) -> usize {
        let mut freed = 0;
        let wanted = self.idle_bytes().saturating_sub(keep);
        for (size, count) in self.waiting.iter_mut().rev() {
            while freed < wanted && *count > 0 {
                *count -= 1;
                freed += size;
            }
        }
        self.held_bytes -= freed;
        freed
    }
}

proptest! {
    #[test]
    fn a_pool_without_pressure_equals_its_model(steps in steps()) {
        let stats = Stats::new(SystemAllocator);
        let pool = Pool::new(&stats)?;
        let mut model = Model::default();
        let mut live = Vec::new();
        for step in steps {
            match step {
                Step::Get(size) => {
                    let storage = pool.allocate_uninit(size)?;
                    prop_assert_eq!(storage.size(), size);
                    let block = class_bytes(size, 128);
                    prop_assert_eq!(pool.block_bytes(size), block);
                    model.get(block);
                    live.push((block, storage));
                }
                Step::Put(choice) if !live.is_empty() => {
                    let (block, storage) = live.swap_remove(choice % live.len());
                    drop(storage);
                    *model.waiting.entry(block).or_default() += 1;
                }
                Step::Put(_) => {}
                Step::Trim(keep) => prop_assert_eq!(pool.trim(keep), model.trim(keep)),
            }
            let usage = pool.usage();
            prop_assert_eq!(usage.held_bytes, model.held_bytes);
            prop_assert_eq!(usage.idle_bytes, model.idle_bytes());
            prop_assert_eq!(usage.high_water_bytes, model.high_water_bytes);
            prop_assert_eq!(usage.misses, model.misses);
            prop_assert_eq!(stats.all().current_bytes, usage.held_bytes as u64);
        }
        drop(live);
        drop(pool);
        prop_assert_eq!(stats.all().current_bytes, 0);
        prop_assert_eq!(stats.all().current_count, 0);
    }

    /// Fragmentation: whatever is asked for in whatever order, a pool holds at most 9/8 of the bytes
    /// in use plus what it may retain; and only so many blocks wait as may.
    #[test]
    fn a_pool_holds_at_most_what_it_may(
        steps in steps(),
        retained_max in prop_oneof![Just(0usize), 1000usize..1_000_000],
        blocks_max in 0u32..20,
    ) {
        let stats = Stats::new(SystemAllocator);
        let config = PoolConfig::default()
            .with_retained_max_bytes(retained_max)
            .with_blocks_max(blocks_max);
        let pool = Pool::with_config(&stats, config)?;
        let mut live = Vec::new();
        for step in steps {
            match step {
                Step::Get(size) => live.push(pool.allocate_uninit(size)?),
                Step::Put(choice) if !live.is_empty() => {
                    drop(live.swap_remove(choice % live.len()));
                }
                Step::Put(_) => {}
                Step::Trim(keep) => _ = pool.trim(keep),
            }
            let in_use: usize = live.iter().map(|storage| storage.size()).sum();
            let usage = pool.usage();
            prop_assert!(8 * (usage.held_bytes - usage.idle_bytes) <= 9 * in_use);
            prop_assert!(usage.idle_bytes <= retained_max);
            prop_assert!(usage.idle_blocks <= blocks_max as usize);
            prop_assert!(8 * usage.held_bytes <= 9 * in_use + 8 * retained_max);
            prop_assert!(usage.high_water_bytes >= usage.held_bytes);
            prop_assert_eq!(stats.all().current_bytes, usage.held_bytes as u64);
        }
        drop(pool);
        drop(live);
        prop_assert_eq!(stats.all().current_count, 0);
    }
}

fn block(size: usize) -> PoolConfig {
    PoolConfig::default().with_retained_max_bytes(size)
}

#[test]
fn a_used_block_is_handed_out_again() -> Result<(), StorageError> {
    let pool = Pool::new(SystemAllocator)?;
    let mut first = pool.allocate(2 << 20)?;
    first.as_mut_slice().fill(7);
    let address = first.addr();
    drop(first);
    let again = pool.allocate((2 << 20) - 1000)?;
    assert_eq!(again.addr(), address, "same class");
    assert!(again.as_slice().iter().all(|&byte| byte == 0));
    assert_eq!(pool.usage().misses, 1);
    Ok(())
}

#[test]
fn other_sizes_make_room() -> Result<(), StorageError> {
    let pool = Pool::with_config(SystemAllocator, block(1 << 20))?;
    drop(pool.allocate(1 << 20)?);
    assert_eq!(pool.usage().idle_bytes, 1 << 20);
    drop(pool.allocate(1 << 19)?);
    let usage = pool.usage();
    assert_eq!((usage.idle_bytes, usage.evicted), (1 << 19, 1));
    Ok(())
}

#[test]
fn what_is_above_the_bound_is_freed_and_counted() -> Result<(), StorageError> {
    let pool = Pool::with_config(SystemAllocator, block(2 << 20))?;
    let live: Result<Vec<_>, _> = (0..5).map(|_| pool.allocate(1 << 20)).collect();
    drop(live?);
    let usage = pool.usage();
    assert_eq!((usage.idle_blocks, usage.released), (2, 3));
    assert_eq!(usage.high_water_bytes, 5 << 20);
    pool.reset_high_water();
    assert_eq!(pool.usage().high_water_bytes, 2 << 20);
    Ok(())
}

#[test]
fn lack_of_memory_frees_what_waits() -> Result<(), StorageError> {
    let limit = Limit::new(SystemAllocator, 3 << 20);
    let pool = Pool::new(&limit)?;
    drop(pool.allocate(2 << 20)?);
    assert_eq!(limit.used_bytes(), 2 << 20);
    let other = pool.allocate(3 << 20)?;
    assert_eq!(pool.usage().evicted, 1);
    let refused = pool.allocate(1).map(drop);
    assert!(
        matches!(refused, Err(StorageError::LimitExceeded { .. })),
        "{refused:?}"
    );
    drop(other);
    drop(pool);
    assert_eq!(limit.used_bytes(), 0);
    Ok(())
}

#[test]
fn large_requests_pass_through_at_their_size() -> Result<(), StorageError> {
    let stats = Stats::new(SystemAllocator);
    let pool = Pool::with_config(&stats, PoolConfig::default().with_block_max_bytes(4096))?;
    let storage = pool.allocate(1_000_001)?;
    assert_eq!(stats.all().current_bytes, 1_000_001);
    drop(storage);
    assert_eq!((stats.all().current_bytes, pool.usage().held_bytes), (0, 0));
    Ok(())
}

#[test]
fn bad_bounds_are_named() {
    let at_fault = |config| match Pool::with_config(SystemAllocator, config) {
        Err(StorageError::InvalidConfig { field, .. }) => field,
        _ => "nothing",
    };
    let base = PoolConfig::default();
    assert_eq!(at_fault(base.with_block_max_bytes(0)), "block_max_bytes");
    assert_eq!(
        at_fault(base.with_block_max_bytes(usize::MAX)),
        "block_max_bytes"
    );
    assert_eq!(at_fault(base.with_blocks_max(u32::MAX)), "blocks_max");
    assert_eq!(
        at_fault(base.with_alignment(Alignment::DIRECT_IO)),
        "nothing"
    );
}

/// Blocks come back from several threads while the pool is dropped; none is lost or freed twice.
#[test]
fn a_pool_may_go_while_blocks_come_back() -> Result<(), StorageError> {
    let stats = Stats::new(SystemAllocator);
    for round in 0..200 {
        let pool = Pool::new(&stats)?;
        let mut hands: Vec<Vec<_>> = (0..3).map(|_| Vec::new()).collect();
        for hand in &mut hands {
            for size in 1..20 {
                hand.push(pool.allocate_uninit(size * 100 + round)?);
            }
        }
        std::thread::scope(|scope| {
            for hand in hands {
                scope.spawn(move || drop(hand));
            }
            scope.spawn(move || drop(pool));
        });
        assert_eq!(stats.all().current_count, 0, "round {round}");
    }
    Ok(())
}

#[test]
fn trimming_and_use_at_once_lose_nothing() -> Result<(), StorageError> {
    let stats = Stats::new(SystemAllocator);
    let pool = Pool::with_config(&stats, block(300_000))?;
    std::thread::scope(|scope| {
        for thread in 0..3usize {
            let pool = &pool;
            scope.spawn(move || {
                let mut live = Vec::new();
                for round in 0..3000usize {
                    let size = 1 + (round * 7919 + thread * 104_729) % 50_000;
                    live.push(pool.allocate_uninit(size).ok());
                    if live.len() > 5 {
                        live.swap_remove(round % 5);
                    }
                }
            });
        }
        scope.spawn(|| {
            for keep in 0..300 {
                pool.trim(keep * 1000);
            }
        });
    });
    let usage = pool.usage();
    assert!(usage.idle_bytes <= 300_000);
    assert_eq!(usage.held_bytes, usage.idle_bytes);
    assert_eq!(stats.all().current_bytes, usage.held_bytes as u64);
    drop(pool);
    assert_eq!(stats.all().current_count, 0);
    Ok(())
}

#[test]
fn a_fixed_pool_may_go_while_blocks_come_back() -> Result<(), StorageError> {
    let stats = Stats::new(SystemAllocator);
    for round in 0..200 {
        let pool = FixedPool::new(&stats, 4096, 12)?;
        let blocks: Vec<_> = std::iter::from_fn(|| pool.take()).take(9).collect();
        assert_eq!((blocks.len(), pool.available()), (9, 3));
        std::thread::scope(|scope| {
            scope.spawn(move || drop(blocks));
            scope.spawn(move || drop(pool));
        });
        assert_eq!(stats.all().current_count, 0, "round {round}");
    }
    Ok(())
}

#[test]
fn a_fixed_pool_wastes_nothing_and_gives_back_what_it_had_on_failure() -> Result<(), StorageError> {
    let stats = Stats::new(SystemAllocator);
    let pool = FixedPool::new(&stats, 5000, 10)?;
    assert_eq!(stats.all().current_bytes, 50_000);
    let wrong = pool.allocate(4999).map(drop);
    assert!(matches!(
        wrong,
        Err(StorageError::InvalidConfig { field: "size", .. })
    ));
    let all: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!((all.len(), pool.available()), (10, 0));
    let none = pool.allocate(5000).map(drop);
    assert!(matches!(
        none,
        Err(StorageError::PoolExhausted { blocks: 10, .. })
    ));
    assert_eq!(pool.exhausted(), 1);
    drop((all, pool));

    let failing = FixedPool::new(&Fault::nth(&stats, 7), 5000, 10).map(drop);
    assert!(matches!(
        failing,
        Err(StorageError::Injected { nth: 7, .. })
    ));
    assert_eq!(stats.all().current_count, 0);
    for blocks in [0, usize::MAX] {
        let refused = FixedPool::new(&stats, 5000, blocks).map(drop);
        assert!(matches!(
            refused,
            Err(StorageError::InvalidConfig {
                field: "blocks",
                ..
            })
        ));
    }
    Ok(())
}
