//! The threads that wait for one group, woken together.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use core_view::contract::{Completer, ContractError, ErrorKind, Failure};

use super::Lsn;

/// Whom to tell that records are durable, or not.
#[derive(Debug)]
pub(super) enum Acknowledgement {
    /// Who did not wait, of this record.
    Transfer(Lsn, Completer<Lsn>),
    /// Who waits, of the group.
    Followers(Announcement),
}

impl Acknowledgement {
    pub(super) fn tell(self, outcome: &Result<(), ContractError>) {
        match self {
            Self::Transfer(lsn, completer) => completer.complete(match outcome {
                Ok(()) => Ok(lsn),
                Err(error) => Err(Failure::from(error.clone())),
            }),
            Self::Followers(announcement) => announcement.0.announce(outcome.clone()),
        }
    }
}

/// Where the threads that wait for a group learn of its outcome: one call to the system wakes all of them.
#[derive(Debug, Default)]
pub(super) struct Followers {
    outcome: Mutex<Option<Result<(), ContractError>>>,
    announced: Condvar,
}

impl Followers {
    pub(super) fn wait(&self) -> Result<(), ContractError> {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = &*outcome {
                return outcome.clone();
            }
            outcome = self
                .announced
                .wait(outcome)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The first outcome stays.
    fn announce(&self, outcome: Result<(), ContractError>) {
        let mut place = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        place.get_or_insert(outcome);
        drop(place);
        self.announced.notify_all();
    }
}

/// The side that tells; dropped before it did, it says so.
#[derive(Debug)]
pub(super) struct Announcement(Arc<Followers>);

impl Announcement {
    pub(super) fn new() -> (Self, Arc<Followers>) {
        let followers = Arc::<Followers>::default();
        (Self(Arc::clone(&followers)), followers)
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        let is_told = |followers: &Followers| {
            let outcome = followers.outcome.lock();
            outcome.unwrap_or_else(PoisonError::into_inner).is_some()
        };
        if !is_told(&self.0) {
            let error = ContractError::new(ErrorKind::Abandoned, "append to log");
            self.0
                .announce(Err(error.detail("the log went away; open it again")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_woken_and_hear_the_same() {
        let (announcement, followers) = Announcement::new();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| followers.wait())).collect();
            let error = ContractError::new(ErrorKind::Io, "test");
            Acknowledgement::Followers(announcement).tell(&Err(error));
            for thread in threads {
                assert_eq!(thread.join().unwrap().unwrap_err().kind(), ErrorKind::Io);
            }
        });
        assert_eq!(followers.wait().unwrap_err().kind(), ErrorKind::Io);
    }

    #[test]
    fn nobody_waits_for_a_group_that_is_gone() {
        let (announcement, followers) = Announcement::new();
        drop(announcement);
        assert_eq!(followers.wait().unwrap_err().kind(), ErrorKind::Abandoned);
    }
}
