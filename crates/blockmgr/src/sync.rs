//! The synchronisation that the pool is built on: the standard library's, or that of the scheduler which tries
//! interleavings in tests.

use std::panic::{AssertUnwindSafe, catch_unwind};

#[cfg(not(shuttle))]
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak, atomic};
#[cfg(not(shuttle))]
pub(crate) use std::thread::yield_now;

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak, atomic};
#[cfg(shuttle)]
pub(crate) use shuttle::thread::yield_now;

/// How often a thread looks whether a lock was given up before it sleeps; after each look it waits longer, in all some
/// ten microseconds. The locks of a pool are held for less, mostly, and to wake a thread takes longer.
#[cfg(not(shuttle))]
const LOOKS: u32 = 64;

/// Locks, also after a panic of another holder: what the pool keeps under these locks is whole whenever foreign code is called; what a policy
/// keeps that panicked may not be, and its own answers are checked.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match try_lock(mutex) {
        Some(guard) => guard,
        None => wait(mutex),
    }
}

/// Locks if nobody has.
#[inline]
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cold]
fn wait<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(not(shuttle))]
    for look in 0..LOOKS {
        (0..1 << look.min(3)).for_each(|_| std::hint::spin_loop());
        if let Some(guard) = try_lock(mutex) {
            return guard;
        }
    }
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does something that calls foreign code, in a destructor: if a panic is under way already, another one ends here instead of ending the process.
#[inline]
pub(crate) fn contained(work: impl FnOnce()) {
    if std::thread::panicking() {
        drop(catch_unwind(AssertUnwindSafe(work)));
    } else {
        work();
    }
}

/// Keeps neighbours in an array out of each other's cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);
