//! Threads on which outcomes are handed out: nothing may be waited for there.

use std::cell::Cell;

thread_local! {
    static IS_ONE: Cell<bool> = const { Cell::new(false) };
}

/// Marks the calling thread as one that hands outcomes out, until it ends.
pub(crate) fn adopt() {
    IS_ONE.set(true);
}

/// Whether the calling thread hands outcomes out, of any volume or store.
pub(crate) fn is_current() -> bool {
    IS_ONE.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_a_threads_own() {
        let adopted = std::thread::spawn(|| {
            let before = is_current();
            adopt();
            (before, is_current())
        });
        assert_eq!(adopted.join().unwrap(), (false, true));
        assert!(!is_current());
    }
}
