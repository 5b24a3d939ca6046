//! Which slot of a shard has which block.

use super::cell::{Cell, Key};
use crate::SequenceHash;
use crate::sync::Padded;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Entries of a bucket; two buckets are a cache line.
const ENTRIES: usize = 6;

/// A hash table from blocks to the slots of one shard. Who has the shard locked changes it; anybody reads it, at any time.
///
/// An entry never moves, and a bucket that was full when an entry passed over it says so until that entry is gone: so a
/// reader finds each block that stays while it looks. Of a block that comes or goes meanwhile it may find
/// either; who has the shard locked can tell.
#[derive(Debug)]
pub(super) struct Index {
    buckets: Box<[Bucket]>,
    cells: std::sync::Arc<[Cell]>,
    /// Odd while blocks are entered that may have to go again, because another shard has them. Written with each batch, so it is kept away
    /// from what all threads read at each look.
    batch: Padded<AtomicU32>,
}

#[derive(Debug, Default)]
#[repr(align(32))]
struct Bucket {
    head: AtomicU64,
    locals: [AtomicU32; ENTRIES],
}

/// The head of a bucket: a byte for each entry, a part of its hash or 0 if it is vacant, and the count of entries that
/// would be here if there had been room.
#[derive(Debug, Clone, Copy)]
struct Head(u64);

const TAGS: u64 = (1 << (8 * ENTRIES)) - 1;
const LOW_BITS: u64 = TAGS / 0xff;
const PASSED_SHIFT: u32 = 8 * ENTRIES as u32;
/// A count that reached this stays: the bucket is passed over for good.
const PASSED_MAX: u64 = u64::MAX >> PASSED_SHIFT;

impl Head {
    /// The entries that have a tag, a bit of each byte.
    #[inline]
    fn entries_with(self, tag: u64) -> Ways {
        let different = (self.0 & TAGS) ^ (tag * LOW_BITS);
        let low_seven = LOW_BITS * 0x7f;
        let nonzero = ((different & low_seven) + low_seven) | different;
        Ways(!nonzero & LOW_BITS << 7)
    }

    fn is_passed(self) -> bool {
        self.0 > TAGS
    }

    fn with_tag(self, way: usize, tag: u64) -> Self {
        Self(self.0 & !(0xff << (8 * way)) | tag << (8 * way))
    }

    fn passed(self, more: bool) -> Self {
        let count = self.0 >> PASSED_SHIFT;
        Self(match (count, more) {
            (PASSED_MAX, _) => self.0,
            (_, true) => self.0 + (1 << PASSED_SHIFT),
            (_, false) => self.0 - (1 << PASSED_SHIFT),
        })
    }
}

/// Entries of a bucket, one after the other.
struct Ways(u64);

impl Iterator for Ways {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let way = self.0.trailing_zeros() as usize / 8;
        self.0 &= self.0.wrapping_sub(1);
        (way < ENTRIES).then_some(way)
    }
}

/// The part of a hash that is in the head of a bucket, never 0.
#[inline]
fn tag(mixed: u64) -> u64 {
    mixed >> 57 | 0x80
}

/// Spreads the bits of a hash, which need not be random.
#[inline]
pub(super) fn mixed(key: Key) -> u64 {
    let folded = key[0] ^ key[1].rotate_left(32).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let product = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
}

impl Index {
    /// For a shard of these slots.
    pub(super) fn new(cells: std::sync::Arc<[Cell]>) -> Self {
        let buckets = (cells.len() / 3).max(1).next_power_of_two();
        Self {
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            cells,
            batch: Padded(AtomicU32::new(0)),
        }
    }

    /// A slot of the shard.
    #[inline]
    pub(super) fn cell(&self, local: u32) -> &Cell {
        &self.cells[local as usize]
    }

    /// The bucket in which a block should be, or one so many behind it.
    #[inline]
    fn bucket(&self, mixed: u64, steps: usize) -> &Bucket {
        &self.buckets[(mixed as usize).wrapping_add(steps) & (self.buckets.len() - 1)]
    }

    /// Reads where a block would be, for nothing but to have read it.
    #[inline]
    pub(super) fn fetch(&self, mixed: u64) -> u64 {
        self.bucket(mixed, 0).head.load(Ordering::Relaxed)
    }

    /// The slot of a block.
    #[inline]
    pub(super) fn find(&self, mixed: u64, key: Key) -> Option<u32> {
        self.find_map(mixed, |local, cell| (cell.key() == key).then_some(local))
    }

    /// What `pick` makes of one of the slots that may have a block.
    #[inline]
    pub(super) fn find_map<T>(
        &self,
        mixed: u64,
        pick: impl Fn(u32, &Cell) -> Option<T>,
    ) -> Option<T> {
        for steps in 0..self.buckets.len() {
            let bucket = self.bucket(mixed, steps);
            let head = Head(bucket.head.load(Ordering::Acquire));
            for way in head.entries_with(tag(mixed)) {
                let local = bucket.locals[way].load(Ordering::Relaxed);
                let picked = pick(local, self.cell(local));
                if picked.is_some() {
                    return picked;
                }
            }
            if !head.is_passed() {
                break;
            }
        }
        None
    }

    /// Begins to enter blocks tentatively. The shard is locked.
    pub(super) fn begin(&self) {
        let batch = self.batch.0.load(Ordering::Relaxed);
        self.batch.0.store(batch.wrapping_add(1), Ordering::Relaxed);
    }

    /// What was entered and not removed stays. The shard is locked.
    pub(super) fn settle(&self) {
        let batch = self.batch.0.load(Ordering::Relaxed);
        self.batch.0.store(batch.wrapping_add(1), Ordering::Release);
    }

    /// Whether there is a block that was, or will be, entered for good; or else, what is not certain now.
    #[inline]
    pub(super) fn has(&self, mixed: u64, key: Key) -> Presence {
        if self.find(mixed, key).is_none() {
            return Presence::Absent;
        }
        loop {
            let batch = self.batch.0.load(Ordering::Acquire);
            if self.find(mixed, key).is_none() {
                return Presence::Absent;
            }
            if batch % 2 == 1 {
                return Presence::Tentative;
            }
            if self.batch.0.load(Ordering::Acquire) == batch {
                return Presence::Present;
            }
        }
    }

    /// Enters the block of a slot, which has no entry. The shard is locked and has no other such block.
    #[inline]
    pub(super) fn insert(&self, mixed: u64, local: u32, hash: SequenceHash) {
        self.cell(local).set_identity(hash);
        // There are more entries than slots, so that one is vacant.
        for steps in 0..self.buckets.len() {
            let bucket = self.bucket(mixed, steps);
            let head = Head(bucket.head.load(Ordering::Relaxed));
            if let Some(way) = head.entries_with(0).next() {
                bucket.locals[way].store(local, Ordering::Relaxed);
                let head = head.with_tag(way, tag(mixed));
                bucket.head.store(head.0, Ordering::Release);
                return;
            }
            bucket.head.store(head.passed(true).0, Ordering::Release);
        }
    }

    /// Removes the entry of a slot. The shard is locked.
    #[inline]
    pub(super) fn remove(&self, mixed: u64, local: u32) {
        for steps in 0..self.buckets.len() {
            let bucket = self.bucket(mixed, steps);
            let head = Head(bucket.head.load(Ordering::Relaxed));
            let mut ways = head.entries_with(tag(mixed));
            let is_it = |way: &usize| bucket.locals[*way].load(Ordering::Relaxed) == local;
            if let Some(way) = ways.find(is_it) {
                bucket
                    .head
                    .store(head.with_tag(way, 0).0, Ordering::Release);
                self.pass_no_more(mixed, steps);
                return;
            }
            if !head.is_passed() {
                return;
            }
        }
    }

    fn pass_no_more(&self, mixed: u64, steps: usize) {
        for steps in 0..steps {
            let head = &self.bucket(mixed, steps).head;
            let passed = Head(head.load(Ordering::Relaxed)).passed(false);
            head.store(passed.0, Ordering::Release);
        }
    }
}

/// Whether an index has a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Absent,
    Present,
    /// It may have been entered just now, and may have to go again.
    Tentative,
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const SLOTS: u32 = 48;

    fn index_of(slots: u32) -> Index {
        Index::new((0..slots).map(|_| Cell::new()).collect())
    }

    fn hash([low, high]: Key) -> SequenceHash {
        SequenceHash::new(u128::from(high) << 64 | u128::from(low), 0)
    }

    proptest! {
        #[test]
        fn it_finds_what_a_map_finds(
            crowded: bool,
            steps in prop::collection::vec((any::<bool>(), 0u64..60, 0..SLOTS), 1..300),
        ) {
            let index = index_of(SLOTS);
            let mut map: HashMap<u64, u32> = HashMap::new();
            let mut used: HashMap<u32, u64> = HashMap::new();
            // Hashes that agree in one word or the other, and perhaps all want to be in one or two places.
            let key = |number: u64| [number % 5, number];
            let mixed = |number| if crowded { number % 2 } else { mixed(key(number)) };
            for (adds, number, local) in steps {
                match (adds, used.contains_key(&local)) {
                    (true, false) if !map.contains_key(&number) => {
                        let has = || index.has(mixed(number), key(number));
                        prop_assert_eq!(has(), Presence::Absent);
                        index.begin();
                        index.insert(mixed(number), local, hash(key(number)));
                        prop_assert_eq!(has(), Presence::Tentative);
                        index.settle();
                        prop_assert_eq!(has(), Presence::Present);
                        map.insert(number, local);
                        used.insert(local, number);
                    }
                    (false, true) => {
                        if let Some(number) = used.remove(&local) {
                            index.remove(mixed(number), local);
                            map.remove(&number);
                        }
                    }
                    _ => {}
                }
                for number in 0..60 {
                    let expected = map.get(&number).copied();
                    prop_assert_eq!(index.find(mixed(number), key(number)), expected);
                }
            }
            for (local, number) in used {
                index.remove(mixed(number), local);
            }
            for bucket in &index.buckets {
                prop_assert_eq!(bucket.head.load(Ordering::Relaxed), 0);
            }
        }
    }

    #[test]
    fn blocks_that_all_want_one_place_find_room() {
        for slots in [1, 2, 5, 6, 11, 21, 100] {
            let index = index_of(slots);
            for local in 0..slots {
                index.insert(7, local, hash([local.into(), 1]));
            }
            for local in 0..slots {
                assert_eq!(index.find(7, [local.into(), 1]), Some(local));
                assert_eq!(index.find(7, [local.into(), 2]), None);
            }
        }
    }
}
