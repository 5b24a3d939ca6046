//! What each thread counts for itself.

#[cfg(not(shuttle))]
use std::cell::Cell as ThreadCell;
use std::ops::Deref;

use super::core::Core;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Arc, Padded, Weak};

/// Lanes of a pool; with more threads some have one in common.
const LANES: usize = 16;

/// How often it is tried to read all counts at one instant.
const READS: usize = 64;

/// A number for the calling thread, the same at each call.
#[cfg(not(shuttle))]
pub(super) fn lane() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    thread_local!(static LANE: ThreadCell<u32> = const { ThreadCell::new(u32::MAX) });
    LANE.with(|lane| {
        if lane.get() == u32::MAX {
            lane.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        lane.get()
    })
}

/// The same for threads of the scheduler that tries interleavings, which has all of them in one.
#[cfg(shuttle)]
pub(super) fn lane() -> u32 {
    usize::from(shuttle::current::me()) as u32
}

/// Counts of what threads did in this pool, which only grow.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Registered blocks that got their first user, or were registered with one.
    pinned: AtomicU64,
    /// Registered blocks that lost their last user.
    released: AtomicU64,
    pub(super) requested: AtomicU64,
    pub(super) hits: AtomicU64,
    /// Allocations. Of two at once by threads that have a lane in common one may not be counted.
    allocations: AtomicU32,
}

impl Lane {
    /// Counts blocks that got a user. Who sees them counted sees what this thread did before, so what it counted before too.
    #[inline]
    pub(super) fn count_pinned(&self, blocks: u64) {
        self.pinned.fetch_add(blocks, Ordering::Release);
    }

    /// The same for blocks that nobody uses any more.
    #[inline]
    pub(super) fn count_released(&self, blocks: u64) {
        self.released.fetch_add(blocks, Ordering::Release);
    }

    /// Counts an allocation; how many there were before.
    #[inline]
    pub(super) fn count_allocation(&self) -> u32 {
        let before = self.allocations.load(Ordering::Relaxed);
        self.allocations
            .store(before.wrapping_add(1), Ordering::Relaxed);
        before
    }
}

/// All lanes of a pool.
#[derive(Debug)]
pub(super) struct Lanes(Box<[Padded<Lane>]>);

impl Lanes {
    pub(super) fn new() -> Self {
        Self((0..LANES).map(|_| Padded::default()).collect())
    }

    /// That of the calling thread.
    #[inline]
    pub(super) fn own(&self) -> &Lane {
        &self.0[lane() as usize % LANES].0
    }

    /// What is read after it, is read later.
    pub(super) fn sum(&self, count: impl Fn(&Lane) -> &AtomicU64) -> u64 {
        let count = |Padded(lane): &Padded<Lane>| count(lane).load(Ordering::Acquire);
        self.0.iter().map(count).sum()
    }

    /// Registered blocks that have users, at about this time: at most as many as at the instant between the two sums.
    #[inline]
    pub(super) fn in_use(&self) -> usize {
        let pinned = self.sum(|lane| &lane.pinned);
        let released = self.sum(|lane| &lane.released);
        pinned.saturating_sub(released) as usize
    }

    /// The same at one instant. A count that is the same when it is read again has not changed in between, for all of them only grow. Of what
    /// threads change all the time it is at most what was in use at an instant: who is refused for it would have been refused then.
    pub(super) fn in_use_at_once(&self) -> usize {
        let read = || -> [[u64; 2]; LANES] {
            std::array::from_fn(|lane| {
                let Padded(lane) = &self.0[lane];
                [&lane.released, &lane.pinned].map(|count| count.load(Ordering::Acquire))
            })
        };
        let mut before = read();
        for _ in 0..READS {
            let now = read();
            if now == before {
                let sum = |which: usize| now.iter().map(|counts| counts[which]).sum::<u64>();
                return sum(1).saturating_sub(sum(0)) as usize;
            }
            before = now;
        }
        self.in_use()
    }
}

/// A share in the ownership of a pool's core. Threads count theirs apart, so that taking and dropping handles does not send one count
/// from processor to processor.
#[derive(Clone)]
pub(crate) struct Share(Arc<Padded<Arc<Core>>>);

impl Share {
    /// Whether both are of one pool.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.0, &other.0.0)
    }

    pub(crate) fn downgrade(&self) -> WeakShare {
        WeakShare(Arc::downgrade(&self.0.0))
    }
}

impl Deref for Share {
    type Target = Core;

    #[inline]
    fn deref(&self) -> &Core {
        &self.0.0
    }
}

/// Remembers a core without keeping it, whoever else does.
#[derive(Debug, Clone)]
pub(crate) struct WeakShare(Weak<Core>);

impl WeakShare {
    pub(crate) fn upgrade(&self) -> Option<Share> {
        let core = self.0.upgrade()?;
        Some(Share(Arc::new(Padded(core))))
    }
}

/// A share for each lane. Clones are one.
#[derive(Clone)]
pub(super) struct Shares(Arc<Vec<Share>>);

impl Shares {
    pub(super) fn new(core: Core) -> Self {
        let core = Arc::new(core);
        let share = |_| Share(Arc::new(Padded(Arc::clone(&core))));
        Self(Arc::new((0..LANES).map(share).collect()))
    }

    /// That of the calling thread.
    #[inline]
    pub(super) fn own(&self) -> &Share {
        &self.0[lane() as usize % LANES]
    }
}

impl Deref for Shares {
    type Target = Core;

    #[inline]
    fn deref(&self) -> &Core {
        &self.0[0]
    }
}

impl std::fmt::Debug for Shares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let core: &Core = self;
        core.fmt(f)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn no_more_are_in_use_than_ever_were_while_threads_change_it_all_the_time() {
        const MOST: usize = 2;
        const CHANGES: usize = 4_000_000;
        let lanes = Lanes::new();
        let lane = |number: usize| &lanes.0[number].0;
        lane(0).count_pinned(1);
        let ends = AtomicBool::new(false);
        let most = std::thread::scope(|scope| {
            // A block gets a user far from where another lost its last one: a sum that sees the later and not the earlier counts both.
            scope.spawn(|| {
                for _ in 0..CHANGES {
                    lane(LANES - 1).count_pinned(1);
                    lane(0).count_released(1);
                }
                ends.store(true, Ordering::Release);
            });
            let counts = std::iter::from_fn(|| {
                let goes_on = !ends.load(Ordering::Acquire);
                goes_on.then(|| lanes.in_use_at_once())
            });
            counts.max()
        });
        assert!(most <= Some(MOST), "{most:?} of at most {MOST}");
        // At rest it is exact.
        assert_eq!(lanes.in_use_at_once(), 1);
    }
}
