//! By priority.

use super::list::Lists;
use super::{Access, EvictionPolicy, Slot};

/// Evicts the least recently used block of the lowest priority.
///
/// A block has the highest priority that any request gave it since it came.
#[derive(Debug, Clone)]
pub struct Priority {
    lists: Lists,
    priorities: Vec<u8>,
    /// A bit for each priority of which there is an evictable block.
    present: [u64; 4],
}

impl Priority {
    /// For a pool of `slots` slots, all vacant.
    pub fn new(slots: u32) -> Self {
        Self {
            lists: Lists::new(slots, 256),
            priorities: vec![0; slots as usize],
            present: [0; 4],
        }
    }

    fn link(&mut self, slot: Slot) {
        let list = usize::from(self.priorities[slot.index()]);
        self.lists.push_newest(list, slot);
        if self.lists.len(list) > 0 {
            self.present[list / 64] |= 1 << (list % 64);
        }
    }

    /// Whether the slot was evictable.
    fn unlink(&mut self, slot: Slot) -> bool {
        let Some(list) = self.lists.remove(slot) else {
            return false;
        };
        if self.lists.len(list) == 0 {
            self.present[list / 64] &= !(1 << (list % 64));
        }
        true
    }
}

impl EvictionPolicy for Priority {
    fn insert(&mut self, slot: Slot, access: &Access) {
        self.priorities[slot.index()] = access.request.priority;
    }

    fn hit(&mut self, slot: Slot, access: &Access) {
        let priority = &mut self.priorities[slot.index()];
        if access.request.priority <= *priority {
            return;
        }
        *priority = access.request.priority;
        if self.unlink(slot) {
            self.link(slot);
        }
    }

    fn pin(&mut self, slot: Slot) {
        self.unlink(slot);
    }

    fn release(&mut self, slot: Slot) {
        self.link(slot);
    }

    fn evict(&mut self) -> Option<Slot> {
        let word = self.present.iter().position(|word| *word != 0)?;
        let list = word * 64 + self.present[word].trailing_zeros() as usize;
        let slot = self.lists.oldest(list)?;
        self.unlink(slot);
        Some(slot)
    }

    fn remove(&mut self, slot: Slot) {
        self.unlink(slot);
    }

    fn evictable_slots(&self) -> u32 {
        self.lists.total_len()
    }
}
