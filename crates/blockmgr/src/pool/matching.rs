//! Finding blocks by identity.

use super::RequestOptions;
use super::core::Core;
use super::directory::NONE;
use super::index::Key;
use super::observer::BlockEvent;
use super::shard::{Cursor, State};
use crate::SequenceHash;
use crate::policy::{Access, EvictionPolicy, Request, Slot};
use crate::sync::atomic::Ordering;

/// Room made at the first hit.
const ROOM_BLOCKS: usize = 32;

impl Core {
    fn request(&self, blocks: usize, options: &RequestOptions) -> Request {
        let clock = &self.clock.0;
        clock.blocks.fetch_add(blocks as u64, Ordering::Relaxed);
        Request {
            tick: clock.requests.fetch_add(1, Ordering::Relaxed),
            time_ms: options.time_ms.unwrap_or_else(|| self.now_ms()),
            chain_blocks: u32::try_from(blocks).unwrap_or(u32::MAX),
            priority: options.priority,
            ..Request::default()
        }
    }

    /// Adds a user to each of the leading blocks that the pool has, and tells their slots.
    pub(super) fn match_prefix(
        &self,
        hashes: &[SequenceHash],
        options: &RequestOptions,
    ) -> Vec<u32> {
        let mut request = self.request(hashes.len(), options);
        let mut cursor = self.shards.cursor();
        let mut slots = Vec::new();
        let mut before = NONE;
        for hash in hashes {
            let Some(slot) = self.find(&mut cursor, before, hash.words(), &mut request) else {
                break;
            };
            request.matched_blocks += 1;
            let (shard, local) = cursor.at(slot);
            shard
                .policy
                .hit(Slot::new(local as u32), &access(*hash, request));
            shard.counts.hits += 1;
            shard.cells[local].used = request.tick as u32;
            shard.add_user(local);
            if slots.is_empty() {
                slots.reserve(hashes.len().min(ROOM_BLOCKS));
            }
            slots.push(slot);
            before = slot;
        }
        slots
    }

    /// The slot of a registered block; the cursor is at its shard then. `before` is the slot of the block before,
    /// where the cursor was, or [`NONE`].
    #[inline]
    fn find(
        &self,
        cursor: &mut Cursor<'_>,
        before: u32,
        key: Key,
        request: &mut Request,
    ) -> Option<u32> {
        // Mostly the block that followed last time follows again, and the directory need not be asked.
        if let Some((shard, local)) = cursor.here(before) {
            let next = shard.cells[local].next;
            if next != NONE && self.directory.key(next) == key {
                let (shard, local) = cursor.at(next);
                if shard.cells[local].state == State::Registered && self.directory.key(next) == key
                {
                    return Some(next);
                }
            }
        }
        self.look_up(cursor, before, key, request)
    }

    fn look_up(
        &self,
        cursor: &mut Cursor<'_>,
        before: u32,
        key: Key,
        request: &mut Request,
    ) -> Option<u32> {
        if let Some((shard, local)) = cursor.here(before) {
            request.heritage = shard.policy.heritage(Slot::new(local as u32));
        }
        loop {
            let Some(slot) = self.directory.find(key) else {
                self.expected.add(key, request);
                return None;
            };
            if let Some((shard, local)) = cursor.here(before) {
                shard.cells[local].next = slot;
            }
            let (shard, local) = cursor.at(slot);
            // The block may have left between the two locks, and even come back elsewhere.
            if shard.cells[local].state == State::Registered && self.directory.key(slot) == key {
                return Some(slot);
            }
        }
    }

    /// Adds a user to one block that the pool has, as part of no request.
    pub(crate) fn match_one(&self, hash: SequenceHash) -> Option<u32> {
        let mut cursor = self.shards.cursor();
        loop {
            let slot = self.directory.find(hash.words())?;
            let (shard, local) = cursor.at(slot);
            if shard.cells[local].state == State::Registered
                && self.directory.key(slot) == hash.words()
            {
                shard.add_user(local);
                return Some(slot);
            }
            cursor.leave();
        }
    }

    /// Tells the policy of a use of blocks that nobody takes hold of; how many of them the pool has.
    pub(super) fn touch(&self, hashes: &[SequenceHash], options: &RequestOptions) -> usize {
        let request = self.request(hashes.len(), options);
        let mut touched = 0;
        // From the last to the first, as blocks are released.
        for hash in hashes.iter().rev() {
            let Some(slot) = self.match_one(*hash) else {
                continue;
            };
            let mut cursor = self.shards.cursor();
            let (shard, local) = cursor.at(slot);
            shard
                .policy
                .hit(Slot::new(local as u32), &access(*hash, request));
            drop(cursor);
            self.release(&[slot]);
            touched += 1;
        }
        touched
    }

    /// How many of the leading blocks the pool has; nothing is told to the policy.
    pub(super) fn count_prefix(&self, hashes: &[SequenceHash]) -> usize {
        let has = |hash: &&SequenceHash| self.directory.find(hash.words()).is_some();
        hashes.iter().take_while(has).count()
    }

    /// Removes blocks that nobody uses; how many that were.
    pub(super) fn remove(&self, hashes: &[SequenceHash]) -> usize {
        let mut events: Vec<BlockEvent> = Vec::new();
        let mut removed = 0;
        for hash in hashes {
            let Some(slot) = self.directory.find(hash.words()) else {
                continue;
            };
            let mut cursor = self.shards.cursor();
            let (shard, local) = cursor.at(slot);
            let cell = &shard.cells[local];
            let same = self.directory.key(slot) == hash.words();
            if cell.state != State::Registered || cell.users > 0 || !same {
                continue;
            }
            shard.policy.remove(Slot::new(local as u32));
            self.note_removed(&mut events, *hash);
            self.directory.remove(slot);
            shard.put_free(local);
            shard.counts.removed += 1;
            removed += 1;
        }
        self.publish(&events);
        removed
    }
}

#[inline]
pub(super) fn access(hash: SequenceHash, request: Request) -> Access {
    Access {
        sequence_hash: hash.as_u128(),
        position: hash.position(),
        request,
    }
}
