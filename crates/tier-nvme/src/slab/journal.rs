//! Where the logs stand, and who is at work on them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use super::slots::SlotId;

/// Where the logs stand; whoever holds it commits.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Generation of the tables that the logs follow.
    pub(super) epoch: u64,
    pub(super) sequence: u64,
    /// Checksum of the newest record.
    pub(super) checksum: u32,
    pub(super) synced_sequence: u64,
    /// No segment had this id or a higher one.
    pub(super) segment_id_next: u32,
    /// Used bytes of each segment's log.
    pub(super) used: BTreeMap<u32, u32>,
    /// The segment whose log was written last.
    pub(super) last: Option<u32>,
    /// Segments with writes that are not synced.
    pub(super) dirty: BTreeSet<u32>,
    /// Slots that are free once everything is synced.
    pub(super) freed: Vec<SlotId>,
    /// Which of the two tables is written first the next time.
    pub(super) first_table: usize,
}

/// A journal that knows which thread holds it: on a volume that is pushed by whoever waits, what a caller
/// chained to a transfer may run in the middle of a commit, and come back here.
#[derive(Debug, Default)]
pub(super) struct JournalLock {
    journal: Mutex<Journal>,
    holder: Mutex<Option<ThreadId>>,
}

impl JournalLock {
    fn holder(&self) -> MutexGuard<'_, Option<ThreadId>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock(&self) -> JournalGuard<'_> {
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        *self.holder() = Some(thread::current().id());
        JournalGuard {
            journal,
            lock: self,
        }
    }

    /// Whether the calling thread holds it already.
    pub(super) fn is_held_here(&self) -> bool {
        *self.holder() == Some(thread::current().id())
    }
}

/// The journal in the hands of a thread.
#[derive(Debug)]
pub(super) struct JournalGuard<'a> {
    journal: MutexGuard<'a, Journal>,
    lock: &'a JournalLock,
}

impl Deref for JournalGuard<'_> {
    type Target = Journal;

    fn deref(&self) -> &Journal {
        &self.journal
    }
}

impl DerefMut for JournalGuard<'_> {
    fn deref_mut(&mut self) -> &mut Journal {
        &mut self.journal
    }
}

impl Drop for JournalGuard<'_> {
    fn drop(&mut self) {
        *self.lock.holder() = None;
    }
}
