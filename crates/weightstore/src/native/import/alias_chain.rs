//! Coral's alias of a tensor, taken by the threads that encode its chunks.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::committer::worker_lost;
use crate::alias::AliasHasher;
use crate::{CoralAlias, WeightError};

/// A hash that goes through all bytes in order, while the chunks are with several threads.
///
/// Who is about to encode a chunk hashes it first, so that it comes from memory once for both. If its turn
/// has not come by then, it is hashed after, when those before it are done or nearly so. Chunks are begun in
/// order: the first that is not hashed is always with a thread that waits for nobody.
#[derive(Debug)]
pub(super) struct AliasChain {
    state: Mutex<State>,
    advanced: Condvar,
}

#[derive(Debug)]
struct State {
    hasher: AliasHasher,
    /// The chunk whose turn it is.
    next: usize,
    /// A thread that had a chunk is gone: no turn comes any more.
    is_broken: bool,
}

impl AliasChain {
    pub(super) fn new(hasher: AliasHasher) -> Self {
        Self {
            state: Mutex::new(State {
                hasher,
                next: 0,
                is_broken: false,
            }),
            advanced: Condvar::new(),
        }
    }

    /// Hashes a chunk, `encode`s it, and returns what that returns.
    pub(super) fn around<R>(
        &self,
        index: usize,
        chunk: &[u8],
        encode: impl FnOnce() -> Result<R, WeightError>,
    ) -> Result<R, WeightError> {
        let breaks = BreaksOnPanic(self);
        let is_hashed = {
            let mut state = self.state();
            state.take(index, chunk)
        };
        if is_hashed {
            self.advanced.notify_all();
        }
        let encoded = encode();
        // The others wait for it, whatever became of the encoding.
        if !is_hashed {
            self.take_in_turn(index, chunk)?;
        }
        drop(breaks);
        encoded
    }

    fn take_in_turn(&self, index: usize, chunk: &[u8]) -> Result<(), WeightError> {
        let waits = |state: &mut State| state.next < index && !state.is_broken;
        let state = self.advanced.wait_while(self.state(), waits);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if !state.take(index, chunk) {
            return Err(worker_lost());
        }
        drop(state);
        self.advanced.notify_all();
        Ok(())
    }

    /// The alias, once every chunk went through.
    pub(super) fn finish(&self) -> CoralAlias {
        self.state().hasher.finish()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Hashes a chunk if it is its turn.
    fn take(&mut self, index: usize, chunk: &[u8]) -> bool {
        let is_next = self.next == index;
        if is_next {
            self.hasher.update(chunk);
            self.next += 1;
        }
        is_next
    }
}

/// Lets nobody wait for a thread that panicked.
struct BreaksOnPanic<'a>(&'a AliasChain);

impl Drop for BreaksOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state().is_broken = true;
            self.0.advanced.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use core_view::DType;

    use super::*;

    fn chunks() -> Vec<Vec<u8>> {
        (0..60_u32)
            .map(|i| vec![i as u8; 1 + 37 * i as usize])
            .collect()
    }

    fn hasher() -> AliasHasher {
        AliasHasher::new(DType::U8, &[7])
    }

    #[test]
    fn chunks_are_hashed_in_order_whoever_has_them() {
        let chunks = chunks();
        let mut expected = hasher();
        chunks.iter().for_each(|chunk| expected.update(chunk));
        for threads in [1, 2, 7] {
            let chain = AliasChain::new(hasher());
            let jobs = Mutex::new(chunks.iter().enumerate());
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    let (chain, jobs) = (&chain, &jobs);
                    scope.spawn(move || {
                        loop {
                            let Some((index, chunk)) = jobs.lock().unwrap().next() else {
                                return;
                            };
                            if index % 5 == thread {
                                std::thread::yield_now();
                            }
                            let encoded = chain.around(index, chunk, || Ok(index));
                            assert_eq!(encoded.unwrap(), index);
                        }
                    });
                }
            });
            assert_eq!(chain.finish(), expected.finish());
        }
    }

    #[test]
    fn a_failure_to_encode_holds_up_nobody() {
        let chain = AliasChain::new(hasher());
        let failed = chain.around(0, b"a", || Err::<(), _>(WeightError::Closed));
        assert!(matches!(failed, Err(WeightError::Closed)));
        assert!(chain.around(1, b"b", || Ok(())).is_ok());
    }

    #[test]
    fn nobody_waits_for_a_thread_that_is_gone() {
        let chain = AliasChain::new(hasher());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| chain.around(1, b"b", || Ok(())));
            let gone =
                scope.spawn(|| chain.around(2, b"c", || -> Result<(), _> { panic!("gone") }));
            assert!(gone.join().is_err());
            assert!(waiting.join().unwrap().is_err());
        });
    }
}
