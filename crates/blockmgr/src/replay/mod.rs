//! A trace played through real tiers: real bytes, each block checked when it arrives.

mod content;

use core_view::BufferMut;
use core_view::contract::{ContractError, Failure, SlotId, SlotRead, SlotWrite};

pub use content::{fill, is_content_of};

use crate::movement::{OffloadOptions, TierId, TieredCache};
use crate::trace::TraceRequest;
use crate::{BlockHash, Error, ImmutableBlocks, RequestOptions, Salt, SequenceHash};

/// Blocks written or read at a time.
const BATCH_BLOCKS: usize = 32;

/// What a replay has seen so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplayCounts {
    /// Requests.
    pub requests: u64,
    /// Blocks of their prompts.
    pub blocks: u64,
    /// Leading blocks that some tier had.
    pub hit_blocks: u64,
    /// Blocks that came from a lower tier with the right bytes.
    pub verified_blocks: u64,
    /// Blocks that came with other bytes.
    pub mismatched_blocks: u64,
}

impl ReplayCounts {
    /// These counts and others.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            blocks: self.blocks + other.blocks,
            hit_blocks: self.hit_blocks + other.hit_blocks,
            verified_blocks: self.verified_blocks + other.verified_blocks,
            mismatched_blocks: self.mismatched_blocks + other.mismatched_blocks,
        }
    }

    /// Part of the blocks that some tier had, from 0 to 1.
    pub fn hit_rate(&self) -> f64 {
        if self.blocks == 0 {
            return 0.0;
        }
        self.hit_blocks as f64 / self.blocks as f64
    }
}

/// An engine that follows a trace, one request after another.
///
/// Its blocks have the bytes that [`fill`] makes from their identities. A request that is longer than the engine's
/// memory keeps its beginning.
#[derive(Debug)]
pub struct Replay<'a> {
    cache: &'a TieredCache,
    salt: Salt,
    buffers: Vec<BufferMut>,
    counts: ReplayCounts,
}

impl<'a> Replay<'a> {
    /// A replay whose identities are made under `salt`.
    pub fn new(cache: &'a TieredCache, salt: Salt) -> Self {
        Self {
            cache,
            salt,
            buffers: Vec::new(),
            counts: ReplayCounts::default(),
        }
    }

    /// What was seen so far.
    pub fn counts(&self) -> ReplayCounts {
        self.counts
    }

    /// The identities of a request's blocks; a block that is named twice counts at its first place.
    pub fn sequence_hashes(&self, request: &TraceRequest) -> Vec<SequenceHash> {
        let mut seen = std::collections::HashSet::new();
        let mut parent = None;
        let mut hashes = Vec::with_capacity(request.hash_ids.len());
        for &id in request.hash_ids.iter().filter(|&&id| seen.insert(id)) {
            let block = BlockHash::new(u128::from(id));
            let position = u32::try_from(hashes.len()).unwrap_or(u32::MAX);
            let hash = self.salt.sequence_hash(parent, block, position);
            parent = Some(hash);
            hashes.push(hash);
        }
        hashes
    }

    /// Serves one request: matches what the tiers have, checks what arrived, computes and registers the rest. What is
    /// to go down waits in the cache's queues for a step.
    ///
    /// # Errors
    /// [`Error::Tier`] if the engine's memory fails.
    pub fn request(&mut self, request: &TraceRequest) -> Result<(), Error> {
        let hashes = self.sequence_hashes(request);
        let options = RequestOptions {
            time_ms: Some(request.timestamp_ms),
            ..RequestOptions::default()
        };
        let mut matched = self.cache.match_blocks(&hashes, &options);
        let found = matched.blocks.len();
        self.counts.requests += 1;
        self.counts.blocks += hashes.len() as u64;
        self.counts.hit_blocks += found as u64;
        let arrived = matched.blocks.split_off(found - matched.onboarded_blocks);
        self.check(&arrived)?;
        let missing = &hashes[found..];
        let room = self.cache.pool().available_blocks();
        let missing = &missing[..missing.len().min(room)];
        if missing.is_empty() {
            return Ok(());
        }
        let fresh = self.cache.allocate_blocks(missing.len())?;
        let slots: Vec<SlotId> = fresh.slots().collect();
        self.compute(missing, &slots)?;
        let mut complete = fresh.complete(missing)?;
        if let Some(&parent) = found.checked_sub(1).and_then(|last| hashes.get(last)) {
            complete = complete.with_parent(parent);
        }
        let registered = self
            .cache
            .register_blocks(complete, OffloadOptions::default())?;
        drop((matched, arrived, registered));
        Ok(())
    }

    /// Reads blocks and compares each with what its identity says.
    ///
    /// # Errors
    /// [`Error::Tier`] if the engine's memory fails.
    pub fn check(&mut self, blocks: &ImmutableBlocks) -> Result<(), Error> {
        let slots: Vec<SlotId> = blocks.slots().collect();
        let hashes: Vec<SequenceHash> = blocks.sequence_hashes().collect();
        for (slots, hashes) in slots.chunks(BATCH_BLOCKS).zip(hashes.chunks(BATCH_BLOCKS)) {
            let reads = slots.iter().zip(self.take_buffers(slots.len())?);
            let reads = reads.map(|(&slot, target)| SlotRead {
                slot,
                offset_bytes: 0,
                target,
            });
            let read = self.cache.memory().read(reads.collect()).wait();
            let buffers = read.map_err(|failure| failed("be read", failure))?;
            for (buffer, &hash) in buffers.iter().zip(hashes) {
                if is_content_of(hash, buffer) {
                    self.counts.verified_blocks += 1;
                } else {
                    self.counts.mismatched_blocks += 1;
                }
            }
            self.buffers = buffers;
        }
        Ok(())
    }

    /// Fills slots as a model would.
    fn compute(&mut self, hashes: &[SequenceHash], slots: &[SlotId]) -> Result<(), Error> {
        for (slots, hashes) in slots.chunks(BATCH_BLOCKS).zip(hashes.chunks(BATCH_BLOCKS)) {
            let mut buffers = self.take_buffers(slots.len())?;
            for (buffer, &hash) in buffers.iter_mut().zip(hashes) {
                fill(hash, buffer);
            }
            let writes = slots.iter().zip(buffers).map(|(&slot, source)| SlotWrite {
                slot,
                offset_bytes: 0,
                source,
            });
            let written = self.cache.memory().write(writes.collect()).wait();
            self.buffers = written.map_err(|failure| failed("be written", failure))?;
        }
        Ok(())
    }

    fn take_buffers(&mut self, count: usize) -> Result<Vec<BufferMut>, Error> {
        let mut buffers = std::mem::take(&mut self.buffers);
        buffers.truncate(count);
        while buffers.len() < count {
            let buffer = BufferMut::zeroed(self.cache.block_bytes(), 4096);
            buffers.push(buffer.map_err(|source| Error::Storage {
                tier: TierId::G1.name(),
                source,
            })?);
        }
        Ok(buffers)
    }
}

fn failed(operation: &'static str, failure: Failure) -> Error {
    Error::Tier {
        tier: TierId::G1.name(),
        operation,
        source: ContractError::from(failure),
    }
}
