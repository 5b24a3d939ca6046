//! Blocks kept for a time, by nobody.

use super::core::Core;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, lock};

/// Names a lease of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(u64);

/// No lease ends.
const NEVER: u64 = u64::MAX;

struct Lease {
    id: LeaseId,
    until_ms: u64,
    slots: Vec<u32>,
}

/// The leases of a pool. There are few of them, so that a list will do.
pub(super) struct Leases {
    table: Mutex<(u64, Vec<Lease>)>,
    /// When the next one ends, or [`NEVER`].
    next_end_ms: AtomicU64,
}

impl Leases {
    pub(super) fn new() -> Self {
        Self {
            table: Mutex::new((0, Vec::new())),
            next_end_ms: AtomicU64::new(NEVER),
        }
    }

    /// Takes out the leases that `ends` chooses.
    fn take(&self, ends: impl Fn(&Lease) -> bool) -> Vec<Lease> {
        let mut table = lock(&self.table);
        let ended = table.1.extract_if(.., |lease| ends(lease)).collect();
        let next = table.1.iter().map(|lease| lease.until_ms).min();
        self.next_end_ms
            .store(next.unwrap_or(NEVER), Ordering::Relaxed);
        ended
    }
}

impl Core {
    /// Keeps blocks that have a user each for a time.
    pub(super) fn lease(&self, slots: Vec<u32>, duration_ms: u64) -> LeaseId {
        let until_ms = self.now_ms().saturating_add(duration_ms).min(NEVER - 1);
        let mut table = lock(&self.leases.table);
        table.0 += 1;
        let id = LeaseId(table.0);
        table.1.push(Lease {
            id,
            until_ms,
            slots,
        });
        self.leases
            .next_end_ms
            .fetch_min(until_ms, Ordering::Relaxed);
        id
    }

    /// Releases the blocks of a lease; whether it was still running.
    pub(super) fn end_lease(&self, id: LeaseId) -> bool {
        let ended = self.leases.take(|lease| lease.id == id);
        self.release_leased(&ended);
        !ended.is_empty()
    }

    /// Releases the blocks of leases that are over.
    #[inline]
    pub(super) fn end_leases(&self) {
        let next_end_ms = self.leases.next_end_ms.load(Ordering::Relaxed);
        if next_end_ms == NEVER {
            return;
        }
        let now_ms = self.now_ms();
        if next_end_ms <= now_ms {
            let ended = self.leases.take(|lease| lease.until_ms <= now_ms);
            self.release_leased(&ended);
        }
    }

    /// All at once: what is left when a policy panics is released too.
    fn release_leased(&self, leases: &[Lease]) {
        let slots: Vec<u32> = leases
            .iter()
            .flat_map(|lease| lease.slots.iter().copied())
            .collect();
        self.release(&slots);
    }
}
