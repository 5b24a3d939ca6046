//! Doubly linked lists of slots, all in two arrays.

use super::Slot;

const NONE: u32 = u32::MAX;
const NO_LIST: u32 = u32::MAX;

/// A set of lists over the slots of one pool; a slot is in at most one of them.
#[derive(Debug, Clone)]
pub(super) struct Lists {
    links: Vec<Link>,
    ends: Vec<Ends>,
    len: u32,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    list: u32,
    newer: u32,
    older: u32,
}

#[derive(Debug, Clone, Copy)]
struct Ends {
    newest: u32,
    oldest: u32,
    len: u32,
}

impl Lists {
    /// `count` empty lists over `slots` slots.
    pub(super) fn new(slots: u32, count: usize) -> Self {
        let link = Link {
            list: NO_LIST,
            newer: NONE,
            older: NONE,
        };
        let ends = Ends {
            newest: NONE,
            oldest: NONE,
            len: 0,
        };
        Self {
            links: vec![link; slots as usize],
            ends: vec![ends; count],
            len: 0,
        }
    }

    /// Adds a slot at the new end; nothing happens if it is in a list.
    pub(super) fn push_newest(&mut self, list: usize, slot: Slot) {
        let link = &mut self.links[slot.index()];
        if link.list != NO_LIST {
            return;
        }
        let ends = &mut self.ends[list];
        let before = ends.newest;
        *link = Link {
            list: list as u32,
            newer: NONE,
            older: before,
        };
        ends.newest = slot.get();
        ends.len += 1;
        self.len += 1;
        if before == NONE {
            ends.oldest = slot.get();
        } else {
            self.links[before as usize].newer = slot.get();
        }
    }

    /// Takes a slot out of its list, and tells which; `None` if it is in none.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<usize> {
        let link = self.links[slot.index()];
        if link.list == NO_LIST {
            return None;
        }
        self.links[slot.index()].list = NO_LIST;
        let list = link.list as usize;
        let ends = &mut self.ends[list];
        ends.len -= 1;
        self.len -= 1;
        if link.newer == NONE {
            ends.newest = link.older;
        } else {
            self.links[link.newer as usize].older = link.older;
        }
        if link.older == NONE {
            ends.oldest = link.newer;
        } else {
            self.links[link.older as usize].newer = link.newer;
        }
        Some(list)
    }

    /// Takes the slot at the old end out.
    pub(super) fn pop_oldest(&mut self, list: usize) -> Option<Slot> {
        let slot = self.oldest(list)?;
        self.remove(slot);
        Some(slot)
    }

    /// The slot at the old end.
    pub(super) fn oldest(&self, list: usize) -> Option<Slot> {
        let oldest = self.ends[list].oldest;
        (oldest != NONE).then(|| Slot::new(oldest))
    }

    /// Slots in a list.
    pub(super) fn len(&self, list: usize) -> u32 {
        self.ends[list].len
    }

    /// Slots in all lists.
    pub(super) fn total_len(&self) -> u32 {
        self.len
    }

    /// How many lists there are.
    pub(super) fn count(&self) -> usize {
        self.ends.len()
    }
}
