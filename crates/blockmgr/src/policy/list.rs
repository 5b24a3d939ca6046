//! Doubly linked lists of slots, all in two arrays.

use super::Slot;

const NONE: u32 = u32::MAX;

/// A set of lists over the slots of one pool; a slot is in at most one of them.
#[derive(Debug, Clone)]
pub(super) struct Lists {
    links: Vec<Link>,
    ends: Vec<Ends>,
}

#[derive(Debug, Clone, Copy)]
struct Link {
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
        }
    }

    /// Adds a slot that is in no list at the new end.
    pub(super) fn push_newest(&mut self, list: usize, slot: Slot) {
        let ends = &mut self.ends[list];
        let index = slot.get();
        let before = ends.newest;
        ends.newest = index;
        ends.len += 1;
        self.links[slot.index()] = Link {
            newer: NONE,
            older: before,
        };
        if before == NONE {
            ends.oldest = index;
        } else {
            self.links[before as usize].newer = index;
        }
    }

    /// Takes a slot out of the list that it is in.
    pub(super) fn unlink(&mut self, list: usize, slot: Slot) {
        let link = self.links[slot.index()];
        let ends = &mut self.ends[list];
        ends.len -= 1;
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
}
