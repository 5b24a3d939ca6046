//! Threads that end with the operation that they work for.

use std::io;
use std::thread::{Builder, Scope, ScopedJoinHandle};

/// Starts a thread of a scope; an error where the system has no more of them.
pub(crate) fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    #[cfg(test)]
    scarcity::take_one()?;
    Builder::new()
        .name(name.to_owned())
        .spawn_scoped(scope, work)
}

/// A machine that starts no more threads, for tests.
#[cfg(test)]
pub(crate) mod scarcity {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// Runs something for which the next so many threads can be started from this one, and none after them.
    pub(crate) fn with_threads<T>(threads: usize, work: impl FnOnce() -> T) -> T {
        LEFT.set(Some(threads));
        let done = work();
        LEFT.set(None);
        done
    }

    pub(super) fn take_one() -> io::Result<()> {
        match LEFT.get() {
            Some(0) => Err(io::ErrorKind::WouldBlock.into()),
            left => {
                LEFT.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }
}

#[cfg(all(test, feature = "sim"))]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::scarcity::with_threads;
    use crate::sim::SimVolume;
    use crate::{NvmeStore, StorageConfig, WriteBatch};

    /// So many that the log and a checkpoint are worth threads.
    const KEYS: u32 = 140_000;

    fn open(volume: &SimVolume) -> NvmeStore {
        let config = StorageConfig::default().with_background(false);
        NvmeStore::on_volume(volume.handle(), config).unwrap()
    }

    fn assert_whole(store: &NvmeStore) {
        assert_eq!(store.len(), u64::from(KEYS));
        for key in (0..KEYS).step_by(997) {
            let value = store.read_direct(key.to_le_bytes()).unwrap();
            assert_eq!(value.as_deref(), Some(&[key as u8; 3][..]));
        }
        assert_eq!(store.stats().live_raw_bytes, 3 * u64::from(KEYS));
    }

    #[test]
    fn a_store_is_opened_with_the_threads_that_there_are() {
        let volume = SimVolume::new(1);
        let store = open(&volume);
        for first in (0..KEYS).step_by(10_000) {
            let batch = (first..first + 10_000).fold(WriteBatch::new(), |batch, key| {
                batch.put(key.to_le_bytes(), vec![key as u8; 3])
            });
            store.write_batch(batch).unwrap();
        }
        volume.crash();
        drop(store);
        for threads in [0, 1, 2] {
            let volume = volume.fork(threads as u64);
            let store = with_threads(threads, || open(&volume));
            assert_eq!(
                store.recovery_report().batches_replayed,
                u64::from(KEYS / 10_000)
            );
            assert_whole(&store);
            store.close().unwrap();
            let store = with_threads(threads, || open(&volume));
            assert!(store.recovery_report().clean);
            assert_whole(&store);
        }
    }
}
