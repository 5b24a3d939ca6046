//! What many threads did to shared places, and whether anybody saw what can't be.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Write {
    /// It was acknowledged.
    Done,
    /// It failed: the place holds what was there before or what was to be written.
    Failed,
    /// It failed: the place may hold anything.
    Garbled,
}

/// Records what was written and read at places (slots, keys), and checks that each read saw a write that
/// may have been the last: one that had begun, as a whole, and that no other had replaced for good before
/// the read began.
///
/// This is the check for a register with many writers, weaker than linearizability in that two reads
/// are not compared with each other.
///
/// ```
/// use core_view::contract::conformance::{History, Write};
///
/// let history = History::default();
/// let start = history.begin();
/// history.wrote("key", 1, start, Write::Done);
/// let start = history.begin();
/// history.read("key", Some(1), start);
/// history.check();
/// ```
#[derive(Debug, Default)]
pub struct History<P> {
    clock: AtomicU64,
    events: Mutex<Events<P>>,
}

#[derive(Debug)]
struct Events<P> {
    written: HashMap<P, Vec<Written>>,
    read: Vec<(P, Span, Option<u64>)>,
}

impl<P> Default for Events<P> {
    fn default() -> Self {
        Self {
            written: HashMap::new(),
            read: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: u64,
    end: u64,
}

#[derive(Debug, Clone, Copy)]
struct Written {
    tag: u64,
    span: Span,
    how: Write,
}

impl<P: Copy + Eq + Hash + Debug> History<P> {
    fn lock(&self) -> MutexGuard<'_, Events<P>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The moment before an operation begins; to be given back when it has ended.
    pub fn begin(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// A write of `tag` that began at `start` has just ended.
    pub fn wrote(&self, place: P, tag: u64, start: u64, how: Write) {
        let span = Span {
            start,
            end: self.begin(),
        };
        let written = Written { tag, span, how };
        self.lock().written.entry(place).or_default().push(written);
    }

    /// A read that began at `start` has just ended; `None` stands for bytes that are no write's.
    pub fn read(&self, place: P, tag: Option<u64>, start: u64) {
        let span = Span {
            start,
            end: self.begin(),
        };
        self.lock().read.push((place, span, tag));
    }

    /// Number of reads recorded.
    pub fn reads(&self) -> usize {
        self.lock().read.len()
    }

    /// Checks every read.
    ///
    /// # Panics
    /// If a read saw what it can't have seen.
    pub fn check(&self) {
        let impossible = self.impossible();
        assert!(impossible.is_none(), "{}", impossible.unwrap_or_default());
    }

    /// The first read that saw what it can't have seen.
    fn impossible(&self) -> Option<String> {
        let events = self.lock();
        events.read.iter().find_map(|&(place, span, tag)| {
            let written = events.written.get(&place).map_or(&[][..], Vec::as_slice);
            let visible = |write: &Written| {
                let replaced = written.iter().any(|other| {
                    other.how == Write::Done
                        && other.span.start > write.span.end
                        && other.span.end < span.start
                });
                write.span.start < span.end && !replaced
            };
            let explained = written.iter().any(|write| {
                let fits = write.how == Write::Garbled || Some(write.tag) == tag;
                fits && visible(write)
            });
            let seen = match tag {
                Some(tag) => format!("the write {tag:#x}, which it can't have seen"),
                None => "bytes that no write wrote as a whole, a mixture".to_owned(),
            };
            let report = || {
                format!(
                    "{place:?}: a read saw {seen} (writes there: {written:?}, the read: {span:?})"
                )
            };
            (!explained).then(report)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_future_and_mixed_reads_are_told_from_good_ones() {
        let good = History::default();
        let (first, read) = (good.begin(), good.begin());
        good.read(0, Some(1), read);
        good.wrote(0, 1, first, Write::Done);
        let second = good.begin();
        good.wrote(0, 2, second, Write::Failed);
        for tag in [1, 2] {
            let read = good.begin();
            good.read(0, Some(tag), read);
        }
        assert_eq!(good.impossible(), None);

        let read = good.begin();
        good.read(0, None, read);
        assert!(good.impossible().is_some(), "a mixture");

        let stale = History::default();
        for tag in [1, 2] {
            let start = stale.begin();
            stale.wrote(0, tag, start, Write::Done);
        }
        let read = stale.begin();
        stale.read(0, Some(1), read);
        assert!(stale.impossible().is_some(), "an old write");

        let early = History::default();
        let read = early.begin();
        early.read(0, Some(1), read);
        let start = early.begin();
        early.wrote(0, 1, start, Write::Done);
        assert!(early.impossible().is_some(), "a write that had not begun");
    }
}
