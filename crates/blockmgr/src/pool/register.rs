//! Making blocks known.

use super::Duplicates;
use super::cell::State;
use super::core::Core;
use super::directory::{BATCH_MAX, NONE};
use super::matching::access;
use super::unfinished::{Entered, Unfinished};
use crate::SequenceHash;
use crate::policy::{Heritage, Request};
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
        let mut unfinished = Unfinished::new(self, slots);
        let rejected = self.register_all(&mut unfinished, hashes, parent);
        unfinished.publish();
        self.replace_rejected(&mut unfinished, hashes, &rejected);
        unfinished.give_up();
    }

    /// Registers what can be; tells which blocks are duplicates that are rejected.
    fn register_all(
        &self,
        unfinished: &mut Unfinished<'_>,
        hashes: &[SequenceHash],
        parent: Option<SequenceHash>,
    ) -> Vec<usize> {
        let Unfinished {
            slots,
            registered,
            events,
            ..
        } = unfinished;
        let mut rejected = Vec::new();
        let mut request = Request::default();
        let mut expected_position = None;
        let mut cursor = self.shards.cursor();
        let mut before = NONE;
        let mut start = 0;
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
            let batch_slots = &slots[batch.clone()];
            let entered = self
                .directory
                .insert_all(batch_slots, &hashes[batch.clone()]);
            let mut entered = Entered::new(&self.directory, batch_slots, entered);
            for (place, index) in batch.enumerate() {
                let (slot, hash) = (slots[index], hashes[index]);
                expected_position = hash.position().checked_add(1);
                let is_entered = entered.has(place);
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
                    entered.keep(place);
                    *registered += 1;
                    self.note_stored(events, hash);
                } else {
                    let cell = self.directory.cell(slot);
                    cell.set_identity(hash);
                    cell.set(State::Duplicate, 1);
                    shard.counts.duplicates += 1;
                }
            }
            self.count_registered(registered);
        }
        rejected
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
        let mut request = self.unasked(first, hashes.len());
        if let Some(slot) = parent.and_then(|parent| self.directory.find(parent.words())) {
            request.heritage = Heritage(self.directory.cell(slot).heritage());
        }
        request
    }

    /// Puts the blocks that were there in the place of those that came too late.
    #[cold]
    fn replace_rejected(
        &self,
        unfinished: &mut Unfinished<'_>,
        hashes: &[SequenceHash],
        rejected: &[usize],
    ) {
        for &index in rejected {
            let hash = hashes[index];
            loop {
                if let Some(present) = self.match_one(hash) {
                    let offered = std::mem::replace(&mut unfinished.slots[index], present);
                    self.give_back(&[offered]);
                    self.count_duplicate(present);
                    break;
                }
                let request = self.request_of(&[hash], None);
                let slot = unfinished.slots[index];
                if self.register_one(unfinished, slot, hash, request, 1) {
                    break;
                }
                // It is just being registered, or is about to leave.
                yield_now();
            }
        }
    }

    /// Counts blocks that were registered with a user, while their shard is locked: who looks for slots there counts both.
    pub(super) fn count_registered(&self, blocks: &mut u64) {
        let blocks = std::mem::take(blocks);
        if blocks > 0 {
            self.lanes.own().count_pinned(blocks);
        }
    }

    fn count_duplicate(&self, slot: u32) {
        let mut cursor = self.shards.cursor();
        let (shard, _) = cursor.at(slot);
        shard.counts.duplicates += 1;
    }

    /// Registers a slot whose block was elsewhere a moment ago and may have left, with one user or none; whether it had.
    fn register_one(
        &self,
        unfinished: &mut Unfinished<'_>,
        slot: u32,
        hash: SequenceHash,
        request: Request,
        users: u32,
    ) -> bool {
        let mut cursor = self.shards.cursor();
        let (shard, local) = cursor.at(slot);
        if !self.directory.insert(slot, hash) {
            return false;
        }
        let slots = [slot];
        let mut entered = Entered::new(&self.directory, &slots, 1);
        shard.register(local, &access(hash, request), users);
        entered.keep(0);
        self.note_stored(&mut unfinished.events, hash);
        unfinished.registered += u64::from(users);
        self.count_registered(&mut unfinished.registered);
        if users == 0 {
            unfinished.give_up();
        }
        drop(cursor);
        unfinished.publish();
        true
    }

    /// Keeps a duplicate that nobody uses any more if what it duplicated is gone, and frees it otherwise.
    #[cold]
    pub(super) fn release_duplicate(&self, slot: u32) {
        let hash = self.identity(slot);
        let mut slots = [slot];
        let mut unfinished = Unfinished::new(self, &mut slots);
        self.register_one(&mut unfinished, slot, hash, self.unasked(hash, 1), 0);
    }
}
