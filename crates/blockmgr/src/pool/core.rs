//! The state of a pool, shared by its handles and its blocks.

use std::time::Instant;

use super::backlog::Notes;
use super::cell::{Pin, State};
use super::directory::Directory;
use super::expected::Expected;
use super::lane::Lanes;
use super::lease::Leases;
use super::observer::{BlockEvent, EventSink, EvictionHook};
use super::shards::Shards;
use super::unfinished::Held;
use super::{Duplicates, PoolStatus};
use crate::SequenceHash;
use crate::policy::{Request, Study};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Padded, contained};

pub(crate) struct Core {
    pub(super) capacity: u32,
    pub(super) block_tokens: usize,
    pub(super) duplicates: Duplicates,
    pub(super) shards: Shards,
    pub(super) lanes: Lanes,
    pub(super) directory: Directory,
    pub(super) expected: Expected,
    pub(super) clock: Padded<Clock>,
    pub(super) leases: Leases,
    pub(super) study: Option<std::sync::Arc<dyn Study>>,
    pub(super) hook: Option<std::sync::Arc<dyn EvictionHook>>,
    pub(super) sink: Option<std::sync::Arc<dyn EventSink>>,
    pub(super) event_sequence: AtomicU64,
}

/// Counts requests.
pub(super) struct Clock {
    pub(super) started: Instant,
    pub(super) requests: AtomicU64,
    /// When the newest request came.
    pub(super) newest_ms: AtomicU64,
}

impl Core {
    /// Milliseconds since the pool was made.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.0.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    /// The identity of a block that is in use.
    pub(crate) fn identity(&self, slot: u32) -> SequenceHash {
        self.directory.cell(slot).identity()
    }

    /// The number of the block that a slot has, among all it has had.
    pub(crate) fn generation(&self, slot: u32) -> u32 {
        self.directory.cell(slot).hold().generation
    }

    /// Adds a user to blocks that are in use.
    pub(crate) fn retain(&self, slots: &[u32]) {
        for &slot in slots {
            self.directory.cell(slot).retain();
        }
    }

    /// Takes a user from each of these blocks, from the last to the first; from all of them, also if a policy panics.
    pub(crate) fn release(&self, slots: &[u32]) {
        let mut notes = Notes::new(&self.shards, None);
        let mut releasing = Releasing {
            core: self,
            left: slots,
            released: 0,
        };
        while let Some((&slot, left)) = releasing.left.split_last() {
            releasing.left = left;
            let before = self.directory.cell(slot).release();
            if before.users > 1 {
                continue;
            }
            if before.state == State::Registered {
                releasing.released += 1;
                notes.add(slot, before.generation);
            } else {
                // In order: what came before is noted before. No policy is told now: one that panics would leave a slot that nobody has.
                notes.hand_over();
                self.release_duplicate(slot);
            }
        }
    }

    /// Stands for the request of blocks that nobody asked for: so many, from this one on.
    pub(super) fn unasked(&self, first: SequenceHash, blocks: usize) -> Request {
        let requests = self.clock.0.requests.load(Ordering::Relaxed);
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        Request {
            tick: requests.saturating_sub(1),
            time_ms: self.clock.0.newest_ms.load(Ordering::Relaxed),
            chain_blocks: first.position().saturating_add(blocks),
            matched_blocks: first.position(),
            is_unasked: true,
            ..Request::default()
        }
    }

    /// Counts and notes that somebody took hold of a block, as part of a request or of none. The block is let go if a policy panics.
    pub(super) fn note_pin(&self, slot: u32, pin: Pin, request: Option<&Request>) {
        if pin.is_first {
            self.lanes.own().count_pinned(1);
            let mut slots = [slot];
            let mut held = Held::new(self, &mut slots);
            Notes::new(&self.shards, request).add(slot, pin.generation);
            held.hand_out();
        }
    }

    /// Notes an event for the sink. The block's shard is locked, and the directory has the block: so a number drawn
    /// for the block's next change is larger.
    #[inline]
    pub(super) fn note_stored(&self, events: &mut Vec<BlockEvent>, sequence_hash: SequenceHash) {
        if self.sink.is_some() {
            let sequence = self.event_sequence.fetch_add(1, Ordering::Relaxed);
            events.push(BlockEvent::Stored {
                sequence,
                sequence_hash,
            });
        }
    }

    /// The same for a block that the directory is about to lose.
    #[inline]
    pub(super) fn note_removed(&self, events: &mut Vec<BlockEvent>, sequence_hash: SequenceHash) {
        if self.sink.is_some() {
            let sequence = self.event_sequence.fetch_add(1, Ordering::Relaxed);
            events.push(BlockEvent::Removed {
                sequence,
                sequence_hash,
            });
        }
    }

    /// Frees slots that were handed out and not registered; all of them, also if a policy panics when it is asked what it could give up. It is told
    /// of nothing.
    pub(crate) fn give_back(&self, slots: &[u32]) {
        let mut giving = GivingBack {
            core: self,
            left: slots,
        };
        let mut cursor = self.shards.cursor();
        while let Some((&slot, left)) = giving.left.split_last() {
            let (shard, local) = cursor.at_untold(slot);
            shard.put_free(local);
            giving.left = left;
        }
    }

    /// Adds a user to the block that a slot had in a generation, if it still has it.
    pub(crate) fn upgrade(&self, slot: u32, generation: u32, hash: SequenceHash) -> bool {
        let cell = self.directory.cell(slot);
        let Some(pin) = cell.upgrade(generation, hash.words()) else {
            return false;
        };
        self.note_pin(slot, pin, None);
        true
    }

    /// Slots that could be handed out; exact while no other thread uses the pool.
    pub(super) fn available(&self) -> usize {
        let in_use = self.lanes.in_use();
        self.shards.free_or_registered().saturating_sub(in_use)
    }

    /// Tells the sink, if there is one and something to tell.
    pub(super) fn publish(&self, events: &[BlockEvent]) {
        if let Some(sink) = &self.sink
            && !events.is_empty()
        {
            sink.publish(events);
        }
    }

    pub(super) fn status(&self) -> PoolStatus {
        let mut status = PoolStatus {
            capacity_blocks: self.capacity as usize,
            shards: self.shards.count(),
            requests: self.clock.0.requests.load(Ordering::Relaxed),
            requested_blocks: self.lanes.sum(|lane| &lane.requested),
            hit_blocks: self.lanes.sum(|lane| &lane.hits),
            ..PoolStatus::default()
        };
        let mut idle = 0;
        let mut cursor = self.shards.cursor();
        for index in 0..self.shards.count() {
            let shard = cursor.enter(index);
            status.free_blocks += shard.free.len();
            idle += shard.free_or_registered();
            status.registered_blocks += shard.counts.registered;
            status.duplicate_blocks += shard.counts.duplicates;
            status.evicted_blocks += shard.counts.evicted;
            status.removed_blocks += shard.counts.removed;
        }
        let idle = idle.saturating_sub(self.lanes.in_use());
        status.cached_blocks = idle.saturating_sub(status.free_blocks);
        status.in_use_blocks = status.capacity_blocks.saturating_sub(idle);
        status
    }
}

/// Blocks that lose a user each, also those that are left when a policy panics.
struct Releasing<'a> {
    core: &'a Core,
    left: &'a [u32],
    /// Blocks that nobody uses any more and that are not counted yet.
    released: u64,
}

impl Drop for Releasing<'_> {
    fn drop(&mut self) {
        if self.released > 0 {
            self.core.lanes.own().count_released(self.released);
        }
        // One by one: each may panic.
        for slot in std::mem::take(&mut self.left).iter().rev() {
            contained(|| self.core.release(std::slice::from_ref(slot)));
        }
    }
}

/// Slots that are freed, also those that are left when a policy panics.
struct GivingBack<'a> {
    core: &'a Core,
    left: &'a [u32],
}

impl Drop for GivingBack<'_> {
    fn drop(&mut self) {
        for slot in std::mem::take(&mut self.left).iter().rev() {
            contained(|| self.core.give_back(std::slice::from_ref(slot)));
        }
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockPool")
            .field("capacity_blocks", &self.capacity)
            .field("shards", &self.shards.count())
            .finish_non_exhaustive()
    }
}
