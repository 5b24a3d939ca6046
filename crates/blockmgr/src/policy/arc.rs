//! Adaptive replacement.

use super::history::History;
use super::list::Lists;
use super::{Access, EvictionPolicy, Slot};

const ONCE: usize = 0;
const AGAIN: usize = 1;

/// Divides the pool between blocks used once and blocks used again, and moves the border towards the
/// part whose evicted blocks are asked for (N. Megiddo, D. Modha: ARC, 2003).
#[derive(Debug, Clone)]
pub struct Arc {
    lists: Lists,
    blocks: Vec<Block>,
    /// Blocks in each part, those in use included.
    held: [u32; 2],
    left: [History; 2],
    /// Blocks that the part of those used once should have.
    once_target: f64,
    slots: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Block {
    sequence_hash: u128,
    part: usize,
    present: bool,
}

impl Arc {
    /// For a pool of `slots` slots, all vacant.
    pub fn new(slots: u32) -> Self {
        Self {
            lists: Lists::new(slots, 2),
            blocks: vec![Block::default(); slots as usize],
            held: [0; 2],
            left: [History::new(slots), History::new(slots.saturating_mul(2))],
            once_target: 0.0,
            slots,
        }
    }

    /// Learns from a block that comes back, and tells the part that it goes to.
    fn part_of(&mut self, sequence_hash: u128) -> usize {
        let known = [self.left[ONCE].len() as f64, self.left[AGAIN].len() as f64];
        if self.left[ONCE].take(sequence_hash) {
            let step = (known[AGAIN] / known[ONCE].max(1.0)).max(1.0);
            self.once_target = (self.once_target + step).min(f64::from(self.slots));
            AGAIN
        } else if self.left[AGAIN].take(sequence_hash) {
            let step = (known[ONCE] / known[AGAIN].max(1.0)).max(1.0);
            self.once_target = (self.once_target - step).max(0.0);
            AGAIN
        } else {
            ONCE
        }
    }

    fn vacate(&mut self, slot: Slot) -> Option<Block> {
        self.lists.remove(slot);
        let block = std::mem::take(&mut self.blocks[slot.index()]);
        if !block.present {
            return None;
        }
        self.held[block.part] -= 1;
        Some(block)
    }
}

impl EvictionPolicy for Arc {
    fn insert(&mut self, slot: Slot, access: &Access) {
        self.vacate(slot);
        let part = self.part_of(access.sequence_hash);
        self.held[part] += 1;
        self.blocks[slot.index()] = Block {
            sequence_hash: access.sequence_hash,
            part,
            present: true,
        };
    }

    fn hit(&mut self, slot: Slot, _access: &Access) {
        let block = &mut self.blocks[slot.index()];
        if block.present && block.part == ONCE {
            block.part = AGAIN;
            self.held[ONCE] -= 1;
            self.held[AGAIN] += 1;
            if self.lists.remove(slot).is_some() {
                self.lists.push_newest(AGAIN, slot);
            }
        }
    }

    fn pin(&mut self, slot: Slot) {
        self.lists.remove(slot);
    }

    fn release(&mut self, slot: Slot) {
        let block = self.blocks[slot.index()];
        if block.present {
            self.lists.push_newest(block.part, slot);
        }
    }

    fn evict(&mut self) -> Option<Slot> {
        let first = if f64::from(self.held[ONCE]) > self.once_target {
            [ONCE, AGAIN]
        } else {
            [AGAIN, ONCE]
        };
        let slot = first.into_iter().find_map(|part| self.lists.oldest(part))?;
        let block = self.vacate(slot)?;
        self.left[block.part].push(block.sequence_hash);
        let once = self.left[ONCE].len() as u32 + self.held[ONCE];
        let over = once.saturating_sub(self.slots) as usize;
        let once_left = self.left[ONCE].len();
        self.left[ONCE].trim(once_left.saturating_sub(over));
        Some(slot)
    }

    fn remove(&mut self, slot: Slot) {
        self.vacate(slot);
    }

    fn evictable_slots(&self) -> u32 {
        self.lists.total_len()
    }
}
