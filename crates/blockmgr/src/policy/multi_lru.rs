//! Least recently used, in levels of frequency.

use super::frequency::FrequencySketch;
use super::list::Lists;
use super::{Access, EvictionPolicy, Slot};

/// Uses from which a block is warm, hot and very hot.
const LEVELS_FROM: [u8; 3] = [3, 8, 15];

/// Evicts the least recently used block of the coldest level.
///
/// A block's level when it is released says how often it was used lately: less than 3 times, 3 to 7, 8 to 14, or more. It is
/// what `kvbm-logical` calls `MultiLru`, with its default levels.
#[derive(Debug, Clone)]
pub struct MultiLru {
    lists: Lists,
    frequency: FrequencySketch,
    hashes: Vec<u128>,
}

impl MultiLru {
    /// For a pool of `slots` slots, all vacant.
    pub fn new(slots: u32) -> Self {
        Self {
            lists: Lists::new(slots, LEVELS_FROM.len() + 1),
            frequency: FrequencySketch::new(slots),
            hashes: vec![0; slots as usize],
        }
    }
}

impl EvictionPolicy for MultiLru {
    fn insert(&mut self, slot: Slot, access: &Access) {
        self.frequency.count(access.sequence_hash);
        self.hashes[slot.index()] = access.sequence_hash;
    }

    fn hit(&mut self, _slot: Slot, access: &Access) {
        self.frequency.count(access.sequence_hash);
    }

    fn pin(&mut self, slot: Slot) {
        self.lists.remove(slot);
    }

    fn release(&mut self, slot: Slot) {
        let uses = self.frequency.estimate(self.hashes[slot.index()]);
        let level = LEVELS_FROM.iter().filter(|from| uses >= **from).count();
        self.lists.push_newest(level, slot);
    }

    fn evict(&mut self) -> Option<Slot> {
        (0..self.lists.count()).find_map(|level| self.lists.pop_oldest(level))
    }

    fn remove(&mut self, slot: Slot) {
        self.lists.remove(slot);
    }

    fn evictable_slots(&self) -> u32 {
        self.lists.total_len()
    }
}
