//! The bound on outstanding operations.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::EngineStatistics;

thread_local! {
    /// The engine that the current thread belongs to; 0 for none.
    static OWN_ENGINE: Cell<u64> = const { Cell::new(0) };
}

/// Counts outstanding operations and makes submitters wait at the bound.
#[derive(Debug)]
pub(super) struct Depth {
    engine_id: u64,
    limit: u32,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    outstanding: u32,
    waiting: u32,
    outstanding_max: u32,
    waits: u64,
    refusals: u64,
}

/// The bound of an engine's own thread is reached, too.
#[derive(Debug)]
pub(super) struct Full;

impl Depth {
    pub(super) fn new(limit: u32) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Self {
            engine_id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            limit: limit.max(1),
            state: Mutex::default(),
            freed: Condvar::new(),
        }
    }

    /// Marks the current thread as one of this engine's.
    pub(super) fn adopt_thread(&self) {
        OWN_ENGINE.set(self.engine_id);
        crate::outcome_thread::adopt();
    }

    /// Whether the current thread is one of this engine's.
    pub(super) fn is_own_thread(&self) -> bool {
        OWN_ENGINE.get() == self.engine_id
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place, waiting for one on threads that are not the engine's own.
    pub(super) fn acquire(&self) -> Result<(), Full> {
        let own = self.is_own_thread();
        let mut state = self.lock();
        if own {
            if state.outstanding >= self.limit.saturating_mul(2) {
                state.refusals += 1;
                return Err(Full);
            }
        } else if state.outstanding >= self.limit {
            state.waits += 1;
            state.waiting += 1;
            while state.outstanding >= self.limit {
                state = self
                    .freed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            state.waiting -= 1;
        }
        state.outstanding += 1;
        state.outstanding_max = state.outstanding_max.max(state.outstanding);
        Ok(())
    }

    /// Gives a place back.
    pub(super) fn release(&self) {
        let mut state = self.lock();
        state.outstanding -= 1;
        let wake = state.waiting > 0 && state.outstanding < self.limit;
        drop(state);
        if wake {
            self.freed.notify_one();
        }
    }

    /// Adds what the bound has done.
    pub(super) fn report(&self, statistics: EngineStatistics) -> EngineStatistics {
        let state = self.lock();
        EngineStatistics {
            depth_waits: state.waits,
            depth_refusals: state.refusals,
            outstanding_max: u64::from(state.outstanding_max),
            ..statistics
        }
    }
}
