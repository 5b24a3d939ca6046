//! Which slot has which block.

use super::cell::{Cell, Key, Pin};
use super::index::{Index, Presence, mixed};
use crate::SequenceHash;
use crate::sync::atomic::{Ordering, fence};
use crate::sync::yield_now;

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// Blocks that can be entered at once.
pub(super) const BATCH_MAX: usize = 64;

/// The hash of each slot's block, in an [`Index`] for each shard.
///
/// A slot's hash changes only under the lock of its shard, and anybody may look for a block without one. That no two
/// slots have the same block is settled without a lock too: a block is entered tentatively, then looked for in the
/// other shards. Of two threads that do so at once at least one sees the other's entry; where it is tentative
/// as well the shard with the lower number has precedence, and waits to see whether the other noticed.
#[derive(Debug)]
pub(super) struct Directory {
    indexes: Box<[Index]>,
    bits: u32,
}

impl Directory {
    /// For shards of these slots each, a power of two of them.
    pub(super) fn new(cells_of_each: &[std::sync::Arc<[Cell]>]) -> Self {
        Self {
            indexes: cells_of_each.iter().cloned().map(Index::new).collect(),
            bits: cells_of_each.len().trailing_zeros(),
        }
    }

    #[inline]
    fn shard_of(&self, slot: u32) -> usize {
        slot as usize & (self.indexes.len() - 1)
    }

    #[inline]
    fn at(&self, slot: u32) -> (&Index, u32) {
        (&self.indexes[self.shard_of(slot)], slot >> self.bits)
    }

    #[inline]
    fn slot(&self, shard: usize, local: u32) -> u32 {
        local << self.bits | shard as u32
    }

    /// What is known of a slot.
    #[inline]
    pub(super) fn cell(&self, slot: u32) -> &Cell {
        let (index, local) = self.at(slot);
        index.cell(local)
    }

    /// The slot of a block. Unless its shard is locked it may have left since, or never stay.
    #[inline]
    pub(super) fn find(&self, key: Key) -> Option<u32> {
        let mixed = mixed(key);
        let mut shards = self.indexes.iter().enumerate();
        shards.find_map(|(shard, index)| {
            let local = index.find(mixed, key)?;
            Some(self.slot(shard, local))
        })
    }

    /// Takes hold of a registered block, in whatever slot it is. One that is registered all the while is found: what other shards enter of
    /// it, and take back, is not registered.
    #[inline]
    pub(super) fn pin(&self, key: Key) -> Option<(u32, Pin)> {
        let mixed = mixed(key);
        let mut shards = self.indexes.iter().enumerate();
        shards.find_map(|(shard, index)| {
            let pin = |local, cell: &Cell| cell.pin(key).map(|pin| (local, pin));
            let (local, pin) = index.find_map(mixed, pin)?;
            Some((self.slot(shard, local), pin))
        })
    }

    /// Enters the blocks of slots of one shard, which is locked: up to [`BATCH_MAX`] of them. A bit of the result says of
    /// each that no other slot has the block; what another slot has is not entered.
    pub(super) fn insert_all(&self, slots: &[u32], hashes: &[SequenceHash]) -> u64 {
        let Some(&first) = slots.first() else {
            return 0;
        };
        let shard = self.shard_of(first);
        let index = &self.indexes[shard];
        self.fetch(hashes);
        index.begin();
        let mut entered = 0_u64;
        for (place, (&slot, &hash)) in slots.iter().zip(hashes).enumerate() {
            let key = hash.words();
            let mixed = mixed(key);
            if index.find(mixed, key).is_none() {
                index.insert(mixed, slot >> self.bits, hash);
                entered |= 1 << place;
            }
        }
        // Either the others see these entries, or theirs are seen here.
        fence(Ordering::SeqCst);
        for (place, (&slot, &hash)) in slots.iter().zip(hashes).enumerate() {
            let key = hash.words();
            let mixed = mixed(key);
            if entered >> place & 1 == 1 && self.is_elsewhere(shard, mixed, key) {
                index.remove(mixed, slot >> self.bits);
                entered &= !(1 << place);
            }
        }
        index.settle();
        entered
    }

    /// Reads the places where blocks would be, of which others have changed many: all at once takes not much longer than one.
    #[inline]
    fn fetch(&self, hashes: &[SequenceHash]) {
        let mut words = 0;
        for hash in hashes {
            let mixed = mixed(hash.words());
            words ^= self
                .indexes
                .iter()
                .fold(0, |words, index| words ^ index.fetch(mixed));
        }
        std::hint::black_box(words);
    }

    /// Enters the block of a slot, whose shard is locked; whether no other slot has it.
    pub(super) fn insert(&self, slot: u32, hash: SequenceHash) -> bool {
        self.insert_all(&[slot], &[hash]) != 0
    }

    /// Whether another shard has a block that was entered tentatively in this one.
    #[inline]
    fn is_elsewhere(&self, own: usize, mixed: u64, key: Key) -> bool {
        let mut others = self.indexes.iter().enumerate();
        others.any(|(shard, index)| shard != own && wins(index, shard < own, mixed, key))
    }

    /// Removes the block of a slot. The slot's shard is locked.
    #[inline]
    pub(super) fn remove(&self, slot: u32) {
        let (index, local) = self.at(slot);
        index.remove(mixed(index.cell(local).key()), local);
    }
}

/// Whether another shard, that has precedence or not, has a block.
#[inline]
fn wins(index: &Index, has_precedence: bool, mixed: u64, key: Key) -> bool {
    loop {
        match index.has(mixed, key) {
            Presence::Absent => return false,
            Presence::Present => return true,
            Presence::Tentative if has_precedence => return true,
            // Its owner waits for none but shards with larger numbers, so it goes on before long.
            Presence::Tentative => yield_now(),
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    fn directory(slots_of_each: u32) -> Directory {
        let cells = || (0..slots_of_each).map(|_| Cell::new()).collect();
        Directory::new(&[cells(), cells(), cells(), cells()])
    }

    fn hash(number: u64) -> SequenceHash {
        SequenceHash::new(u128::from(number) << 64 | 9, 0)
    }

    #[test]
    fn a_block_is_entered_once_whatever_the_shard() {
        let directory = directory(4);
        // Slots 2, 6 and 10 are of shard 2; the same block twice in one batch is entered once.
        let entered = directory.insert_all(&[2, 6, 10], &[hash(1), hash(2), hash(1)]);
        assert_eq!(entered, 0b011);
        for slot in [0, 1, 3] {
            assert!(!directory.insert(slot, hash(1)));
        }
        assert_eq!(directory.find(hash(1).words()), Some(2));
        assert_eq!(directory.find(hash(2).words()), Some(6));
        directory.remove(2);
        assert_eq!(directory.find(hash(1).words()), None);
        assert!(directory.insert(15, hash(1)));
        assert_eq!(directory.find(hash(1).words()), Some(15));
        assert_eq!(directory.cell(15).identity(), hash(1));
    }

    #[test]
    fn of_threads_that_enter_a_block_at_once_one_does() {
        for round in 0..200 {
            let directory = directory(64);
            let barrier = std::sync::Barrier::new(4);
            let hashes: Vec<_> = (0..64).map(|number| hash(round << 32 | number)).collect();
            let entered = std::thread::scope(|scope| {
                let threads = [0, 1, 2, 3].map(|shard: u32| {
                    let (directory, barrier, hashes) = (&directory, &barrier, &hashes);
                    scope.spawn(move || {
                        let slots: Vec<_> = (0..64).map(|local| local << 2 | shard).collect();
                        barrier.wait();
                        directory.insert_all(&slots, hashes)
                    })
                });
                threads.map(|thread| thread.join().unwrap_or(0))
            });
            for number in 0..64 {
                let owners = entered.iter().filter(|bits| *bits >> number & 1 == 1);
                assert_eq!(owners.count(), 1, "block {number} of {entered:x?}");
            }
        }
    }
}
