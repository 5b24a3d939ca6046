//! A pool without data, one request at a time.

use super::{HitCount, Workload, WorkloadRequest};
use crate::policy::{Access, EvictionPolicy, Policy, PolicyKind, Request, Slot};

const ABSENT: u32 = u32::MAX;

/// Runs a policy of this crate over a workload.
pub fn simulate(workload: &Workload, policy: PolicyKind, capacity_blocks: u32) -> HitCount {
    let mut cache = PrefixCache::new(policy.build(capacity_blocks), capacity_blocks);
    for request in workload.requests() {
        cache.request(request);
    }
    cache.count()
}

/// The blocks that a pool of `capacity_blocks` would have under a policy.
#[derive(Debug)]
pub struct PrefixCache<P = Policy> {
    policy: P,
    /// Slot of each block, by its number.
    slot_of: Vec<u32>,
    /// Block in each slot.
    block_in: Vec<u32>,
    vacant: Vec<u32>,
    count: HitCount,
}

impl<P: EvictionPolicy> PrefixCache<P> {
    /// An empty pool. `policy` must have been made for so many slots.
    pub fn new(policy: P, capacity_blocks: u32) -> Self {
        Self {
            policy,
            slot_of: Vec::new(),
            block_in: vec![ABSENT; capacity_blocks as usize],
            vacant: (0..capacity_blocks).rev().collect(),
            count: HitCount::default(),
        }
    }

    /// Runs one request; how many of its leading blocks were found.
    pub fn request(&mut self, request: WorkloadRequest<'_>) -> usize {
        let found = request
            .blocks
            .iter()
            .take_while(|&&block| self.slot(block).is_some())
            .count();
        let mut facts = Request {
            tick: self.count.requests,
            time_ms: request.time_ms,
            chain_blocks: request.blocks.len() as u32,
            matched_blocks: found as u32,
            ..Request::default()
        };
        let mut missing = 0;
        for (position, &block) in request.blocks.iter().enumerate() {
            match self.slot(block) {
                Some(slot) => {
                    self.policy.hit(slot, &access(block, position, facts));
                    self.policy.pin(slot);
                    if position + 1 == found {
                        facts.heritage = self.policy.heritage(slot);
                    }
                }
                None => missing += 1,
            }
        }
        while self.vacant.len() < missing {
            let Some(slot) = self.policy.evict() else {
                break;
            };
            let block = std::mem::replace(&mut self.block_in[slot.index()], ABSENT);
            self.slot_of[block as usize] = ABSENT;
            self.vacant.push(slot.get());
        }
        for (position, &block) in request.blocks.iter().enumerate() {
            if self.slot(block).is_some() {
                continue;
            }
            // A request that is longer than the pool keeps its beginning.
            let Some(index) = self.vacant.pop() else {
                break;
            };
            self.place(block, index);
            self.policy
                .insert(Slot::new(index), &access(block, position, facts));
        }
        for &block in request.blocks.iter().rev() {
            if let Some(slot) = self.slot(block) {
                self.policy.release(slot);
            }
        }
        self.count.add(request.blocks.len(), found);
        found
    }

    /// What was counted so far.
    pub fn count(&self) -> HitCount {
        self.count
    }

    /// Blocks in the pool.
    pub fn cached_blocks(&self) -> usize {
        self.block_in.len() - self.vacant.len()
    }

    fn slot(&self, block: u32) -> Option<Slot> {
        let slot = *self.slot_of.get(block as usize)?;
        (slot != ABSENT).then(|| Slot::new(slot))
    }

    fn place(&mut self, block: u32, slot: u32) {
        if self.slot_of.len() <= block as usize {
            self.slot_of.resize(block as usize + 1, ABSENT);
        }
        self.slot_of[block as usize] = slot;
        self.block_in[slot as usize] = block;
    }
}

fn access(block: u32, position: usize, request: Request) -> Access {
    Access {
        sequence_hash: identity(block),
        position: position as u32,
        request,
    }
}

/// A hash for a block's number: every bit depends on all of it, and no two are equal.
fn identity(block: u32) -> u128 {
    let mut hash = u128::from(block) + 1;
    for _ in 0..2 {
        hash = hash.wrapping_mul(0xdb91_5d7f_6c63_4f35_9e37_79b9_7f4a_7c15);
        hash ^= hash >> 67;
    }
    hash
}
