//! What the threads of an import answer, for the one that waits for whole groups.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Results by group.
///
/// Who waits for a group is woken when the last of its results is there, and not for each: he would take a core from those that
/// make them, to find that he has to go on waiting.
#[derive(Debug)]
pub(super) struct Answers<A> {
    board: Mutex<Board<A>>,
    complete: Condvar,
}

#[derive(Debug)]
struct Board<A> {
    answers: Vec<A>,
    /// Results that are still to come, by group.
    owed: BTreeMap<u64, usize>,
    waited_for: Option<u64>,
    /// Whether there is an answer that nobody should wait beyond.
    is_urgent: bool,
    /// A thread that owed something is gone.
    is_lost: bool,
}

impl<A> Board<A> {
    fn is_settled(&self, group: u64) -> bool {
        self.is_urgent || self.is_lost || !self.owed.contains_key(&group)
    }
}

impl<A> Answers<A> {
    pub(super) fn new() -> Self {
        Self {
            board: Mutex::new(Board {
                answers: Vec::new(),
                owed: BTreeMap::new(),
                waited_for: None,
                is_urgent: false,
                is_lost: false,
            }),
            complete: Condvar::new(),
        }
    }

    /// Notes that one more result of a group is to come.
    pub(super) fn expect(&self, group: u64) {
        *self.board().owed.entry(group).or_default() += 1;
    }

    /// Takes a result of a group; one that `is_urgent` is told at once.
    pub(super) fn put(&self, group: u64, answer: A, is_urgent: bool) {
        let mut board = self.board();
        board.answers.push(answer);
        board.is_urgent |= is_urgent;
        let left = board.owed.get_mut(&group).map(|owed| {
            *owed = owed.saturating_sub(1);
            *owed
        });
        if left == Some(0) {
            board.owed.remove(&group);
        }
        let wakes = board
            .waited_for
            .is_some_and(|group| board.is_settled(group));
        drop(board);
        if wakes {
            self.complete.notify_one();
        }
    }

    /// Notes that results will not come.
    pub(super) fn lose(&self) {
        self.board().is_lost = true;
        self.complete.notify_all();
    }

    /// Waits until no result of a group is to come, and returns all that there are, of this group and others; sooner if
    /// one is urgent. `None` if results are lost.
    pub(super) fn wait(&self, group: u64) -> Option<Vec<A>> {
        let mut board = self.board();
        board.waited_for = Some(group);
        let waits = |board: &mut Board<A>| !board.is_settled(group);
        let board = self.complete.wait_while(board, waits);
        let mut board = board.unwrap_or_else(PoisonError::into_inner);
        board.waited_for = None;
        let answers = std::mem::take(&mut board.answers);
        (!board.is_lost).then_some(answers)
    }

    fn board(&self) -> MutexGuard<'_, Board<A>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_waited_for_until_it_is_whole() {
        let answers = Answers::new();
        for group in [1, 1, 1, 2] {
            answers.expect(group);
        }
        answers.put(2, 20, false);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| answers.wait(1));
            while answers.board().waited_for.is_none() {
                std::thread::yield_now();
            }
            for answer in 10..13 {
                assert!(!waiter.is_finished());
                answers.put(1, answer, false);
            }
            assert_eq!(waiter.join().unwrap(), Some(vec![20, 10, 11, 12]));
        });
        // Nothing is owed: nobody waits, whatever the group.
        assert_eq!(answers.wait(1), Some(vec![]));
        assert_eq!(answers.wait(7), Some(vec![]));
    }

    #[test]
    fn nobody_waits_beyond_what_is_urgent_or_lost() {
        let answers = Answers::new();
        answers.expect(1);
        answers.expect(1);
        answers.put(1, 10, true);
        assert_eq!(answers.wait(1), Some(vec![10]));

        let answers = Answers::<u8>::new();
        answers.expect(1);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| answers.wait(1));
            answers.lose();
            assert_eq!(waiter.join().unwrap(), None);
        });
        assert_eq!(answers.wait(1), None);
    }
}
