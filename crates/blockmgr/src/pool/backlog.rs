//! What a shard's policy has not been told yet.

use super::shards::Shards;
use crate::policy::Request;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Mutex, contained, lock};

/// From so many entries on, who adds some tells the policy of them, if nobody has the shard locked.
const SOON: usize = if cfg!(shuttle) { 2 } else { 256 };
/// And at so many, waits for the shard. The few requests of a test that tries interleavings come to this too.
const MAX: usize = if cfg!(shuttle) { 4 } else { 4096 };

/// Entries that are added at once.
const RUN: usize = 64;

/// No request: the number of users changed, and that is all.
const NO_REQUEST: u32 = u32::MAX;

/// A change of a registered block's use.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Entry {
    pub(super) local: u32,
    /// Of the block that is meant: another may have its slot by now.
    pub(super) generation: u32,
    request: u32,
}

/// Entries in order, with the requests that they name.
#[derive(Debug, Default)]
pub(super) struct Entries {
    entries: Vec<Entry>,
    requests: Vec<Request>,
}

impl Entries {
    /// An entry, with the request that used the block, if one did.
    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<(Entry, Option<&Request>)> {
        let entry = self.entries.get(at)?;
        Some((*entry, self.requests.get(entry.request as usize)))
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.requests.clear();
    }
}

/// Uses and changes of use that were noted while the shard was not locked; who locks it tells its policy.
///
/// A user is noted after it came, and noted again if it was the last one after it went. So of the entries of a block that nobody uses
/// the last one was made when that was so already, or is about to be.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    entries: Mutex<Entries>,
    /// How many, when somebody changed it last.
    len: AtomicU32,
}

impl Backlog {
    /// Whether there seems to be something.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    /// Exchanges the entries for none.
    #[inline]
    pub(super) fn take(&self, empty: &mut Entries) {
        let mut entries = lock(&self.entries);
        std::mem::swap(&mut *entries, empty);
        self.len.store(0, Ordering::Release);
    }

    /// Adds entries of one request, or of none; how many there are now.
    #[inline]
    fn extend(&self, added: &mut [Entry], request: Option<&Request>) -> usize {
        let mut entries = lock(&self.entries);
        if let Some(request) = request {
            let number = entries.requests.len() as u32;
            entries.requests.push(*request);
            added.iter_mut().for_each(|entry| entry.request = number);
        }
        entries.entries.extend_from_slice(added);
        let len = entries.entries.len();
        self.len.store(len as u32, Ordering::Release);
        len
    }
}

/// Notes changes of use, those of neighbours in a shard at once, by one request or by none. No shard is locked meanwhile.
pub(super) struct Notes<'a> {
    shards: &'a Shards,
    request: Option<&'a Request>,
    shard: usize,
    run: [Entry; RUN],
    len: usize,
}

impl<'a> Notes<'a> {
    pub(super) fn new(shards: &'a Shards, request: Option<&'a Request>) -> Self {
        Self {
            shards,
            request,
            shard: 0,
            run: [Entry::default(); RUN],
            len: 0,
        }
    }

    /// Notes a change of the users that a slot's block has.
    #[inline]
    pub(super) fn add(&mut self, slot: u32, generation: u32) {
        let shard = self.shards.shard_of(slot);
        let mut long = None;
        if shard != self.shard || self.len == RUN {
            long = self.hand_over();
            self.shard = shard;
        }
        self.run[self.len] = Entry {
            local: self.shards.local(slot),
            generation,
            request: NO_REQUEST,
        };
        self.len += 1;
        // A policy may panic: all is noted by now.
        self.shorten(long);
    }

    /// Hands over what was noted.
    #[inline]
    pub(super) fn flush(&mut self) {
        let long = self.hand_over();
        self.shorten(long);
    }

    /// Adds what was noted to the backlog; which one it is and how long, if it is long.
    #[inline]
    pub(super) fn hand_over(&mut self) -> Option<(usize, usize)> {
        if self.len == 0 {
            return None;
        }
        let added = &mut self.run[..self.len];
        let len = self.shards.backlog(self.shard).extend(added, self.request);
        self.len = 0;
        (len >= SOON).then_some((self.shard, len))
    }

    /// Tells the policy of a long backlog.
    #[inline]
    fn shorten(&self, long: Option<(usize, usize)>) {
        if let Some((shard, len)) = long {
            self.shards.catch_up(shard, len >= MAX);
        }
    }
}

impl Drop for Notes<'_> {
    fn drop(&mut self) {
        contained(|| self.flush());
    }
}
