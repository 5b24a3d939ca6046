//! Threads that fill the index while more of the log is read.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use super::bulk::{Headed, KeyGrowth, LANES_MAX, Round, Sorted};
use super::{NvmeError, Shared};

/// Rounds that wait for a thread: with those that are worked on and the one that is collected, this bounds the memory.
const ROUNDS_WAITING_MAX: usize = 1;

/// Takes batches in their order and changes the index as they say. It begins threads only once there is enough for
/// them.
pub(super) struct Filler<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    shared: &'env Shared,
    round: Round,
    round_bytes: usize,
    /// What the batches since the index was settled may have added to it.
    coming: KeyGrowth,
    lanes: Vec<Lane<'scope>>,
}

struct Lane<'scope> {
    rounds: SyncSender<Arc<Sorted>>,
    thread: ScopedJoinHandle<'scope, ()>,
}

impl<'scope, 'env> Filler<'scope, 'env> {
    /// Changes the index as soon as headers of `round_bytes` are there.
    pub(super) fn new(
        scope: &'scope Scope<'scope, 'env>,
        shared: &'env Shared,
        round_bytes: usize,
    ) -> Self {
        Self {
            scope,
            shared,
            round: Round::default(),
            round_bytes,
            coming: KeyGrowth::of_index(&shared.index),
            lanes: Vec::new(),
        }
    }

    /// Lets a batch change the index, by and by.
    ///
    /// # Errors
    /// [`NvmeError::MemoryLimit`] if the index gets too large.
    pub(super) fn push(&mut self, batch: Headed) -> Result<(), NvmeError> {
        self.make_room(&batch)?;
        self.round.push(batch);
        if self.round.is_full(self.round_bytes) {
            self.begin_lanes();
            self.hand_over();
        }
        Ok(())
    }

    /// Takes memory for the keys that a batch may add.
    fn make_room(&mut self, batch: &Headed) -> Result<(), NvmeError> {
        let coming = self.coming + batch.growth();
        if self.shared.make_room_in_index(coming).is_ok() {
            self.coming = coming;
            return Ok(());
        }
        // Many of them may be there already.
        self.settle();
        self.coming = self.coming + batch.growth_of(&self.shared.index);
        self.shared.make_room_in_index(self.coming)
    }

    /// Waits until the index is what all batches so far make of it.
    pub(super) fn settle(&mut self) {
        if self.lanes.is_empty() {
            let round = Sorted::from(std::mem::take(&mut self.round));
            self.shared.fill_lane(&round, 0, 1);
        } else if !self.round.is_empty() {
            self.hand_over();
        }
        for Lane { rounds, thread } in self.lanes.drain(..) {
            drop(rounds);
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        self.coming = KeyGrowth::of_index(&self.shared.index);
    }

    fn begin_lanes(&mut self) {
        if !self.lanes.is_empty() {
            return;
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let lane_count = processors.min(LANES_MAX);
        let (scope, shared) = (self.scope, self.shared);
        self.lanes = (0..lane_count)
            .map(|lane| {
                let (rounds, waiting) = sync_channel(ROUNDS_WAITING_MAX);
                Lane {
                    rounds,
                    thread: scope.spawn(move || work(shared, &waiting, lane, lane_count)),
                }
            })
            .collect();
    }

    fn hand_over(&mut self) {
        let round = Arc::new(Sorted::from(std::mem::take(&mut self.round)));
        for lane in &self.lanes {
            // One that is gone panicked: whoever waits for it learns of that.
            let _ = lane.rounds.send(Arc::clone(&round));
        }
    }
}

fn work(shared: &Shared, rounds: &Receiver<Arc<Sorted>>, lane: usize, lane_count: usize) {
    for round in rounds {
        shared.fill_lane(&round, lane, lane_count);
    }
}
