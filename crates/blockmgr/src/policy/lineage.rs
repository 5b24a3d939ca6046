//! Leaves first.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::{Access, EvictionPolicy, Slot};

/// Evicts the block that was used longest ago among those that no block in the pool continues.
///
/// Which block continues which is seen from the order in which one request uses them.
#[derive(Debug, Clone)]
pub struct Lineage {
    blocks: Vec<Block>,
    /// Evictable slots whose block no other continues: by last use, then the ends of chains first.
    leaves: BTreeSet<(u64, Reverse<u32>, Slot)>,
    /// The block that a request used last, where the next one may continue it.
    last: Option<Last>,
    evictable: u32,
    stamps: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Block {
    /// Tells this block from those that were in the slot before; 0 for none.
    stamp: u64,
    parent: Option<(Slot, u64)>,
    children: u32,
    tick: u64,
    position: u32,
    evictable: bool,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    slot: Slot,
    tick: u64,
    position: u32,
}

impl Lineage {
    /// For a pool of `slots` slots, all vacant.
    pub fn new(slots: u32) -> Self {
        Self {
            blocks: vec![Block::default(); slots as usize],
            leaves: BTreeSet::new(),
            last: None,
            evictable: 0,
            stamps: 0,
        }
    }

    fn key(&self, slot: Slot) -> (u64, Reverse<u32>, Slot) {
        let block = &self.blocks[slot.index()];
        (block.tick, Reverse(block.position), slot)
    }

    fn is_leaf(&self, slot: Slot) -> bool {
        let block = &self.blocks[slot.index()];
        block.evictable && block.children == 0
    }

    /// Changes a block, and its place among the leaves with it.
    fn change(&mut self, slot: Slot, change: impl FnOnce(&mut Block)) {
        let (was_leaf, key) = (self.is_leaf(slot), self.key(slot));
        let was_evictable = self.blocks[slot.index()].evictable;
        change(&mut self.blocks[slot.index()]);
        if was_leaf {
            self.leaves.remove(&key);
        }
        if self.is_leaf(slot) {
            let key = self.key(slot);
            self.leaves.insert(key);
        }
        let is_evictable = self.blocks[slot.index()].evictable;
        self.evictable = self.evictable + u32::from(is_evictable) - u32::from(was_evictable);
    }

    fn used(&mut self, slot: Slot, access: &Access) {
        self.last = Some(Last {
            slot,
            tick: access.request.tick,
            position: access.position,
        });
    }

    fn vacate(&mut self, slot: Slot) {
        let parent = self.blocks[slot.index()].parent;
        self.change(slot, |block| *block = Block::default());
        if let Some((parent, stamp)) = parent
            && self.blocks[parent.index()].stamp == stamp
        {
            self.change(parent, |block| block.children -= 1);
        }
    }
}

impl EvictionPolicy for Lineage {
    fn insert(&mut self, slot: Slot, access: &Access) {
        self.vacate(slot);
        let parent = self.last.and_then(|last| {
            let follows = last.tick == access.request.tick
                && last.position.checked_add(1) == Some(access.position);
            let stamp = self.blocks[last.slot.index()].stamp;
            (follows && stamp != 0 && last.slot != slot).then_some((last.slot, stamp))
        });
        self.stamps += 1;
        let stamp = self.stamps;
        self.change(slot, |block| {
            *block = Block {
                stamp,
                parent,
                tick: access.request.tick,
                position: access.position,
                ..Block::default()
            };
        });
        if let Some((parent, _)) = parent {
            self.change(parent, |block| block.children += 1);
        }
        self.used(slot, access);
    }

    fn hit(&mut self, slot: Slot, access: &Access) {
        self.change(slot, |block| block.tick = access.request.tick);
        self.used(slot, access);
    }

    fn pin(&mut self, slot: Slot) {
        self.change(slot, |block| block.evictable = false);
    }

    fn release(&mut self, slot: Slot) {
        self.change(slot, |block| block.evictable = block.stamp != 0);
    }

    fn evict(&mut self) -> Option<Slot> {
        let leaf = self.leaves.first().map(|&(_, _, slot)| slot);
        // A chain whose end is in use has no leaf to give; its blocks go before none does.
        let slot = leaf.or_else(|| {
            let index = self.blocks.iter().position(|block| block.evictable)?;
            Some(Slot::new(index as u32))
        })?;
        self.vacate(slot);
        Some(slot)
    }

    fn remove(&mut self, slot: Slot) {
        self.vacate(slot);
    }

    fn evictable_slots(&self) -> u32 {
        self.evictable
    }
}
