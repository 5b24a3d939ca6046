//! Batches that are handed over without waiting for them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use core_view::contract::{Drive, Transfer};

use super::group::failure;
use super::{NvmeStore, Shared, WriteBatch};

/// One writes while the other syncs.
const THREADS: usize = 2;

/// Threads that commit what nobody waits for; they start with the first such batch, and sleep when there is
/// nothing to do.
#[derive(Debug, Default)]
pub(super) struct Committers {
    threads: Mutex<Vec<JoinHandle<()>>>,
    stopping: Arc<AtomicBool>,
}

impl Committers {
    /// Whether there are threads, after starting them if there were none.
    fn start(&self, shared: &Arc<Shared>) -> bool {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        while threads.len() < THREADS {
            let (shared, stopping) = (Arc::clone(shared), Arc::clone(&self.stopping));
            let name = format!("stepwell-commit-{}", threads.len());
            let thread = thread::Builder::new().name(name);
            match thread.spawn(move || run(&shared, &stopping)) {
                Ok(handle) => threads.push(handle),
                // One is enough to go on, and without any the callers do the work.
                Err(_) => break,
            }
        }
        !threads.is_empty()
    }

    pub(super) fn stop(&self, shared: &Shared) {
        self.stopping.store(true, Ordering::Release);
        shared.queue.wake_all();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.thread().id() != thread::current().id() {
                // A thread that panicked has told its callers.
                drop(thread.join());
            }
        }
    }
}

fn run(shared: &Shared, stopping: &AtomicBool) {
    while !stopping.load(Ordering::Acquire) {
        // A panic in the middle of a commit has poisoned the store, and the others are to be told.
        drop(catch_unwind(AssertUnwindSafe(|| {
            shared.step_or_wait(None, Some(stopping));
        })));
    }
}

/// Lets whoever waits for a batch do the work.
struct Waiters(Weak<Shared>);

impl Drive for Waiters {
    fn drive(&self, timeout: Option<Duration>) {
        match self.0.upgrade() {
            Some(shared) => shared.step_or_wait(timeout, None),
            None => thread::sleep(timeout.unwrap_or_default().min(Duration::from_millis(1))),
        }
    }
}

impl NvmeStore {
    /// As [`write_batch`](NvmeStore::write_batch), without waiting: the batch is durable when the transfer
    /// is done. Batches are committed in the order of the calls, the next one being written while the one
    /// before is synced, so that a few of them under way keep the device busy.
    ///
    /// The call itself waits while too much is in front of it, so that it does not belong on a thread that
    /// hands out completions. Dropping the transfer changes nothing about the batch; closing the store
    /// fails those that were not begun with [`NvmeError::Closed`](crate::NvmeError::Closed).
    ///
    /// ```
    /// use tier_nvme::sim::SimVolume;
    /// use tier_nvme::{NvmeStore, StorageConfig, WriteBatch};
    ///
    /// let config = StorageConfig::default().with_segment_bytes(1 << 20);
    /// let store = NvmeStore::on_volume(SimVolume::new(1).handle(), config)?;
    /// let batch = |i: u8| WriteBatch::new().put([i], vec![i; 5000]);
    /// let writes: Vec<_> = (0..10).map(|i| store.write_batch_async(batch(i))).collect();
    /// for write in writes {
    ///     write.wait()?;
    /// }
    /// assert_eq!(store.len(), 10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_batch_async(&self, batch: WriteBatch) -> Transfer<()> {
        let draft = match self.shared.draft(batch) {
            Ok(Some(draft)) => draft,
            Ok(None) => return Transfer::ready(Ok(())),
            Err(error) => return Transfer::ready(Err(failure(error))),
        };
        let is_driven = self.shared.has_threads() && self.committers.start(&self.shared);
        let (transfer, completer) = if is_driven {
            Transfer::pair()
        } else {
            Transfer::driven(Arc::new(Waiters(Arc::downgrade(&self.shared))))
        };
        self.shared.submit(draft, completer);
        transfer
    }

    /// Does one stage (writing, or syncing and publishing) of the batches that were handed over by
    /// [`write_batch_async`](NvmeStore::write_batch_async), on this thread; `false` if there is nothing to
    /// do. Only a store without threads of its own needs it
    /// ([`with_background`](crate::StorageConfig::with_background), and any on a simulated volume): there it
    /// makes what happens, and when, the caller's choice.
    pub fn step(&self) -> bool {
        self.shared.step_overlapping()
    }
}
