//! Least recently used.

use super::list::Lists;
use super::{Access, EvictionPolicy, Slot};

/// Evicts the block that was released longest ago.
#[derive(Debug, Clone)]
pub struct Lru {
    lists: Lists,
}

impl Lru {
    /// For a pool of `slots` slots, all vacant.
    pub fn new(slots: u32) -> Self {
        Self {
            lists: Lists::new(slots, 1),
        }
    }
}

impl EvictionPolicy for Lru {
    fn insert(&mut self, _slot: Slot, _access: &Access) {}

    fn hit(&mut self, _slot: Slot, _access: &Access) {}

    fn pin(&mut self, slot: Slot) {
        self.lists.remove(slot);
    }

    fn release(&mut self, slot: Slot) {
        self.lists.push_newest(0, slot);
    }

    fn evict(&mut self) -> Option<Slot> {
        self.lists.pop_oldest(0)
    }

    fn remove(&mut self, slot: Slot) {
        self.lists.remove(slot);
    }

    fn evictable_slots(&self) -> u32 {
        self.lists.total_len()
    }
}
