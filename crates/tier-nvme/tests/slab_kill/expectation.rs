//! What must be in the slab, and what may be.

use std::collections::{BTreeMap, BTreeSet};

use crate::blocks::Batch;

/// The blocks, by what their process said of its batches. A block's version is its batch.
#[derive(Debug, Default)]
pub(crate) struct Expectation {
    /// Acknowledged.
    there: BTreeMap<u128, u64>,
    /// Begun and not acknowledged.
    open: BTreeSet<u64>,
    /// The highest number that was begun.
    pub(crate) last: u64,
    pub(crate) acknowledged: u64,
    /// Blocks of cut off batches that were found changed, and as they were before.
    pub(crate) undecided: [u64; 2],
}

impl Expectation {
    /// Takes in a line of the pipe.
    pub(crate) fn hear(&mut self, line: &str) {
        // A child whose moment came as it opened the slab may say no more than that.
        let Some((what, number)) = line.split_once(' ') else {
            return;
        };
        let number: u64 = number.parse().unwrap();
        match what {
            "begun" => {
                self.open.insert(number);
                self.last = self.last.max(number);
            }
            "done" => {
                assert!(self.open.remove(&number), "{line}");
                self.acknowledged += 1;
                self.apply(number);
            }
            _ => panic!("the child said {line:?}"),
        }
    }

    fn apply(&mut self, number: u64) {
        match Batch::of(number) {
            Batch::Put(keys) => self.there.extend(keys.into_iter().map(|key| (key, number))),
            Batch::Remove(keys) => self.there.retain(|key, _| !keys.contains(key)),
        }
    }

    /// Takes in what is there after a kill: whatever was open is decided by it.
    pub(crate) fn settle(&mut self, found: &BTreeMap<u128, u64>) {
        // Writers have keys of their own and one batch under way: a key is open in one batch at most.
        let mut open = BTreeMap::new();
        for &number in &self.open {
            let batch = Batch::of(number);
            let made = matches!(batch, Batch::Put(_)).then_some(number);
            open.extend(batch.keys().iter().map(|&key| (key, made)));
        }
        let keys: BTreeSet<u128> = self.there.keys().chain(found.keys()).copied().collect();
        for key in keys {
            let (old, new) = (self.there.get(&key).copied(), open.get(&key).copied());
            let is = found.get(&key).copied();
            assert!(
                is == old || Some(is) == new,
                "block {key:x} is of batch {is:?}; acknowledged {old:?}, under way {new:?}"
            );
        }
        for (key, new) in open {
            let was_made = found.get(&key).copied() == new;
            self.undecided[usize::from(!was_made)] += 1;
        }
        self.there.clone_from(found);
        self.open.clear();
    }
}
