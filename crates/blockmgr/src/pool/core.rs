//! The state of a pool, shared by its handles and its blocks.

use std::time::Instant;

use super::directory::Directory;
use super::expected::Expected;
use super::lease::Leases;
use super::observer::{BlockEvent, EventSink, EvictedBlock, EvictionHook};
use super::shard::{Shard, Shards, State};
use super::{Duplicates, PoolStatus};
use crate::SequenceHash;
use crate::policy::{Access, EvictionPolicy, Request, Slot, Study};
use crate::sync::Padded;
use crate::sync::atomic::{AtomicU64, Ordering};

pub(crate) struct Core {
    pub(super) capacity: u32,
    pub(super) block_tokens: usize,
    pub(super) duplicates: Duplicates,
    pub(super) shards: Shards,
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
    pub(super) blocks: AtomicU64,
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
        self.directory.identity(slot)
    }

    /// The number of the block that a slot has, among all it has had.
    pub(crate) fn generation(&self, slot: u32) -> u32 {
        let mut cursor = self.shards.cursor();
        let (shard, local) = cursor.at(slot);
        shard.cells[local].generation
    }

    /// Adds a user to blocks that are in use.
    pub(crate) fn retain(&self, slots: &[u32]) {
        let mut cursor = self.shards.cursor();
        for &slot in slots {
            let (shard, local) = cursor.at(slot);
            shard.cells[local].users += 1;
        }
    }

    /// Takes a user from each of these blocks, from the last to the first.
    pub(crate) fn release(&self, slots: &[u32]) {
        let mut events = Vec::new();
        let mut cursor = self.shards.cursor();
        for &slot in slots.iter().rev() {
            let (shard, local) = cursor.at(slot);
            let cell = &mut shard.cells[local];
            cell.users -= 1;
            if cell.users > 0 {
                continue;
            }
            match cell.state {
                State::Registered => shard.policy.release(Slot::new(local as u32)),
                _ => self.release_duplicate(shard, local, slot, &mut events),
            }
        }
        drop(cursor);
        self.publish(&events);
    }

    /// Keeps a duplicate if what it duplicated is gone, and frees it otherwise.
    #[cold]
    fn release_duplicate(
        &self,
        shard: &mut Shard,
        local: usize,
        slot: u32,
        events: &mut Vec<BlockEvent>,
    ) {
        let hash = self.directory.identity(slot);
        if !self.directory.insert(slot, hash) {
            shard.put_free(local);
            return;
        }
        let access = Access {
            sequence_hash: hash.as_u128(),
            position: hash.position(),
            request: Request {
                tick: self.clock.0.requests.load(Ordering::Relaxed),
                time_ms: self.now_ms(),
                chain_blocks: hash.position().saturating_add(1),
                ..Request::default()
            },
        };
        let cell = &mut shard.cells[local];
        cell.state = State::Registered;
        cell.used = access.request.tick as u32;
        shard.policy.insert(Slot::new(local as u32), &access);
        shard.policy.release(Slot::new(local as u32));
        self.note_stored(events, hash);
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

    /// Frees slots that were handed out and not registered.
    pub(crate) fn give_back(&self, slots: &[u32]) {
        let mut cursor = self.shards.cursor();
        for &slot in slots.iter().rev() {
            let (shard, local) = cursor.at(slot);
            shard.put_free(local);
        }
    }

    /// Adds a user to the block that a slot had in a generation, if it still has it.
    pub(crate) fn upgrade(&self, slot: u32, generation: u32) -> bool {
        let mut cursor = self.shards.cursor();
        let (shard, local) = cursor.at(slot);
        let cell = &shard.cells[local];
        let kept = cell.generation == generation
            && (cell.state == State::Registered
                || cell.state == State::Duplicate && cell.users > 0);
        if kept {
            shard.add_user(local);
        }
        kept
    }

    /// Tells the sink, if there is one and something to tell.
    pub(super) fn publish(&self, events: &[BlockEvent]) {
        if let Some(sink) = &self.sink
            && !events.is_empty()
        {
            sink.publish(events);
        }
    }

    /// Tells what left, before the slots are used again.
    pub(super) fn announce_evicted(&self, evicted: &[EvictedBlock], events: &[BlockEvent]) {
        if let Some(hook) = &self.hook
            && !evicted.is_empty()
        {
            hook.evicted(evicted);
        }
        self.publish(events);
    }

    pub(super) fn status(&self) -> PoolStatus {
        let mut status = PoolStatus {
            capacity_blocks: self.capacity as usize,
            shards: self.shards.count(),
            requests: self.clock.0.requests.load(Ordering::Relaxed),
            requested_blocks: self.clock.0.blocks.load(Ordering::Relaxed),
            ..PoolStatus::default()
        };
        let mut cursor = self.shards.cursor();
        for index in 0..self.shards.count() {
            let shard = cursor.enter(index);
            status.free_blocks += shard.free.len();
            status.cached_blocks += shard.policy.evictable_slots() as usize;
            status.hit_blocks += shard.counts.hits;
            status.registered_blocks += shard.counts.registered;
            status.duplicate_blocks += shard.counts.duplicates;
            status.evicted_blocks += shard.counts.evicted;
            status.removed_blocks += shard.counts.removed;
        }
        let idle = status.free_blocks + status.cached_blocks;
        status.in_use_blocks = status.capacity_blocks.saturating_sub(idle);
        status
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
