//! Identities of blocks that have left, in the order in which they did.

use std::collections::{HashMap, VecDeque};

use super::frequency::fold;

/// The identities of the blocks that left last: a bounded queue that can be asked.
#[derive(Debug, Clone)]
pub(super) struct History {
    /// By identity, the number of the entry in the queue.
    entries: HashMap<u64, u64>,
    queue: VecDeque<(u64, u64)>,
    next: u64,
    len_max: usize,
}

impl History {
    /// Remembers up to `len_max` identities.
    pub(super) fn new(len_max: u32) -> Self {
        let len_max = len_max as usize;
        Self {
            entries: HashMap::with_capacity(len_max + 1),
            queue: VecDeque::with_capacity(2 * len_max + 2),
            next: 0,
            len_max,
        }
    }

    /// Remembers an identity as the newest, and forgets the oldest if there are too many.
    pub(super) fn push(&mut self, sequence_hash: u128) {
        let hash = fold(sequence_hash);
        self.entries.insert(hash, self.next);
        self.queue.push_back((hash, self.next));
        self.next += 1;
        self.trim(self.len_max);
        // Entries that were taken out leave gaps in the queue.
        if self.queue.len() > 2 * self.len_max {
            let entries = &self.entries;
            self.queue
                .retain(|(hash, number)| entries.get(hash) == Some(number));
        }
    }

    /// Forgets an identity; whether it was known.
    pub(super) fn take(&mut self, sequence_hash: u128) -> bool {
        self.entries.remove(&fold(sequence_hash)).is_some()
    }

    /// Forgets the oldest until `len` are left.
    pub(super) fn trim(&mut self, len: usize) {
        while self.entries.len() > len {
            let Some((hash, number)) = self.queue.pop_front() else {
                return;
            };
            if self.entries.get(&hash) == Some(&number) {
                self.entries.remove(&hash);
            }
        }
    }

    /// Identities remembered.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_told_once() {
        let mut history = History::new(3);
        for hash in [1, 2, 3, 2, 4] {
            history.push(hash);
        }
        assert_eq!(history.len(), 3);
        assert!(!history.take(1));
        assert!(history.take(2));
        assert!(!history.take(2));
        history.trim(1);
        assert!(!history.take(3));
        assert!(history.take(4));
    }

    #[test]
    fn the_queue_stays_bounded_when_entries_are_taken_out() {
        let mut history = History::new(4);
        for hash in 0..10_000 {
            history.push(hash);
            assert!(history.take(hash));
            assert!(history.queue.len() <= 9);
        }
    }
}
