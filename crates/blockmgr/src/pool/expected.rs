//! Which request is about to register a block.

use super::cell::Key;
use super::index::mixed;
use crate::policy::Request;
use crate::sync::{Mutex, Padded, lock};

/// Places, each with a lock, and blocks that each remembers.
const PLACES: usize = 64;
const BLOCKS: usize = 4;

/// The blocks that requests missed lately: who registers one belongs to that request, mostly.
#[derive(Debug)]
pub(super) struct Expected {
    places: Box<[Padded<Mutex<Place>>]>,
}

#[derive(Debug, Default)]
struct Place {
    missed: [Option<(Key, Request)>; BLOCKS],
    next: usize,
}

impl Expected {
    pub(super) fn new() -> Self {
        Self {
            places: (0..PLACES).map(|_| Padded::default()).collect(),
        }
    }

    fn place(&self, key: Key) -> &Mutex<Place> {
        &self.places[mixed(key) as usize % PLACES].0
    }

    /// A request missed a block.
    pub(super) fn add(&self, key: Key, request: &Request) {
        let mut place = lock(self.place(key));
        let next = place.next;
        place.missed[next] = Some((key, *request));
        place.next = (next + 1) % BLOCKS;
    }

    /// What request missed this block, if that is still known.
    pub(super) fn take(&self, key: Key) -> Option<Request> {
        let mut place = lock(self.place(key));
        let mut missed = place.missed.iter_mut();
        let missed = missed.find(|missed| missed.is_some_and(|(known, _)| known == key))?;
        missed.take().map(|(_, request)| request)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_taken_once() {
        let expected = Expected::new();
        let request = |tick| Request {
            tick,
            ..Request::default()
        };
        let take = |key| expected.take(key).map(|found| found.tick);
        expected.add([1, 1], &request(5));
        expected.add([2, 1], &request(6));
        assert_eq!(take([1, 1]), Some(5));
        assert_eq!(take([1, 1]), None);
        for number in 10..10 + (BLOCKS * PLACES * 16) as u64 {
            expected.add([number, 1], &request(number));
        }
        assert_eq!(take([2, 1]), None, "the oldest is forgotten");
    }
}
