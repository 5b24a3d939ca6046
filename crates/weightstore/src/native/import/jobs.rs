//! What the threads of an import have to do.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Jobs in two rows: those that somebody waits for, and those that are done ahead.
///
/// A thread takes from the second row when the first is empty. So what was read ahead of time is still to be done when
/// the last of the others is taken, and no thread is idle while more of them are made.
#[derive(Debug)]
pub(super) struct Jobs<J> {
    rows: Mutex<Rows<J>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Rows<J> {
    awaited: VecDeque<J>,
    ahead: VecDeque<J>,
    is_closed: bool,
}

impl<J> Jobs<J> {
    pub(super) fn new() -> Self {
        Self {
            rows: Mutex::new(Rows {
                awaited: VecDeque::new(),
                ahead: VecDeque::new(),
                is_closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// A job that is done before all that are done ahead, and after those that came this way before.
    pub(super) fn push_awaited(&self, job: J) {
        self.rows().awaited.push_back(job);
        self.changed.notify_one();
    }

    /// A job that is done when there is no other, after those that came this way before.
    pub(super) fn push_ahead(&self, job: J) {
        self.rows().ahead.push_back(job);
        self.changed.notify_one();
    }

    /// The next job, once there is one; `None` when no more are to be done.
    pub(super) fn take(&self) -> Option<J> {
        let waits = |rows: &mut Rows<J>| {
            !rows.is_closed && rows.awaited.is_empty() && rows.ahead.is_empty()
        };
        let rows = self.changed.wait_while(self.rows(), waits);
        let mut rows = rows.unwrap_or_else(PoisonError::into_inner);
        if rows.is_closed {
            return None;
        }
        let awaited = rows.awaited.pop_front();
        awaited.or_else(|| rows.ahead.pop_front())
    }

    /// Nothing is to be done any more.
    pub(super) fn close(&self) {
        let mut rows = self.rows();
        rows.is_closed = true;
        let left = (
            std::mem::take(&mut rows.awaited),
            std::mem::take(&mut rows.ahead),
        );
        drop(rows);
        drop(left);
        self.changed.notify_all();
    }

    fn rows(&self) -> MutexGuard<'_, Rows<J>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_awaited_comes_first_and_in_order() {
        let jobs = Jobs::new();
        for job in 0..3 {
            jobs.push_ahead(10 + job);
            jobs.push_awaited(job);
        }
        let taken: Vec<i32> = (0..4).filter_map(|_| jobs.take()).collect();
        assert_eq!(taken, [0, 1, 2, 10]);
        jobs.push_awaited(3);
        assert_eq!(jobs.take(), Some(3));
        assert_eq!(jobs.take(), Some(11));
    }

    #[test]
    fn threads_end_when_it_closes() {
        let jobs = Jobs::new();
        jobs.push_ahead(1);
        std::thread::scope(|scope| {
            let threads =
                [(); 3].map(|()| scope.spawn(|| std::iter::from_fn(|| jobs.take()).count()));
            while !jobs.rows().ahead.is_empty() {
                std::thread::yield_now();
            }
            jobs.close();
            jobs.push_awaited(2);
            let done: usize = threads.map(|thread| thread.join().unwrap()).iter().sum();
            assert_eq!(done, 1);
        });
        assert_eq!(jobs.take(), None);
    }
}
