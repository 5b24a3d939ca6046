//! Least recently used.

use super::list::Lists;
use super::{Access, EvictionPolicy, Slot};

/// Evicts the block that was released longest ago.
#[derive(Debug, Clone)]
pub struct Lru {
    lists: Lists,
    linked: Vec<bool>,
}

impl Lru {
    /// For a pool of `slots` slots, all vacant.
    pub fn new(slots: u32) -> Self {
        Self {
            lists: Lists::new(slots, 1),
            linked: vec![false; slots as usize],
        }
    }
}

impl EvictionPolicy for Lru {
    fn insert(&mut self, _slot: Slot, _access: &Access) {}

    fn hit(&mut self, _slot: Slot, _access: &Access) {}

    fn pin(&mut self, slot: Slot) {
        if std::mem::take(&mut self.linked[slot.index()]) {
            self.lists.unlink(0, slot);
        }
    }

    fn release(&mut self, slot: Slot) {
        if !std::mem::replace(&mut self.linked[slot.index()], true) {
            self.lists.push_newest(0, slot);
        }
    }

    fn evict(&mut self) -> Option<Slot> {
        let slot = self.lists.oldest(0)?;
        self.pin(slot);
        Some(slot)
    }

    fn remove(&mut self, slot: Slot) {
        self.pin(slot);
    }

    fn evictable_slots(&self) -> u32 {
        self.lists.len(0)
    }
}
