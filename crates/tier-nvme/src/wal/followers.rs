//! The threads that wait for one group, woken together.

use std::sync::{Arc, OnceLock};

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

/// Where the threads that wait for a group learn of its outcome: one call to the system wakes all of them, and no lock makes
/// them come one after the other then.
#[derive(Debug, Default)]
pub(super) struct Followers {
    outcome: OnceLock<Result<(), ContractError>>,
}

impl Followers {
    pub(super) fn wait(&self) -> Result<(), ContractError> {
        self.outcome.wait().clone()
    }

    /// The first outcome stays.
    fn announce(&self, outcome: Result<(), ContractError>) {
        drop(self.outcome.set(outcome));
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
        if self.0.outcome.get().is_none() {
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
