//! Host memory for blocks on their way where two tiers can't reach each other.

use std::sync::{Mutex, MutexGuard, PoisonError};

use core_view::BufferMut;

/// What direct I/O asks of addresses at most.
const ALIGNMENT_BYTES: usize = 4096;

/// A bounded number of buffers of one block each, made when they are first needed.
#[derive(Debug)]
pub(super) struct Staging {
    block_bytes: usize,
    buffers_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    free: Vec<BufferMut>,
    taken: usize,
}

impl Staging {
    pub(super) fn new(block_bytes: usize, buffers_max: usize) -> Self {
        Self {
            block_bytes,
            buffers_max,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to `count` buffers, fewer where the bound or memory is reached.
    pub(super) fn take(&self, count: usize) -> Vec<BufferMut> {
        let mut state = self.state();
        let mut buffers = Vec::with_capacity(count);
        while buffers.len() < count && state.taken < self.buffers_max {
            let buffer = match state.free.pop() {
                Some(buffer) => buffer,
                None => match BufferMut::zeroed(self.block_bytes, ALIGNMENT_BYTES) {
                    Ok(buffer) => buffer,
                    Err(_) => break,
                },
            };
            buffers.push(buffer);
            state.taken += 1;
        }
        buffers
    }

    /// Ends the use of `taken` buffers; those that were lost on the way are made anew when they are needed.
    pub(super) fn give(&self, buffers: Vec<BufferMut>, taken: usize) {
        let mut state = self.state();
        state.taken = state.taken.saturating_sub(taken);
        let room = self.buffers_max.saturating_sub(state.free.len());
        let whole = buffers
            .into_iter()
            .filter(|buffer| buffer.len() == self.block_bytes);
        state.free.extend(whole.take(room));
    }

    /// Buffers in use.
    pub(super) fn taken(&self) -> usize {
        self.state().taken
    }
}
