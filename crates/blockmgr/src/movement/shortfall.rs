//! A store that holds fewer blocks than its tier has places for.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{BlockPool, MutableBlocks};

/// After so many times the blocks that fit, the store is asked again whether it holds more: its disk may have room by now.
const TURNOVERS: usize = 4;

/// A tier below memory whose store was full before the tier was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// Blocks that the store held when it last took no more.
    pub fitting_blocks: usize,
    /// Places of the tier that are kept out of use, so that blocks leave for those that come.
    pub withheld_blocks: usize,
    /// What the store said.
    pub reason: String,
}

#[derive(Debug, Default)]
struct Noted {
    /// Places that nothing is put in; they look in use to the pool.
    places: Vec<MutableBlocks>,
    /// Blocks that were to be stored since the places were taken.
    tried_blocks: usize,
    fitting_blocks: usize,
    reason: Option<String>,
}

impl Noted {
    fn withheld_blocks(&self) -> usize {
        self.places.iter().map(MutableBlocks::len).sum()
    }
}

/// Makes a pool as small as its store proved to be. With free places that the store has no room for, nothing would ever be
/// evicted, and so nothing new could ever be stored.
#[derive(Debug, Default)]
pub(super) struct Withheld(Mutex<Noted>);

impl Withheld {
    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store was full though all that it has are blocks of the pool.
    pub(super) fn refuse(&self, pool: &BlockPool, batch_blocks: usize, reason: String) {
        let mut noted = self.lock();
        let status = pool.status();
        let withheld = noted.withheld_blocks();
        let known = (status.cached_blocks + status.in_use_blocks).saturating_sub(withheld);
        // A tier without a place for a batch would never ask the store again.
        let kept = batch_blocks.saturating_sub(known);
        let surplus = status.free_blocks.saturating_sub(kept);
        // The stepping thread alone takes places, so those that were free still are.
        if let (true, Ok(places)) = (surplus > 0, pool.allocate_blocks(surplus)) {
            noted.places.push(places);
        }
        noted.tried_blocks = 0;
        noted.fitting_blocks = known;
        noted.reason = Some(reason);
    }

    /// So many blocks are about to be stored. Now and then what was withheld is given back.
    pub(super) fn attempt(&self, count: usize) {
        let mut noted = self.lock();
        noted.tried_blocks = noted.tried_blocks.saturating_add(count);
        if noted.tried_blocks >= noted.fitting_blocks.saturating_mul(TURNOVERS) {
            noted.places.clear();
        }
    }

    pub(super) fn shortfall(&self) -> Option<Shortfall> {
        let noted = self.lock();
        Some(Shortfall {
            fitting_blocks: noted.fitting_blocks,
            withheld_blocks: noted.withheld_blocks(),
            reason: noted.reason.clone()?,
        })
    }
}

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests {
    use super::*;
    use crate::SequenceHash;

    fn pool(capacity: usize, known: u32) -> BlockPool {
        let pool = BlockPool::builder().capacity_blocks(capacity);
        let pool = pool.build().unwrap();
        for number in 0..known {
            let fresh = pool.allocate_blocks(1).unwrap();
            let hash = SequenceHash::new(u128::from(number) << 64, number);
            drop(pool.register_blocks(fresh.complete(&[hash]).unwrap()));
        }
        pool
    }

    fn refuse(withheld: &Withheld, pool: &BlockPool) {
        withheld.refuse(pool, 4, "full".to_owned());
    }

    #[test]
    fn what_a_store_has_no_room_for_is_withheld_for_a_while() {
        let (pool, withheld) = (pool(100, 10), Withheld::default());
        withheld.attempt(1000);
        assert_eq!(withheld.shortfall(), None);
        for _ in 0..2 {
            refuse(&withheld, &pool);
            let shortfall = withheld.shortfall().unwrap();
            assert_eq!(
                (shortfall.fitting_blocks, shortfall.withheld_blocks),
                (10, 90)
            );
            assert_eq!(pool.available_blocks(), 10);
        }
        withheld.attempt(39);
        assert_eq!(pool.available_blocks(), 10);
        withheld.attempt(1);
        assert_eq!(pool.available_blocks(), 100, "it is tried again");
    }

    #[test]
    fn a_place_for_a_batch_stays_whatever_the_store_refuses() {
        for (known, fitting) in [(0, 4), (3, 4), (4, 4), (5, 5)] {
            let (pool, withheld) = (pool(100, known), Withheld::default());
            refuse(&withheld, &pool);
            refuse(&withheld, &pool);
            assert_eq!(pool.available_blocks(), fitting, "{known} known");
        }
    }
}
