//! Blocks that are kept for a time.
#![cfg(not(shuttle))]
#![expect(clippy::unwrap_used, reason = "tests")]

use blockmgr::{BlockPool, Error, ImmutableBlocks, SequenceHash};

const LONG_MS: u64 = 1 << 40;

fn pool() -> BlockPool {
    BlockPool::builder().capacity_blocks(4).build().unwrap()
}

fn hashes() -> Vec<SequenceHash> {
    (0..2)
        .map(|position| SequenceHash::new(77 + u128::from(position), position))
        .collect()
}

fn registered(pool: &BlockPool) -> ImmutableBlocks {
    let fresh = pool.allocate_blocks(2).unwrap();
    pool.register_blocks(fresh.complete(&hashes()).unwrap())
        .unwrap()
}

#[test]
fn leased_blocks_are_not_evicted() {
    let pool = pool();
    let lease = pool.lease_blocks(registered(&pool), LONG_MS).unwrap();
    let error = pool.allocate_blocks(3).unwrap_err();
    assert!(
        matches!(error, Error::Exhausted { available: 2, .. }),
        "{error}"
    );
    assert_eq!(pool.match_sequence_hashes(&hashes()).len(), 2);
    assert!(pool.end_lease(lease) && !pool.end_lease(lease));
    assert_eq!(pool.status().cached_blocks, 2);
    assert_eq!(pool.allocate_blocks(4).unwrap().len(), 4);
}

#[test]
fn a_lease_that_is_over_makes_room() {
    let pool = pool();
    let over = pool.lease_blocks(registered(&pool), 0).unwrap();
    assert_eq!(pool.status().in_use_blocks, 2);
    let running = pool.match_sequence_hashes(&hashes()[..1]);
    let running = pool.lease_blocks(running, LONG_MS).unwrap();
    // Of the two blocks of the first lease, the second still has the first block.
    assert_eq!(pool.allocate_blocks(3).unwrap().len(), 3);
    assert!(!pool.end_lease(over));
    assert!(pool.end_lease(running));
    assert_eq!(pool.status().in_use_blocks, 0);
}

#[test]
fn blocks_of_another_pool_come_back() {
    let (pool, other) = (pool(), pool());
    let refused = other.lease_blocks(registered(&pool), LONG_MS).unwrap_err();
    assert!(matches!(*refused.error, Error::ForeignBlock));
    assert_eq!(refused.offered.len(), 2);
}
