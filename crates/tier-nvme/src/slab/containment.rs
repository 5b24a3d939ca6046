//! Panics of what the slab calls: they stop the slab, or concern nobody but the caller who brought them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use super::Shared;
use super::queue::Ready;
use crate::NvmeError;

impl Shared {
    /// Does what calls into the volume. After a panic there nobody can say what was done: the slab takes no
    /// more changes, whoever waits for one is told so, and the thread goes on to tell them.
    pub(super) fn contain<T>(
        &self,
        work: impl FnOnce() -> Result<T, NvmeError>,
    ) -> Result<T, NvmeError> {
        // What is left half-way is not used again: the table and the slots change as a whole, and the journal
        // only where the slab is not poisoned.
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
            self.counters.panics.fetch_add(1, Ordering::Relaxed);
            self.poison_because("a panic in the middle of a change".to_owned());
            self.check_poison().and(Err(NvmeError::Closed))
        })
    }

    /// Tells the callers of a job. What they chained to it must not panic; if it does, the others still hear.
    pub(super) fn tell(&self, job: Ready) {
        let told = catch_unwind(AssertUnwindSafe(|| match job {
            Ready::Put(job) => job.finish(),
            Ready::Remove(job) => job.finish(),
        }));
        if told.is_err() {
            self.counters.panics.fetch_add(1, Ordering::Relaxed);
        }
    }
}
