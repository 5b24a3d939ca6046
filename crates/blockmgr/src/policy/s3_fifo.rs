//! Three queues, first in first out.

use super::history::History;
use super::list::Lists;
use super::{Access, EvictionPolicy, Slot};

const SMALL: usize = 0;
const MAIN: usize = 1;
const USES_MAX: u8 = 3;

/// A small queue for what is new, a main one for what came again, and the identities of what left the small one
/// (J. Yang et al.: S3-FIFO, 2023).
///
/// A block keeps its place in the queue while it is in use; one in use whose turn comes goes to the back.
#[derive(Debug, Clone)]
pub struct S3Fifo {
    queues: Lists,
    blocks: Vec<Block>,
    left: History,
    small_max: u32,
    evictable: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Block {
    sequence_hash: u128,
    uses: u8,
    goes_to_main: bool,
    evictable: bool,
}

impl S3Fifo {
    /// For a pool of `slots` slots, all vacant.
    pub fn new(slots: u32) -> Self {
        Self {
            queues: Lists::new(slots, 2),
            blocks: vec![Block::default(); slots as usize],
            left: History::new(slots),
            small_max: (slots / 10).max(1),
            evictable: 0,
        }
    }

    fn set_evictable(&mut self, slot: Slot, evictable: bool) {
        let block = &mut self.blocks[slot.index()];
        if std::mem::replace(&mut block.evictable, evictable) != evictable {
            self.evictable = if evictable {
                self.evictable + 1
            } else {
                self.evictable - 1
            };
        }
    }

    fn vacate(&mut self, slot: Slot) -> Block {
        self.queues.remove(slot);
        self.set_evictable(slot, false);
        std::mem::take(&mut self.blocks[slot.index()])
    }
}

impl EvictionPolicy for S3Fifo {
    fn insert(&mut self, slot: Slot, access: &Access) {
        self.vacate(slot);
        self.blocks[slot.index()] = Block {
            sequence_hash: access.sequence_hash,
            goes_to_main: self.left.take(access.sequence_hash),
            ..Block::default()
        };
    }

    fn hit(&mut self, slot: Slot, _access: &Access) {
        let uses = &mut self.blocks[slot.index()].uses;
        *uses = (*uses + 1).min(USES_MAX);
    }

    fn pin(&mut self, slot: Slot) {
        self.set_evictable(slot, false);
    }

    fn release(&mut self, slot: Slot) {
        let queue = usize::from(self.blocks[slot.index()].goes_to_main);
        self.queues.push_newest(queue, slot);
        self.set_evictable(slot, true);
    }

    fn evict(&mut self) -> Option<Slot> {
        if self.evictable == 0 {
            return None;
        }
        // Each turn takes a use from a block, moves one to the main queue, or passes one in use.
        let turns = u64::from(self.queues.total_len()) * (u64::from(USES_MAX) + 3);
        // So many at the back of the main queue are in use: if all are, only the small one has what may leave, however short it is.
        let mut passed = 0;
        for _ in 0..turns {
            let small = self.queues.len(SMALL);
            let from_small = small >= self.small_max || passed >= self.queues.len(MAIN);
            let queue = if from_small && small > 0 { SMALL } else { MAIN };
            let slot = self.queues.pop_oldest(queue)?;
            let block = &mut self.blocks[slot.index()];
            passed = if block.evictable { 0 } else { passed + 1 };
            if !block.evictable {
                // The small queue may hold nothing but blocks in use: go on with the other.
                block.goes_to_main = true;
                self.queues.push_newest(MAIN, slot);
            } else if queue == SMALL && block.uses > 1 {
                block.uses = 0;
                block.goes_to_main = true;
                self.queues.push_newest(MAIN, slot);
            } else if queue == MAIN && block.uses > 0 {
                block.uses -= 1;
                self.queues.push_newest(MAIN, slot);
            } else {
                let hash = block.sequence_hash;
                self.vacate(slot);
                if queue == SMALL {
                    self.left.push(hash);
                }
                return Some(slot);
            }
        }
        None
    }

    fn remove(&mut self, slot: Slot) {
        self.vacate(slot);
    }

    fn evictable_slots(&self) -> u32 {
        self.evictable
    }
}
