//! Making blocks known.

use super::Duplicates;
use super::cell::State;
use super::core::Core;
use super::directory::{BATCH_MAX, NONE};
use super::matching::access;
use super::observer::BlockEvent;
use crate::SequenceHash;
use crate::policy::{Heritage, Request};
use crate::sync::atomic::Ordering;
use crate::sync::yield_now;

impl Core {
    /// Registers slots that were taken, each under its hash, with one user each. Where duplicates are rejected, the
    /// slot of the block that is there takes the place of the one offered.
    ///
    /// `parent` is the block before the first, if the caller knows it.
    pub(super) fn register(
        &self,
        slots: &mut [u32],
        hashes: &[SequenceHash],
        parent: Option<SequenceHash>,
    ) {
        let mut events = Vec::new();
        let mut rejected = Vec::new();
        let mut request = Request::default();
        let mut expected_position = None;
        let mut cursor = self.shards.cursor();
        let mut before = NONE;
        let mut start = 0;
        let mut registered = 0;
        while let (Some(&first), Some(&slot)) = (hashes.get(start), slots.get(start)) {
            if expected_position != Some(first.position()) {
                cursor.leave();
                let parent = parent.filter(|_| start == 0);
                request = self.request_of(&hashes[start..], parent);
                before = NONE;
            }
            cursor.at(slot);
            let batch = start..start + self.batch_blocks(&slots[start..], &hashes[start..]);
            start = batch.end;
            let entered = self
                .directory
                .insert_all(&slots[batch.clone()], &hashes[batch.clone()]);
            for (place, index) in batch.enumerate() {
                let (slot, hash) = (slots[index], hashes[index]);
                expected_position = hash.position().checked_add(1);
                let is_entered = entered >> place & 1 == 1;
                if !is_entered && self.duplicates == Duplicates::Reject {
                    rejected.push(index);
                    continue;
                }
                if before != NONE {
                    self.directory.cell(before).set_next(slot);
                }
                before = slot;
                let (shard, local) = cursor.at(slot);
                if is_entered {
                    shard.register(local, &access(hash, request), 1);
                    registered += 1;
                    self.note_stored(&mut events, hash);
                } else {
                    let cell = self.directory.cell(slot);
                    cell.set_identity(hash);
                    cell.set(State::Duplicate, 1);
                    shard.counts.duplicates += 1;
                }
            }
        }
        drop(cursor);
        let pinned = &self.lanes.own().pinned;
        pinned.fetch_add(registered, Ordering::Relaxed);
        self.publish(&events);
        self.replace_rejected(slots, hashes, &rejected);
    }

    /// How many of the leading blocks can be entered at once: those that follow one another, in slots of one shard.
    fn batch_blocks(&self, slots: &[u32], hashes: &[SequenceHash]) -> usize {
        let mut blocks = 1;
        while blocks < slots.len().min(BATCH_MAX)
            && self.shards.shard_of(slots[blocks]) == self.shards.shard_of(slots[0])
            && Some(hashes[blocks].position()) == hashes[blocks - 1].position().checked_add(1)
        {
            blocks += 1;
        }
        blocks
    }

    /// What request blocks belong to: the one that missed the first of them, or else one that is made up from the
    /// parent.
    fn request_of(&self, hashes: &[SequenceHash], parent: Option<SequenceHash>) -> Request {
        let Some(&first) = hashes.first() else {
            return Request::default();
        };
        if let Some(request) = self.expected.take(first.words()) {
            return request;
        }
        let chain_blocks = u32::try_from(hashes.len()).unwrap_or(u32::MAX);
        let mut request = Request {
            tick: self.clock.0.requests.load(Ordering::Relaxed),
            time_ms: self.now_ms(),
            chain_blocks: first.position().saturating_add(chain_blocks),
            matched_blocks: first.position(),
            ..Request::default()
        };
        if let Some(slot) = parent.and_then(|parent| self.directory.find(parent.words())) {
            request.heritage = Heritage(self.directory.cell(slot).heritage());
        }
        request
    }

    /// Puts the blocks that were there in the place of those that came too late.
    #[cold]
    fn replace_rejected(&self, slots: &mut [u32], hashes: &[SequenceHash], rejected: &[usize]) {
        for &index in rejected {
            let (slot, hash) = (&mut slots[index], hashes[index]);
            loop {
                if let Some(present) = self.match_one(hash) {
                    self.give_back(&[std::mem::replace(slot, present)]);
                    self.count_duplicate(present);
                    break;
                }
                if self.register_one(*slot, hash) {
                    break;
                }
                // It is just being registered, or is about to leave.
                yield_now();
            }
        }
    }

    fn count_duplicate(&self, slot: u32) {
        let mut cursor = self.shards.cursor();
        let (shard, _) = cursor.at(slot);
        shard.counts.duplicates += 1;
    }

    /// Registers a slot whose block was there a moment ago and may have left.
    fn register_one(&self, slot: u32, hash: SequenceHash) -> bool {
        let request = self.request_of(&[hash], None);
        let mut events: Vec<BlockEvent> = Vec::new();
        let mut cursor = self.shards.cursor();
        let (shard, local) = cursor.at(slot);
        if !self.directory.insert(slot, hash) {
            return false;
        }
        shard.register(local, &access(hash, request), 1);
        self.note_stored(&mut events, hash);
        drop(cursor);
        self.lanes.own().pinned.fetch_add(1, Ordering::Relaxed);
        self.publish(&events);
        true
    }
}
