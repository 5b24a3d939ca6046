//! Blocks whose registration may end midway, because a policy or a sink panics.

use super::cell::State;
use super::core::Core;
use super::directory::Directory;
use super::observer::BlockEvent;
use crate::sync::contained;

/// Blocks that were entered in the index of a shard, which stays locked, and are not registered yet. Those that never are leave the
/// index again: else others would wait for them.
pub(super) struct Entered<'a> {
    directory: &'a Directory,
    slots: &'a [u32],
    /// A bit for each slot.
    waiting: u64,
}

impl<'a> Entered<'a> {
    pub(super) fn new(directory: &'a Directory, slots: &'a [u32], entered: u64) -> Self {
        Self {
            directory,
            slots,
            waiting: entered,
        }
    }

    /// Whether a block was entered.
    #[inline]
    pub(super) fn has(&self, place: usize) -> bool {
        self.waiting >> place & 1 == 1
    }

    /// States that a block is registered.
    #[inline]
    pub(super) fn keep(&mut self, place: usize) {
        self.waiting &= !(1 << place);
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        for (place, &slot) in self.slots.iter().enumerate() {
            if self.waiting == 0 {
                break;
            }
            if self.has(place) {
                self.directory.remove(slot);
                self.keep(place);
            }
        }
    }
}

/// Marks a slot whose block got its first user; slots have a bit less.
pub(super) const FIRST: u32 = 1 << 31;

/// Registered blocks with a user each, which they lose if this is dropped before they are handed out. Some may be marked as [`FIRST`].
pub(super) struct Held<'a> {
    core: &'a Core,
    pub(super) slots: &'a mut [u32],
}

impl<'a> Held<'a> {
    pub(super) fn new(core: &'a Core, slots: &'a mut [u32]) -> Self {
        Self { core, slots }
    }

    /// The blocks are in the caller's hands.
    pub(super) fn hand_out(&mut self) {
        self.slots = &mut [];
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.slots.is_empty() {
            self.slots.iter_mut().for_each(|slot| *slot &= !FIRST);
            contained(|| self.core.release(self.slots));
        }
    }
}

/// Slots of a caller who gets nothing if this is dropped before it is finished: then blocks that were registered lose their user, and the
/// others are freed.
pub(super) struct Unfinished<'a> {
    core: &'a Core,
    pub(super) slots: &'a mut [u32],
    /// Blocks that were registered with a user and are not counted yet.
    pub(super) registered: u64,
    /// What the sink was not told yet.
    pub(super) events: Vec<BlockEvent>,
}

impl<'a> Unfinished<'a> {
    pub(super) fn new(core: &'a Core, slots: &'a mut [u32]) -> Self {
        Self {
            core,
            slots,
            registered: 0,
            events: Vec::new(),
        }
    }

    /// Tells what happened until now. No shard is locked.
    pub(super) fn publish(&mut self) {
        let events = std::mem::take(&mut self.events);
        self.core.publish(&events);
    }

    /// The slots are in the caller's hands, or in nobody's.
    pub(super) fn give_up(&mut self) {
        self.slots = &mut [];
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.core.count_registered(&mut self.registered);
        contained(|| self.publish());
        for slot in std::mem::take(&mut self.slots) {
            contained(|| match self.core.directory.cell(*slot).hold().state {
                State::Registered => self.core.release(&[*slot]),
                _ => self.core.give_back(&[*slot]),
            });
        }
    }
}
