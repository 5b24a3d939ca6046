//! What must be in the store, and what may be.

use std::collections::BTreeSet;

/// The models by what their process said of them.
#[derive(Debug, Default)]
pub(crate) struct Expectation {
    /// Acknowledged: must be there.
    pub(crate) there: BTreeSet<u64>,
    /// Begun: whole or absent.
    pub(crate) open: BTreeSet<u64>,
    /// The highest number that was begun.
    pub(crate) last: u64,
    /// Models that were acknowledged in all.
    pub(crate) acknowledged: u64,
}

impl Expectation {
    /// Takes in a line of the pipe.
    pub(crate) fn hear(&mut self, line: &str) {
        let Some((what, number)) = line.split_once(' ') else {
            return;
        };
        let number: u64 = number.parse().unwrap();
        match what {
            "adding" => {
                self.open.insert(number);
                self.last = self.last.max(number);
            }
            "added" => {
                assert!(self.open.remove(&number), "{line}");
                self.there.insert(number);
                self.acknowledged += 1;
            }
            "removing" => {
                assert!(self.there.remove(&number), "{line}");
                self.open.insert(number);
            }
            "removed" => assert!(self.open.remove(&number), "{line}"),
            _ => panic!("the child said {line:?}"),
        }
    }

    /// Takes in what is listed after a kill: whatever was open is decided by it.
    pub(crate) fn settle(&mut self, listed: &BTreeSet<u64>) {
        let missing: Vec<_> = self.there.difference(listed).collect();
        assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
        let allowed: BTreeSet<u64> = self.there.union(&self.open).copied().collect();
        let strange: Vec<_> = listed.difference(&allowed).collect();
        assert!(strange.is_empty(), "listed and never added: {strange:?}");
        self.there.clone_from(listed);
        self.open.clear();
    }
}
