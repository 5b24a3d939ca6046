//! Holding the lock of a shard.

use super::shard::Shard;
use super::shards::Shards;
use crate::sync::{MutexGuard, contained, lock};

/// Goes from shard to shard with at most one locked. The policy of a shard is told what was noted for it when the shard is locked.
pub(super) struct Cursor<'a> {
    pub(super) shards: &'a Shards,
    pub(super) held: Option<(usize, MutexGuard<'a, Shard>)>,
}

impl<'a> Cursor<'a> {
    /// The shard of a slot, locked, and the slot's number there.
    #[inline]
    pub(super) fn at(&mut self, slot: u32) -> (&mut Shard, u32) {
        let shard = self.shards.shard_of(slot);
        let local = self.shards.local(slot);
        (self.enter(shard), local)
    }

    /// The same, without telling the policy what was noted.
    pub(super) fn at_untold(&mut self, slot: u32) -> (&mut Shard, u32) {
        let shard = self.shards.shard_of(slot);
        let local = self.shards.local(slot);
        if self.held.as_ref().is_none_or(|(held, _)| *held != shard) {
            self.leave();
        }
        let place = &self.shards.places[shard].0;
        let (_, guard) = self
            .held
            .get_or_insert_with(|| (shard, lock(&place.shard.0)));
        (guard, local)
    }

    /// A shard, locked.
    #[inline]
    pub(super) fn enter(&mut self, shard: usize) -> &mut Shard {
        if self.held.as_ref().is_none_or(|(held, _)| *held != shard) {
            self.leave();
        }
        let shards = self.shards;
        let (_, guard) = self.held.get_or_insert_with(|| {
            let place = &shards.places[shard].0;
            let mut guard = lock(&place.shard.0);
            guard.catch_up(&place.backlog.0);
            (shard, guard)
        });
        guard
    }

    /// Tells the policy of the shard that is locked what was noted since; whether there was something.
    pub(super) fn catch_up(&mut self) -> bool {
        let Some((shard, guard)) = &mut self.held else {
            return false;
        };
        let backlog = self.shards.backlog(*shard);
        let is_behind = !backlog.is_empty();
        guard.catch_up(backlog);
        is_behind
    }

    /// Gives the lock up.
    #[inline]
    pub(super) fn leave(&mut self) {
        if let Some((shard, guard)) = self.held.take() {
            // Stated before the lock is given up, so that the latest holder's numbers stay.
            contained(|| self.shards.places[shard].0.publish(&guard));
        }
    }
}

impl Drop for Cursor<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
