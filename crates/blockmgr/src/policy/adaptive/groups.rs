//! The evictable slots, ordered so that the next victim is found without a search.

use super::class::{CLASSES, Class};
use crate::policy::Slot;

const NONE: u32 = u32::MAX;

/// Evictable slots in groups, groups in classes.
///
/// A group has the blocks of one class that one request used last: they are equally old, and leave
/// from the end of the chain. A class has its groups in order of age. All links are in arrays made once.
#[derive(Debug)]
pub(super) struct Groups {
    members: Vec<Member>,
    groups: Vec<Group>,
    vacant: Vec<u32>,
    ends: Vec<Ends>,
    /// Classes that have a group, in no order, and where each stands there.
    present: Vec<Class>,
    place: Vec<u8>,
    len: u32,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    group: u32,
    /// Towards the end of the chain.
    after: u32,
    before: u32,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    tick: u32,
    class: Class,
    newer: u32,
    older: u32,
    /// The member nearest to the end of its chain: the first that was released.
    last: u32,
    first: u32,
}

/// Groups at the ends of a class, with their ticks.
#[derive(Debug, Clone, Copy)]
struct Ends {
    newest: u32,
    newest_tick: u32,
    oldest: u32,
    oldest_tick: u32,
}

impl Groups {
    /// Nothing evictable, of `slots` slots.
    pub(super) fn new(slots: u32) -> Self {
        let member = Member {
            group: NONE,
            after: NONE,
            before: NONE,
        };
        let group = Group {
            tick: 0,
            class: Class::default(),
            newer: NONE,
            older: NONE,
            last: NONE,
            first: NONE,
        };
        let ends = Ends {
            newest: NONE,
            newest_tick: 0,
            oldest: NONE,
            oldest_tick: 0,
        };
        Self {
            members: vec![member; slots as usize],
            groups: vec![group; slots as usize],
            vacant: (0..slots).rev().collect(),
            ends: vec![ends; CLASSES],
            present: Vec::with_capacity(CLASSES),
            place: vec![0; CLASSES],
            len: 0,
        }
    }

    /// Evictable slots.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Classes that have an evictable slot.
    pub(super) fn present(&self) -> &[Class] {
        &self.present
    }

    /// The ticks of the groups that a class used longest ago and last; `None` if it has none.
    #[inline]
    pub(super) fn end_ticks(&self, class: Class) -> Option<(u32, u32)> {
        let ends = &self.ends[class.index()];
        (ends.newest != NONE).then_some((ends.oldest_tick, ends.newest_tick))
    }

    /// The group that a class used longest ago.
    pub(super) fn oldest(&self, class: Class) -> u32 {
        self.ends[class.index()].oldest
    }

    /// The group that a class used last.
    pub(super) fn newest(&self, class: Class) -> u32 {
        self.ends[class.index()].newest
    }

    /// The slot that leaves a group first; `None` if the group is gone.
    pub(super) fn last_of(&self, group: u32) -> Option<Slot> {
        let last = self.groups.get(group as usize)?.last;
        (last != NONE).then(|| Slot::new(last))
    }

    /// Makes a slot evictable; whether a group came into being.
    pub(super) fn insert(&mut self, slot: Slot, class: Class, tick: u32) -> bool {
        if self.members[slot.index()].group != NONE {
            return false;
        }
        let newest = self.ends[class.index()].newest;
        let joins = newest != NONE && self.ends[class.index()].newest_tick == tick;
        let group = if joins {
            newest
        } else {
            self.open(class, tick)
        };
        let Some(entry) = self.groups.get_mut(group as usize) else {
            return false;
        };
        let after = std::mem::replace(&mut entry.first, slot.get());
        if after == NONE {
            entry.last = slot.get();
        } else {
            self.members[after as usize].before = slot.get();
        }
        self.members[slot.index()] = Member {
            group,
            after,
            before: NONE,
        };
        self.len += 1;
        !joins
    }

    /// Makes a slot no longer evictable; the class that lost a group by it and the group.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<(Class, u32)> {
        let member = self.members[slot.index()];
        if member.group == NONE {
            return None;
        }
        self.members[slot.index()].group = NONE;
        self.len -= 1;
        let entry = &mut self.groups[member.group as usize];
        if member.after == NONE {
            entry.last = member.before;
        } else {
            self.members[member.after as usize].before = member.before;
        }
        if member.before == NONE {
            entry.first = member.after;
        } else {
            self.members[member.before as usize].after = member.after;
        }
        if entry.last != NONE {
            return None;
        }
        let class = entry.class;
        self.close(member.group);
        Some((class, member.group))
    }

    /// Starts a group at the new end of its class. There is one for each slot, so there is always one left.
    fn open(&mut self, class: Class, tick: u32) -> u32 {
        let Some(group) = self.vacant.pop() else {
            return NONE;
        };
        let ends = &mut self.ends[class.index()];
        let older = std::mem::replace(&mut ends.newest, group);
        ends.newest_tick = tick;
        if older == NONE {
            ends.oldest = group;
            ends.oldest_tick = tick;
            self.place[class.index()] = self.present.len() as u8;
            self.present.push(class);
        } else {
            self.groups[older as usize].newer = group;
        }
        self.groups[group as usize] = Group {
            tick,
            class,
            newer: NONE,
            older,
            last: NONE,
            first: NONE,
        };
        group
    }

    fn close(&mut self, group: u32) {
        let Group {
            class,
            newer,
            older,
            ..
        } = self.groups[group as usize];
        let ends = &mut self.ends[class.index()];
        if newer == NONE {
            ends.newest = older;
            ends.newest_tick = self
                .groups
                .get(older as usize)
                .map_or(0, |group| group.tick);
        } else {
            self.groups[newer as usize].older = older;
        }
        if older == NONE {
            ends.oldest = newer;
            ends.oldest_tick = self
                .groups
                .get(newer as usize)
                .map_or(0, |group| group.tick);
        } else {
            self.groups[older as usize].newer = newer;
        }
        self.vacant.push(group);
        if ends.newest == NONE {
            let place = self.place[class.index()];
            self.present.swap_remove(usize::from(place));
            if let Some(&moved) = self.present.get(usize::from(place)) {
                self.place[moved.index()] = place;
            }
        }
    }
}
