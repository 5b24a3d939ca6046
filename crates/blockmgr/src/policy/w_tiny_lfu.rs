//! A window before a filter of frequency.

use super::frequency::FrequencySketch;
use super::list::Lists;
use super::{Access, EvictionPolicy, Slot};

const WINDOW: usize = 0;
const PROBATION: usize = 1;
const PROTECTED: usize = 2;

/// A small window of what is new; what leaves it must have been used more often than what would leave the main part
/// (G. Einziger, R. Friedman, B. Manes: W-TinyLFU, 2017). The main part protects up to four fifths of its blocks, those used again.
#[derive(Debug, Clone)]
pub struct WTinyLfu {
    lists: Lists,
    blocks: Vec<Block>,
    /// Blocks in each part, those in use included.
    held: [u32; 3],
    frequency: FrequencySketch,
    window_max: u32,
    main_max: u32,
    protected_max: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Block {
    sequence_hash: u128,
    part: usize,
    present: bool,
}

impl WTinyLfu {
    /// For a pool of `slots` slots, all vacant.
    pub fn new(slots: u32) -> Self {
        let window_max = (slots / 100).max(1);
        let main_max = slots.saturating_sub(window_max);
        Self {
            lists: Lists::new(slots, 3),
            blocks: vec![Block::default(); slots as usize],
            held: [0; 3],
            frequency: FrequencySketch::new(slots),
            window_max,
            main_max,
            protected_max: main_max / 5 * 4,
        }
    }

    fn move_to(&mut self, slot: Slot, part: usize) {
        let block = &mut self.blocks[slot.index()];
        self.held[block.part] -= 1;
        self.held[part] += 1;
        block.part = part;
        if self.lists.remove(slot).is_some() {
            self.lists.push_newest(part, slot);
        }
    }

    fn vacate(&mut self, slot: Slot) {
        self.lists.remove(slot);
        let block = std::mem::take(&mut self.blocks[slot.index()]);
        if block.present {
            self.held[block.part] -= 1;
        }
    }

    fn main_has_room(&self) -> bool {
        self.held[PROBATION] + self.held[PROTECTED] < self.main_max
    }

    fn uses(&self, slot: Slot) -> u8 {
        self.frequency
            .estimate(self.blocks[slot.index()].sequence_hash)
    }

    /// The block that leaves: the window's oldest or the main part's, whichever was used less.
    fn choose(&mut self) -> Option<Slot> {
        while self.held[WINDOW] > self.window_max {
            let Some(candidate) = self.lists.oldest(WINDOW) else {
                break;
            };
            let Some(victim) = self.lists.oldest(PROBATION) else {
                self.move_to(candidate, PROBATION);
                continue;
            };
            if self.uses(candidate) <= self.uses(victim) {
                return Some(candidate);
            }
            self.move_to(candidate, PROBATION);
            return Some(victim);
        }
        [PROBATION, PROTECTED, WINDOW]
            .into_iter()
            .find_map(|part| self.lists.oldest(part))
    }
}

impl EvictionPolicy for WTinyLfu {
    fn insert(&mut self, slot: Slot, access: &Access) {
        self.vacate(slot);
        self.frequency.count(access.sequence_hash);
        self.held[WINDOW] += 1;
        self.blocks[slot.index()] = Block {
            sequence_hash: access.sequence_hash,
            part: WINDOW,
            present: true,
        };
        // While the main part has room, nothing has to earn its place there.
        while self.held[WINDOW] > self.window_max && self.main_has_room() {
            let Some(oldest) = self.lists.oldest(WINDOW) else {
                break;
            };
            self.move_to(oldest, PROBATION);
        }
    }

    fn hit(&mut self, slot: Slot, access: &Access) {
        self.frequency.count(access.sequence_hash);
        let block = self.blocks[slot.index()];
        if !block.present || block.part != PROBATION {
            return;
        }
        self.move_to(slot, PROTECTED);
        if self.held[PROTECTED] > self.protected_max
            && let Some(oldest) = self.lists.oldest(PROTECTED)
        {
            self.move_to(oldest, PROBATION);
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
        let slot = self.choose()?;
        self.vacate(slot);
        Some(slot)
    }

    fn remove(&mut self, slot: Slot) {
        self.vacate(slot);
    }

    fn evictable_slots(&self) -> u32 {
        self.lists.total_len()
    }
}
