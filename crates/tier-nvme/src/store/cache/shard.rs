//! One part of the cache, and what it keeps.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::atomic::{AtomicU8, Ordering};

/// Uses of an entry that count: more make it no dearer.
const USES_MAX: u8 = 3;
/// The part of the bytes that new entries may take: one of so many.
const NEW_SHARE: usize = 10;
/// Ghosts that are remembered however few entries there are.
const GHOSTS_MIN: usize = 64;

#[derive(Debug)]
struct Entry<V> {
    value: V,
    len_bytes: usize,
    uses: AtomicU8,
    is_proven: bool,
    /// Tells the entry's place in a queue from one that an earlier entry of the key left.
    stamp: u64,
}

/// What became of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Insertion {
    /// The value is kept; so many others went for it.
    Kept { evicted: u64 },
    /// It is there already.
    Present,
    /// It is too large.
    Refused,
}

/// Keeps what is used again, by three queues of arrival (S3-FIFO: Yang et al., SOSP 2023).
///
/// A new entry begins in a small queue. If nobody asks for it until it comes to the front, it goes, and
/// only its key is remembered for a while: a scan passes through and takes nothing from the entries
/// in the main queue, into which one gets by being used, or by coming back soon.
#[derive(Debug)]
pub(super) struct Shard<K, V> {
    capacity_bytes: usize,
    entries: HashMap<K, Entry<V>>,
    new: Queue<K>,
    proven: Queue<K>,
    ghosts: VecDeque<K>,
    ghost_set: HashSet<K>,
    next_stamp: u64,
}

#[derive(Debug)]
struct Queue<K> {
    order: VecDeque<(K, u64)>,
    entries: usize,
    len_bytes: usize,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            order: VecDeque::new(),
            entries: 0,
            len_bytes: 0,
        }
    }
}

impl<K: Copy + Eq + Hash, V: Clone> Shard<K, V> {
    pub(super) fn new(capacity_bytes: usize) -> Self {
        Self {
            capacity_bytes,
            entries: HashMap::new(),
            new: Queue::default(),
            proven: Queue::default(),
            ghosts: VecDeque::new(),
            ghost_set: HashSet::new(),
            next_stamp: 0,
        }
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.new.len_bytes + self.proven.len_bytes
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        let entry = self.entries.get(key)?;
        let uses = entry.uses.load(Ordering::Relaxed);
        if uses < USES_MAX {
            // Two at once may count as one.
            entry.uses.store(uses + 1, Ordering::Relaxed);
        }
        Some(entry.value.clone())
    }

    /// Whether an entry is not too large.
    pub(super) fn fits(&self, len_bytes: usize) -> bool {
        len_bytes <= self.capacity_bytes / 2
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V, len_bytes: usize) -> Insertion {
        if !self.fits(len_bytes) {
            return Insertion::Refused;
        }
        if self.entries.contains_key(&key) {
            return Insertion::Present;
        }
        let evicted = self.make_room(len_bytes);
        let is_proven = self.ghost_set.remove(&key);
        self.next_stamp += 1;
        let entry = Entry {
            value,
            len_bytes,
            uses: AtomicU8::new(0),
            is_proven,
            stamp: self.next_stamp,
        };
        self.queue(is_proven).push(key, &entry);
        self.entries.insert(key, entry);
        Insertion::Kept { evicted }
    }

    /// Takes an entry out that is not true any more.
    pub(super) fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.queue(entry.is_proven).forget(&entry);
            self.tidy();
        }
    }

    /// Evicts until `len_bytes` more fit; returns how many went.
    pub(super) fn make_room(&mut self, len_bytes: usize) -> u64 {
        let mut evicted = 0;
        while self.len_bytes() + len_bytes > self.capacity_bytes && !self.entries.is_empty() {
            evicted += u64::from(self.evict_one());
        }
        evicted
    }

    /// Evicts at least `len_bytes`, if there are so many; returns how many bytes went.
    pub(super) fn give_back(&mut self, len_bytes: usize) -> (usize, u64) {
        let before = self.len_bytes();
        let mut evicted = 0;
        while before - self.len_bytes() < len_bytes && !self.entries.is_empty() {
            evicted += u64::from(self.evict_one());
        }
        (before - self.len_bytes(), evicted)
    }

    fn queue(&mut self, is_proven: bool) -> &mut Queue<K> {
        if is_proven {
            &mut self.proven
        } else {
            &mut self.new
        }
    }

    /// Moves the queues on by one entry; tells whether one went.
    fn evict_one(&mut self) -> bool {
        let from_new = self.new.entries > 0
            && (self.proven.entries == 0 || self.new.len_bytes > self.capacity_bytes / NEW_SHARE);
        let Some((key, stamp)) = self.queue(!from_new).order.pop_front() else {
            return false;
        };
        let MapEntry::Occupied(mut place) = self.entries.entry(key) else {
            return false;
        };
        let entry = place.get_mut();
        if entry.stamp != stamp {
            return false;
        }
        let uses = *entry.uses.get_mut();
        if uses == 0 {
            let entry = place.remove();
            self.queue(!from_new).forget(&entry);
            if from_new {
                self.remember(key);
            }
            return true;
        }
        *entry.uses.get_mut() = if from_new { 0 } else { uses - 1 };
        entry.is_proven = true;
        let source = if from_new {
            &mut self.new
        } else {
            &mut self.proven
        };
        source.forget(entry);
        self.proven.push(key, entry);
        false
    }

    /// Remembers a key that went unused.
    fn remember(&mut self, key: K) {
        if self.ghost_set.insert(key) {
            self.ghosts.push_back(key);
        }
        while self.ghosts.len() > self.entries.len().max(GHOSTS_MIN) {
            if let Some(key) = self.ghosts.pop_front() {
                self.ghost_set.remove(&key);
            }
        }
    }

    /// Keeps what removed entries left in the queues within bounds.
    fn tidy(&mut self) {
        for queue in [&mut self.new, &mut self.proven] {
            if queue.order.len() > 2 * queue.entries + GHOSTS_MIN {
                let entries = &self.entries;
                let is_there = |(key, stamp): &(K, u64)| {
                    entries.get(key).is_some_and(|entry| entry.stamp == *stamp)
                };
                queue.order.retain(is_there);
            }
        }
    }
}

impl<K> Queue<K> {
    fn push<V>(&mut self, key: K, entry: &Entry<V>) {
        self.order.push_back((key, entry.stamp));
        self.entries += 1;
        self.len_bytes += entry.len_bytes;
    }

    fn forget<V>(&mut self, entry: &Entry<V>) {
        self.entries -= 1;
        self.len_bytes -= entry.len_bytes;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn fill(shard: &mut Shard<u64, u64>, keys: std::ops::Range<u64>) {
        for key in keys {
            shard.insert(key, key, 1);
        }
    }

    #[test]
    fn a_scan_takes_nothing_from_what_is_used() {
        let mut shard = Shard::new(100);
        fill(&mut shard, 0..50);
        for _ in 0..2 {
            (0..50).for_each(|key| assert_eq!(shard.get(&key), Some(key)));
        }
        fill(&mut shard, 1000..3000);
        let kept = (0..50).filter(|key| shard.get(key).is_some()).count();
        assert_eq!(kept, 50);
        assert_eq!(shard.len_bytes(), 100);
    }

    #[test]
    fn what_comes_back_soon_is_proven() {
        let mut shard = Shard::new(100);
        fill(&mut shard, 0..110);
        assert_eq!(shard.get(&0), None);
        fill(&mut shard, 0..1);
        fill(&mut shard, 1000..3000);
        assert_eq!(shard.get(&0), Some(0));
    }

    #[test]
    fn what_was_used_goes_when_it_is_not_any_more() {
        let mut shard = Shard::new(100);
        fill(&mut shard, 0..100);
        (0..100).for_each(|key| assert_eq!(shard.get(&key), Some(key)));
        for key in 1000..3000 {
            shard.insert(key, key, 1);
            assert_eq!(shard.get(&key), Some(key));
        }
        let kept = (0..100).filter(|key| shard.get(key).is_some()).count();
        assert!(kept < 10, "{kept}");
    }

    #[test]
    fn removals_leave_nothing_that_grows() {
        let mut shard = Shard::new(100);
        for key in 0..100_000_u64 {
            shard.insert(key % 7, key, 3);
            shard.remove(&(key % 7));
        }
        assert_eq!(shard.len_bytes(), 0);
        assert!(shard.new.order.len() <= 2 * GHOSTS_MIN);
    }

    proptest! {
        #[test]
        fn it_gives_what_was_put_and_keeps_its_bounds(
            capacity in 1_usize..200,
            steps in proptest::collection::vec((0_u8..4, 0_u64..40, 1_usize..60), 0..400),
        ) {
            let mut shard = Shard::new(capacity);
            // The value of a key changes only after it was removed, as with places of values.
            let mut model = BTreeMap::new();
            for (step, (what, key, len)) in steps.into_iter().enumerate() {
                match what {
                    0 => {
                        shard.remove(&key);
                        model.remove(&key);
                    }
                    1 => {
                        let (value, len) = *model.entry(key).or_insert((step, len));
                        let insertion = shard.insert(key, value, len);
                        prop_assert_eq!(insertion == Insertion::Refused, len > capacity / 2);
                        prop_assert!(insertion == Insertion::Refused || shard.get(&key) == Some(value));
                    }
                    2 => {
                        let before = shard.len_bytes();
                        let (given, _) = shard.give_back(len);
                        prop_assert!(given >= len.min(before));
                    }
                    _ => {
                        if let Some(value) = shard.get(&key) {
                            prop_assert_eq!(Some(value), model.get(&key).map(|(value, _)| *value));
                        }
                    }
                }
                prop_assert!(shard.len_bytes() <= capacity);
                let len_bytes: usize = shard.entries.values().map(|entry| entry.len_bytes).sum();
                prop_assert_eq!(shard.len_bytes(), len_bytes);
                prop_assert!(shard.ghosts.len() <= shard.entries.len().max(GHOSTS_MIN) + 1);
                prop_assert!(shard.ghost_set.len() <= shard.ghosts.len());
            }
        }
    }
}
