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
