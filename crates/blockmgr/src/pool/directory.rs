//! Which slot has which block.

use super::index::{Index, Key, Presence, mixed};
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
    /// For shards of so many slots each, a power of two of them.
    pub(super) fn new(slots_of_each: &[u32]) -> Self {
        Self {
            indexes: slots_of_each.iter().copied().map(Index::new).collect(),
            bits: slots_of_each.len().trailing_zeros(),
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

    /// The hash of the block in a slot, while its shard is locked; else it is a guess.
    #[inline]
    pub(super) fn key(&self, slot: u32) -> Key {
        let (index, local) = self.at(slot);
        index.key(local)
    }

    /// The identity of the block in a slot, as stable as [`Directory::key`] is, and while the block is in use.
    #[inline]
    pub(super) fn identity(&self, slot: u32) -> SequenceHash {
        let (index, local) = self.at(slot);
        index.identity(local)
    }

    /// States the identity of a slot that has no entry. The slot's shard is locked.
    #[inline]
    pub(super) fn set_identity(&self, slot: u32, hash: SequenceHash) {
        let (index, local) = self.at(slot);
        index.set_identity(local, hash);
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

    /// Enters the blocks of slots of one shard, which is locked: up to [`BATCH_MAX`] of them. A bit of the result says of
    /// each that no other slot has the block; what another slot has is not entered.
    pub(super) fn insert_all(&self, slots: &[u32], hashes: &[SequenceHash]) -> u64 {
        let Some(&first) = slots.first() else {
            return 0;
        };
        let shard = self.shard_of(first);
        let index = &self.indexes[shard];
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
        index.remove(mixed(index.key(local)), local);
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

    fn hash(number: u64) -> SequenceHash {
        SequenceHash::new(u128::from(number) << 64 | 9, 0)
    }

    #[test]
    fn a_block_is_entered_once_whatever_the_shard() {
        let directory = Directory::new(&[4, 4, 4, 4]);
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
        assert_eq!(directory.identity(15), hash(1));
    }

    #[test]
    fn of_threads_that_enter_a_block_at_once_one_does() {
        for round in 0..200 {
            let directory = Directory::new(&[64, 64, 64, 64]);
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
