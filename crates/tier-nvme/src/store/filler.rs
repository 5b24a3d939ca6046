//! Threads that fill the index while more of the log is read.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use super::bulk::{Headed, KeyGrowth, LANES_MAX, Round, Sorted, THREAD_NAME};
use super::{NvmeError, Shared};
use crate::threads;

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

/// What one lane has to do of a round.
struct Share {
    round: Arc<Sorted>,
    lane: usize,
    lane_count: usize,
}

struct Lane<'scope> {
    rounds: SyncSender<Share>,
    thread: ScopedJoinHandle<'scope, ()>,
}

impl<'scope> Lane<'scope> {
    fn begin(scope: &'scope Scope<'scope, '_>, shared: &'scope Shared) -> io::Result<Self> {
        let (rounds, waiting) = sync_channel::<Share>(ROUNDS_WAITING_MAX);
        let work = move || {
            for share in waiting {
                shared.fill_lane(&share.round, share.lane, share.lane_count);
            }
        };
        let thread = threads::start(scope, THREAD_NAME, work)?;
        Ok(Self { rounds, thread })
    }
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
        if !self.round.is_empty() {
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

    /// Begins as many as there are processors, or as the system has threads for.
    fn begin_lanes(&mut self) {
        if !self.lanes.is_empty() {
            return;
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let (scope, shared) = (self.scope, self.shared);
        self.lanes = (0..processors.min(LANES_MAX))
            .map_while(|_| Lane::begin(scope, shared).ok())
            .collect();
    }

    /// Hands what was collected over to the lanes; without any it is done here.
    fn hand_over(&mut self) {
        let round = Arc::new(Sorted::from(std::mem::take(&mut self.round)));
        let lane_count = self.lanes.len();
        if lane_count == 0 {
            self.shared.fill_lane(&round, 0, 1);
        }
        for (lane, Lane { rounds, .. }) in self.lanes.iter().enumerate() {
            let round = Arc::clone(&round);
            // One that is gone panicked: whoever waits for it learns of that.
            let _ = rounds.send(Share {
                round,
                lane,
                lane_count,
            });
        }
    }
}
