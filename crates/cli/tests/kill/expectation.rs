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
    /// Models that a process has found so far.
    found: BTreeSet<u64>,
    /// Calls that were cut off and turned out to have left their model there.
    pub(crate) undecided_there: u64,
    /// Those that did not.
    pub(crate) undecided_absent: u64,
    /// Whether a collection was begun and not ended.
    pub(crate) collecting: bool,
    /// Collections that ended.
    pub(crate) collected: u64,
}

impl Expectation {
    /// A process starts.
    pub(crate) fn begin(&mut self) {
        self.found.clear();
        self.collecting = false;
    }

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
            "found" => {
                self.found.insert(number);
            }
            "opened" => {
                let found = std::mem::take(&mut self.found);
                self.settle(&found, true);
            }
            "collecting" => self.collecting = true,
            "collected" => {
                self.collecting = false;
                self.collected += 1;
            }
            _ => panic!("the child said {line:?}"),
        }
    }

    /// Takes in what is listed after a kill; by one who waited for what the killed process had in flight,
    /// whatever was open is decided.
    pub(crate) fn settle(&mut self, listed: &BTreeSet<u64>, decided: bool) {
        let missing: Vec<_> = self.there.difference(listed).collect();
        assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
        let allowed: BTreeSet<u64> = self.there.union(&self.open).copied().collect();
        let strange: Vec<_> = listed.difference(&allowed).collect();
        assert!(strange.is_empty(), "listed and never added: {strange:?}");
        match decided {
            true => self.decide(listed),
            // What is still on its way to the device may come to be there, or to go.
            false => self.there = listed.difference(&self.open).copied().collect(),
        }
    }

    fn decide(&mut self, found: &BTreeSet<u64>) {
        self.undecided_there += self.open.intersection(found).count() as u64;
        self.undecided_absent += self.open.difference(found).count() as u64;
        self.there.clone_from(found);
        self.open.clear();
    }
}
