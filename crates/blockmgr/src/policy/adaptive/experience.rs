//! What all shards of a pool learn together.

use std::sync::atomic::{AtomicBool, Ordering};

use super::ghost::Ghosts;
use super::note::{NOTES_AT_ONCE, NOTES_MAX, NOTES_SOON, Note, Notes};
use super::requests::Requests;
use super::survival::Survival;
use super::worth::Worths;
use crate::policy::Study;
use crate::sync::{Mutex, MutexGuard, Padded, lock, try_lock};

/// Ghosts for each slot, and at least.
const GHOSTS_PER_SLOT: usize = 16;
const GHOSTS_MIN: usize = 1 << 18;

/// What was seen of the service, whichever shard saw it. What is needed at each use of a block is read and
/// written without a lock; a wrong number there costs a hit at worst.
#[derive(Debug)]
pub(super) struct Experience {
    pub(super) ghosts: Ghosts,
    pub(super) requests: Requests,
    pub(super) worths: Worths,
    /// Like what follows kept away from what is only read.
    survival: Padded<Mutex<Survival>>,
    /// Notes to be taken in.
    left: Padded<Mutex<Vec<Note>>>,
    /// Whether there are enough of them to take them in.
    is_left: Padded<AtomicBool>,
    /// With so many notes, who leaves some takes them in.
    left_max: usize,
}

impl Experience {
    /// Of a pool of `slots` slots, that calls [`Study::study`] or not.
    pub(super) fn new(slots: usize, is_studied: bool) -> Self {
        let worths = Worths::new();
        let survival = Survival::new(slots);
        survival.learn(&worths);
        Self {
            ghosts: Ghosts::new((slots * GHOSTS_PER_SLOT).max(GHOSTS_MIN)),
            requests: Requests::new(),
            worths,
            survival: Padded(Mutex::new(survival)),
            left: Padded::default(),
            is_left: Padded::default(),
            left_max: if is_studied { NOTES_MAX } else { 0 },
        }
    }

    /// Takes the notes of a shard: leaves them for [`Study::study`], or takes them in at once where nobody calls that.
    #[inline]
    pub(super) fn take(&self, notes: &mut Notes) {
        if notes.len() >= NOTES_SOON {
            self.leave(notes);
        }
    }

    #[cold]
    fn leave(&self, notes: &mut Notes) {
        let left = {
            let mut left = lock(&self.left.0);
            left.extend_from_slice(notes.as_slice());
            left.len()
        };
        notes.clear();
        self.is_left
            .0
            .store(left >= NOTES_AT_ONCE, Ordering::Relaxed);
        if left >= self.left_max {
            self.take_in(lock(&self.survival.0));
        }
    }

    fn take_in(&self, mut survival: MutexGuard<'_, Survival>) {
        let mut notes = std::mem::take(&mut *lock(&self.left.0));
        self.is_left.0.store(false, Ordering::Relaxed);
        survival.study(&notes, &self.worths);
        notes.clear();
        // The room is used again, unless there are new notes meanwhile.
        let mut left = lock(&self.left.0);
        if left.capacity() == 0 {
            *left = notes;
        }
    }
}

impl Study for Experience {
    #[inline]
    fn study(&self) {
        if self.is_left.0.load(Ordering::Relaxed)
            && let Some(survival) = try_lock(&self.survival.0)
        {
            self.take_in(survival);
        }
    }
}
