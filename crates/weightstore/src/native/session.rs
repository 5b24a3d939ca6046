//! What one operation relies on while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use core_view::contract::Transfer;

use super::changes::Changes;
use super::commit::Committed;
use super::core::Core;
use crate::record::{BodyId, Key, Place};
use crate::{WeightError, WeightHash};

/// Keeps the tensors that an operation has found or stored from being deleted until it ends.
pub(super) struct Session<'a> {
    core: &'a Core,
    first: BodyId,
    pinned: Mutex<Vec<WeightHash>>,
    /// Bodies whose chunks are committed and whose header is not yet, with their number of chunks.
    unfinished: Mutex<BTreeMap<BodyId, u32>>,
}

impl<'a> Session<'a> {
    pub(super) fn new(core: &'a Core) -> Self {
        Self {
            core,
            first: core.begin(),
            pinned: Mutex::new(Vec::new()),
            unfinished: Mutex::new(BTreeMap::new()),
        }
    }

    /// What the order of this operation's commits depends on: another for each.
    pub(super) fn interleaving_seed(&self) -> Option<u64> {
        let seed = self.core.config.interleaving_seed()?;
        Some(seed ^ self.first.0.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The most bytes that are committed together.
    pub(super) fn batch_bytes(&self) -> usize {
        self.core.batch_bytes()
    }

    /// Whether a tensor is there; if so it stays.
    pub(super) fn keep(&self, hash: &WeightHash) -> bool {
        let there = self.core.catalog().pin(hash);
        if there {
            self.note([*hash]);
        }
        there
    }

    /// Sends the chunks of changes on their way, before the headers that will name them; returns what to wait
    /// for, and the bytes that were sent.
    pub(super) fn send_content(
        &self,
        changes: &mut Changes,
    ) -> Result<(Transfer<()>, u64), WeightError> {
        let chunks = changes.take_chunks();
        // Whether they arrive or not, they are what is left behind if nothing comes to name them.
        let mut unfinished = self.unfinished();
        for (body, index, _) in &chunks {
            let count = unfinished.entry(*body).or_insert(0);
            *count = (index + 1).max(*count);
        }
        drop(unfinished);
        self.core.send_chunks(chunks)
    }

    fn unfinished(&self) -> MutexGuard<'_, BTreeMap<BodyId, u32>> {
        let unfinished = self.unfinished.lock();
        unfinished.unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits changes; their tensors stay.
    pub(super) fn commit(&self, changes: Changes) -> Result<Committed, WeightError> {
        let hashes: Vec<WeightHash> = changes.objects.iter().map(|object| object.hash).collect();
        let mut chunks = BTreeMap::new();
        for (body, index, _) in &changes.chunks {
            let count = chunks.entry(*body).or_insert(0);
            *count = (index + 1).max(*count);
        }
        let objects = changes.objects.iter().map(|object| &object.record.body);
        let rewrites = changes.rewrites.iter().map(|rewrite| &rewrite.now.body);
        let deltas = changes.deltas.iter().map(|(_, record)| &record.body);
        let finished: Vec<BodyId> = objects
            .chain(rewrites)
            .chain(deltas)
            .filter_map(|body| match body.place {
                Place::Chunks(number) => Some(number),
                Place::Inline(_) => None,
            })
            .collect();
        let committed = self.core.commit(changes)?;
        self.note(hashes);
        let mut unfinished = self.unfinished();
        unfinished.extend(chunks);
        for body in finished {
            unfinished.remove(&body);
        }
        Ok(committed)
    }

    fn note(&self, hashes: impl IntoIterator<Item = WeightHash>) {
        self.pinned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(hashes);
    }

    fn unpin(&self) -> BTreeSet<WeightHash> {
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        let mut catalog = self.core.catalog();
        let hashes = std::mem::take(&mut *pinned);
        for hash in &hashes {
            catalog.unpin(hash);
        }
        hashes.into_iter().collect()
    }

    /// Ends a session that succeeded: what was removed by others while it was kept here goes now.
    pub(super) fn finish(self) {
        let mut hashes = self.unpin();
        {
            let catalog = self.core.catalog();
            hashes.retain(|hash| catalog.is_free(hash));
        }
        self.core.let_go(&hashes);
    }

    /// Ends a session that failed: what it stored and nobody needs goes.
    pub(super) fn abandon(self) {
        let hashes = self.unpin();
        let mut changes = Changes::default();
        let unfinished = std::mem::take(&mut *self.unfinished());
        for (body, count) in unfinished {
            for index in 0..count {
                changes.deletes.insert(Key::Chunk(body, index).encode());
            }
        }
        // What can't be deleted now is unreachable and does no harm.
        drop(self.core.commit(changes));
        self.core.let_go(&hashes);
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.unpin();
        // Those of others stay: an import would begin a new one for each encoding, beside many that read.
        if self.core.end(self.first) {
            self.core.rooms.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use tier_nvme::sim::SimVolume;

    use super::*;
    use crate::{NativeConfig, NativeStore};

    #[test]
    fn an_operation_beside_an_import_leaves_its_open_room_to_it() {
        const LEN: usize = 8192;
        let store =
            NativeStore::on_volume(SimVolume::new(1).handle(), NativeConfig::default()).unwrap();
        let core = &store.core;
        let filled = || {
            let filled = core.rooms.fill(&core.buffers, LEN, |room| {
                room.fill(1);
                Some(((), LEN))
            });
            filled.unwrap().unwrap().1
        };
        let import = Session::new(core);
        let first = filled();
        drop(Session::new(core));
        let second = filled();
        assert_eq!(second.as_ptr(), first.as_ptr().wrapping_add(LEN));
        // The last one closes it: nothing is kept for nobody.
        drop(import);
        let third = filled();
        assert_ne!(third.as_ptr(), second.as_ptr().wrapping_add(LEN));
    }
}
