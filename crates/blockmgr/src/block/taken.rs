//! Slots in somebody's hands that have no registered block.

use crate::pool::Share;

/// Slots of one pool, freed when dropped.
pub(super) struct Taken {
    core: Share,
    slots: Vec<u32>,
}

impl Taken {
    pub(super) fn new(core: Share, slots: Vec<u32>) -> Self {
        Self { core, slots }
    }

    pub(super) fn core(&self) -> &Share {
        &self.core
    }

    pub(super) fn slots(&self) -> &[u32] {
        &self.slots
    }

    pub(super) fn slots_mut(&mut self) -> &mut Vec<u32> {
        &mut self.slots
    }

    /// The slots, no longer freed.
    pub(super) fn into_parts(mut self) -> (Share, Vec<u32>) {
        let slots = std::mem::take(&mut self.slots);
        (self.core.clone(), slots)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.slots.is_empty() {
            self.core.give_back(&self.slots);
        }
    }
}

/// One slot, freed when dropped.
pub(super) struct TakenSlot {
    core: Share,
    /// [`GONE`] once the slot went elsewhere.
    slot: u32,
}

/// No slot.
const GONE: u32 = u32::MAX;

impl TakenSlot {
    pub(super) fn new(core: Share, slot: u32) -> Self {
        Self { core, slot }
    }

    pub(super) fn core(&self) -> &Share {
        &self.core
    }

    pub(super) fn slot(&self) -> u32 {
        self.slot
    }

    /// Moves the slot into a batch of the same pool.
    pub(super) fn move_into(mut self, batch: &mut Taken) {
        batch.slots.push(std::mem::replace(&mut self.slot, GONE));
    }

    /// The slot, no longer freed.
    pub(super) fn into_parts(mut self) -> (Share, u32) {
        let slot = std::mem::replace(&mut self.slot, GONE);
        (self.core.clone(), slot)
    }
}

impl Drop for TakenSlot {
    fn drop(&mut self) {
        if self.slot != GONE {
            self.core.give_back(&[self.slot]);
        }
    }
}
