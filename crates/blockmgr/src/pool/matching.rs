//! Finding blocks by identity.

use super::RequestOptions;
use super::allocate::Departures;
use super::backlog::Notes;
use super::cell::{Key, Pin};
use super::core::Core;
use super::directory::NONE;
use super::unfinished::{FIRST, Held};
use crate::SequenceHash;
use crate::policy::{Access, EvictionPolicy, Heritage, Request, Slot};
use crate::sync::atomic::Ordering;

/// Room made at the first hit.
const ROOM_BLOCKS: usize = 32;

impl Core {
    fn request(&self, blocks: usize, options: &RequestOptions) -> Request {
        let requested = &self.lanes.own().requested;
        requested.fetch_add(blocks as u64, Ordering::Relaxed);
        let time_ms = options.time_ms.unwrap_or_else(|| self.now_ms());
        let clock = &self.clock.0;
        clock.newest_ms.store(time_ms, Ordering::Relaxed);
        Request {
            tick: clock.requests.fetch_add(1, Ordering::Relaxed),
            time_ms,
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
        let mut slots = Vec::new();
        let mut before = NONE;
        let mut pinned = 0;
        for hash in hashes {
            let Some((slot, pin)) = self.pin_after(before, hash.words()) else {
                if before != NONE {
                    request.heritage = Heritage(self.directory.cell(before).heritage());
                }
                request.matched_blocks = slots.len() as u32;
                self.expected.add(hash.words(), &request);
                break;
            };
            let cell = self.directory.cell(slot);
            cell.set_used(request.tick);
            if slots.is_empty() {
                slots.reserve(hashes.len().min(ROOM_BLOCKS));
            }
            if pin.is_first {
                pinned += 1;
                slots.push(slot | FIRST);
            } else {
                cell.note_again(&request);
                slots.push(slot);
            }
            before = slot;
        }
        request.matched_blocks = slots.len() as u32;
        self.note_uses(&mut slots, pinned, &request);
        slots
    }

    /// Counts and notes that a request took hold of blocks, those that are marked as the first; takes the marks away.
    fn note_uses(&self, slots: &mut [u32], pinned: u64, request: &Request) {
        if slots.is_empty() {
            return;
        }
        let counts = self.lanes.own();
        counts.hits.fetch_add(slots.len() as u64, Ordering::Relaxed);
        if pinned == 0 {
            return;
        }
        counts.count_pinned(pinned);
        let mut held = Held::new(self, slots);
        let mut notes = Notes::new(&self.shards, Some(request));
        for slot in held.slots.iter_mut().filter(|slot| **slot & FIRST != 0) {
            *slot &= !FIRST;
            notes.add(*slot, self.directory.cell(*slot).hold().generation);
        }
        notes.flush();
        held.hand_out();
    }

    /// Takes hold of a registered block. `before` is the slot of the block before it, or [`NONE`].
    #[inline]
    fn pin_after(&self, before: u32, key: Key) -> Option<(u32, Pin)> {
        if before == NONE {
            return self.directory.pin(key);
        }
        // Mostly the block that followed last time follows again, and the directory need not be asked.
        let cell = self.directory.cell(before);
        let next = cell.next();
        if next != NONE
            && let Some(pin) = self.directory.cell(next).pin(key)
        {
            return Some((next, pin));
        }
        let (slot, pin) = self.directory.pin(key)?;
        cell.set_next(slot);
        Some((slot, pin))
    }

    /// Adds a user to one block that the pool has, as part of no request.
    pub(crate) fn match_one(&self, hash: SequenceHash) -> Option<u32> {
        let (slot, pin) = self.directory.pin(hash.words())?;
        self.note_pin(slot, pin, None);
        Some(slot)
    }

    /// Tells the policy of a use of blocks that nobody takes hold of; how many of them the pool has.
    pub(super) fn touch(&self, hashes: &[SequenceHash], options: &RequestOptions) -> usize {
        let request = self.request(hashes.len(), options);
        let mut touched = 0;
        // From the last to the first, as blocks are released.
        for hash in hashes.iter().rev() {
            let Some((slot, pin)) = self.directory.pin(hash.words()) else {
                continue;
            };
            let cell = self.directory.cell(slot);
            cell.set_used(request.tick);
            if pin.is_first {
                self.note_pin(slot, pin, Some(&request));
            } else {
                cell.note_again(&request);
            }
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
        let mut departures = Departures::new(self);
        let mut removed = 0;
        for hash in hashes {
            let Some(slot) = self.directory.find(hash.words()) else {
                continue;
            };
            let mut cursor = self.shards.cursor();
            let (shard, local) = cursor.at(slot);
            let is_it = self.directory.cell(slot).key() == hash.words();
            if !is_it || !shard.take_idle(local) {
                continue;
            }
            self.note_removed(&mut departures.events, *hash);
            self.directory.remove(slot);
            shard.put_free(local);
            shard.counts.removed += 1;
            // A policy may panic: everybody else knows by now.
            shard.policy.remove(Slot::new(local));
            removed += 1;
        }
        departures.tell();
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
