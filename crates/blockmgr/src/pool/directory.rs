//! Which slot has which block, and which block is expected next.

use crate::SequenceHash;
use crate::policy::Request;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, Padded, lock};

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// Expected blocks that a stripe remembers.
const EXPECTED_MAX: usize = 4;

/// A hash as the directory takes it.
pub(super) type Key = [u64; 2];

/// The hash of each slot's block, in an order of its own: a hash table in stripes, each under its lock.
///
/// A slot's hash changes only under the lock of its shard *and* that of its stripe, so either makes it stable. A lock
/// of a shard is taken before that of a stripe, never after.
#[derive(Debug)]
pub(super) struct Directory {
    stripes: Box<[Padded<Mutex<Stripe>>]>,
    shift: u32,
    names: Box<[Name]>,
}

/// The identity of a slot's block.
#[derive(Debug, Default)]
struct Name {
    low: AtomicU64,
    high: AtomicU64,
    position: AtomicU32,
}

/// What is known of the request that will register a block.
#[derive(Debug, Clone, Copy)]
struct Expected {
    key: Key,
    request: Request,
}

#[derive(Debug)]
pub(super) struct Stripe {
    /// Open addressing, each entry as near behind its home as can be.
    entries: Vec<Entry>,
    len: usize,
    expected: [Option<Expected>; EXPECTED_MAX],
    expected_next: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Where the entry would like to be, modulo the length of the table; the bits above tell entries apart.
    home: u32,
    slot: u32,
}

const VACANT: Entry = Entry {
    home: 0,
    slot: NONE,
};

/// Spreads the bits of a hash, which need not be random.
fn mixed(key: Key) -> u64 {
    let folded = key[0] ^ key[1].rotate_left(32).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let product = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
}

impl Directory {
    /// For a pool of `slots` slots.
    pub(super) fn new(slots: u32) -> Self {
        let stripes = (slots / 128).clamp(1, 64).next_power_of_two();
        let entries = (2 * slots / stripes).max(8).next_power_of_two() as usize;
        let stripe = || Stripe {
            entries: vec![VACANT; entries],
            len: 0,
            expected: [None; EXPECTED_MAX],
            expected_next: 0,
        };
        Self {
            stripes: (0..stripes).map(|_| Padded(Mutex::new(stripe()))).collect(),
            shift: stripes.trailing_zeros(),
            names: (0..slots).map(|_| Name::default()).collect(),
        }
    }

    /// The hash of the block in a slot, while the shard or the stripe is locked; else it is a guess.
    #[inline]
    pub(super) fn key(&self, slot: u32) -> Key {
        let name = &self.names[slot as usize];
        [
            name.low.load(Ordering::Relaxed),
            name.high.load(Ordering::Relaxed),
        ]
    }

    /// The identity of the block in a slot, as stable as [`Directory::key`] is, and while the block is in use.
    #[inline]
    pub(super) fn identity(&self, slot: u32) -> SequenceHash {
        let [low, high] = self.key(slot);
        let position = self.names[slot as usize].position.load(Ordering::Relaxed);
        SequenceHash::new(u128::from(high) << 64 | u128::from(low), position)
    }

    /// States the identity of a slot that the directory has no entry for. The slot's shard is locked.
    #[inline]
    pub(super) fn set_identity(&self, slot: u32, hash: SequenceHash) {
        let [low, high] = hash.words();
        let name = &self.names[slot as usize];
        name.low.store(low, Ordering::Relaxed);
        name.high.store(high, Ordering::Relaxed);
        name.position.store(hash.position(), Ordering::Relaxed);
    }

    #[inline]
    fn stripe(&self, mixed: u64) -> MutexGuard<'_, Stripe> {
        lock(&self.stripes[(mixed as usize) & (self.stripes.len() - 1)].0)
    }

    /// The slot of a block.
    #[inline]
    pub(super) fn find(&self, key: Key) -> Option<u32> {
        let mixed = mixed(key);
        let stripe = self.stripe(mixed);
        stripe.find(home(mixed, self.shift), key, self)
    }

    /// The slot of a block; if there is none, remembers what request misses it.
    pub(super) fn find_or_expect(&self, key: Key, request: &Request) -> Option<u32> {
        let mixed = mixed(key);
        let mut stripe = self.stripe(mixed);
        let found = stripe.find(home(mixed, self.shift), key, self);
        if found.is_none() {
            let expected = Expected {
                key,
                request: *request,
            };
            let next = stripe.expected_next;
            stripe.expected[next] = Some(expected);
            stripe.expected_next = (next + 1) % EXPECTED_MAX;
        }
        found
    }

    /// What request missed this block, if that is still known.
    pub(super) fn take_expected(&self, key: Key) -> Option<Request> {
        let mut stripe = self.stripe(mixed(key));
        let mut expected = stripe.expected.iter_mut();
        let place = expected.find(|place| place.is_some_and(|expected| expected.key == key))?;
        place.take().map(|expected| expected.request)
    }

    /// Enters the block of a slot, unless another slot has that block: tells which then. The slot's shard is locked.
    #[inline]
    pub(super) fn insert(&self, slot: u32, hash: SequenceHash) -> Result<(), u32> {
        let key = hash.words();
        let mixed = mixed(key);
        let mut stripe = self.stripe(mixed);
        let home = home(mixed, self.shift);
        if let Some(other) = stripe.find(home, key, self) {
            return Err(other);
        }
        self.set_identity(slot, hash);
        stripe.insert(home, slot);
        Ok(())
    }

    /// Removes the block of a slot. The slot's shard is locked.
    #[inline]
    pub(super) fn remove(&self, slot: u32) {
        let mixed = mixed(self.key(slot));
        let mut stripe = self.stripe(mixed);
        stripe.remove(home(mixed, self.shift), slot);
    }
}

impl Stripe {
    #[inline]
    fn mask(&self) -> usize {
        self.entries.len() - 1
    }

    #[inline]
    fn find(&self, home: u32, key: Key, directory: &Directory) -> Option<u32> {
        let mask = self.mask();
        let mut place = home as usize & mask;
        loop {
            let entry = self.entries[place];
            if entry.slot == NONE {
                return None;
            }
            if entry.home == home && directory.key(entry.slot) == key {
                return Some(entry.slot);
            }
            place = (place + 1) & mask;
        }
    }

    fn insert(&mut self, home: u32, slot: u32) {
        // At most three quarters are in use, so that there is always a vacant entry to stop at.
        if (self.len + 1) * 4 > self.entries.len() * 3 {
            self.grow();
        }
        self.len += 1;
        self.place(Entry { home, slot });
    }

    fn place(&mut self, entry: Entry) {
        let mask = self.mask();
        let mut place = entry.home as usize & mask;
        while self.entries[place].slot != NONE {
            place = (place + 1) & mask;
        }
        self.entries[place] = entry;
    }

    /// Doubles the table: more hashes than a fair share chose this stripe.
    fn grow(&mut self) {
        let larger = vec![VACANT; 2 * self.entries.len()];
        for entry in std::mem::replace(&mut self.entries, larger) {
            if entry.slot != NONE {
                self.place(entry);
            }
        }
    }

    fn remove(&mut self, home: u32, slot: u32) {
        let mask = self.mask();
        let mut gap = home as usize & mask;
        while self.entries[gap].slot != slot {
            if self.entries[gap].slot == NONE {
                return;
            }
            gap = (gap + 1) & mask;
        }
        self.len -= 1;
        // Those behind move up where the gap would cut them off from their home.
        let mut place = gap;
        loop {
            place = (place + 1) & mask;
            let entry = self.entries[place];
            if entry.slot == NONE {
                break;
            }
            let from_home = place.wrapping_sub(entry.home as usize) & mask;
            let from_gap = place.wrapping_sub(gap) & mask;
            if from_home >= from_gap {
                self.entries[gap] = entry;
                gap = place;
            }
        }
        self.entries[gap] = VACANT;
    }
}

/// What is left of a mixed hash when the stripe is chosen.
#[inline]
fn home(mixed: u64, shift: u32) -> u32 {
    (mixed >> shift) as u32
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn hash([low, high]: Key) -> SequenceHash {
        SequenceHash::new(u128::from(high) << 64 | u128::from(low), 0)
    }

    proptest! {
        #[test]
        fn it_finds_what_a_map_finds(
            steps in prop::collection::vec((any::<bool>(), 0u64..40, 0u32..48), 1..200),
        ) {
            let directory = Directory::new(48);
            let mut map: HashMap<u64, u32> = HashMap::new();
            let mut used: HashMap<u32, u64> = HashMap::new();
            for (adds, number, slot) in steps {
                // Hashes that agree in one word or the other.
                let key = |number: u64| [number % 5, number];
                match (adds, used.contains_key(&slot)) {
                    (true, false) => {
                        let inserted = directory.insert(slot, hash(key(number)));
                        prop_assert_eq!(inserted.err(), map.get(&number).copied());
                        if inserted.is_ok() {
                            map.insert(number, slot);
                            used.insert(slot, number);
                        }
                    }
                    (false, true) => {
                        directory.remove(slot);
                        if let Some(number) = used.remove(&slot) {
                            map.remove(&number);
                        }
                    }
                    _ => {}
                }
                for number in 0..40 {
                    prop_assert_eq!(directory.find(key(number)), map.get(&number).copied());
                }
            }
        }
    }

    #[test]
    fn a_stripe_grows_for_hashes_that_all_choose_it() {
        let directory = Directory::new(4096);
        let mask = directory.stripes.len() as u64 - 1;
        let keys = (0u64..).map(|number| [number, 1]);
        let crowd: Vec<Key> = keys
            .filter(|&key| mixed(key) & mask == 0)
            .take(4096)
            .collect();
        for (slot, &key) in crowd.iter().enumerate() {
            assert_eq!(directory.insert(slot as u32, hash(key)), Ok(()));
        }
        for (slot, &key) in crowd.iter().enumerate() {
            assert_eq!(directory.find(key), Some(slot as u32));
        }
    }

    #[test]
    fn what_is_expected_is_taken_once() {
        let directory = Directory::new(8);
        let request = |tick| Request {
            tick,
            ..Request::default()
        };
        assert_eq!(directory.find_or_expect([1, 1], &request(5)), None);
        assert_eq!(directory.find_or_expect([2, 1], &request(6)), None);
        assert_eq!(
            directory.take_expected([1, 1]).map(|found| found.tick),
            Some(5)
        );
        assert!(directory.take_expected([1, 1]).is_none());
        for number in 10..10 + EXPECTED_MAX as u64 {
            directory.find_or_expect([number, 1], &request(number));
        }
        assert!(
            directory.take_expected([2, 1]).is_none(),
            "the oldest is forgotten"
        );
    }
}
