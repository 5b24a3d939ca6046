//! What the suites demand of every outcome.

#![expect(clippy::panic, reason = "a suite reports what is broken by panicking")]

use std::time::Duration;

use crate::BufferMut;
use crate::contract::{ErrorKind, Failure, Transfer};

/// What takes longer than this hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// So often a valid operation may fail in a row.
const TRIES: usize = 200;

/// Failures that may come over any valid operation.
pub(super) const FAULTS: &[ErrorKind] = &[
    ErrorKind::Io,
    ErrorKind::Poisoned,
    ErrorKind::NoSpace,
    ErrorKind::Abandoned,
];

/// Reports what is broken.
pub(super) fn broken(what: &str) -> ! {
    panic!("{what}")
}

/// The outcome, or a panic if it does not come.
pub(super) fn wait<T: Send + 'static>(what: &str, transfer: Transfer<T>) -> Result<T, Failure> {
    match transfer.wait_for(PATIENCE) {
        Ok(outcome) => outcome,
        Err(_) => panic!("{what}: the transfer hangs"),
    }
}

/// Repeats `attempt` until it gives something.
pub(super) fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    for _ in 0..TRIES {
        if let Some(result) = attempt() {
            return result;
        }
    }
    panic!("{what}: failed {TRIES} times in a row");
}

/// The addresses and lengths of buffers.
pub(super) fn places<'a>(buffers: impl IntoIterator<Item = &'a BufferMut>) -> Vec<(usize, usize)> {
    let place = |buffer: &BufferMut| (buffer.as_ptr().addr(), buffer.len());
    buffers.into_iter().map(place).collect()
}

/// Demands that a failure is of one of these kinds and gives back the buffers at these places.
pub(super) fn check_failure(
    what: &str,
    failure: Failure,
    places_given: &[(usize, usize)],
    kinds: &[&[ErrorKind]],
) -> Vec<BufferMut> {
    let (error, buffers) = failure.into_parts();
    if !kinds.iter().any(|kinds| kinds.contains(&error.kind())) {
        panic!("{what}: an error of a kind that the contract does not name here: {error}");
    }
    let buffers = buffers.reclaim();
    let may_keep = matches!(error.kind(), ErrorKind::Abandoned | ErrorKind::TimedOut);
    if !(may_keep && buffers.is_empty()) {
        let places_back = places(&buffers);
        assert_eq!(
            places_back, places_given,
            "{what}: the buffers lost or changed by a failure ({error})"
        );
    }
    buffers
}

/// Demands that an outcome is an error, and as [`check_failure`] does.
pub(super) fn check_refused<T>(
    what: &str,
    outcome: Result<T, Failure>,
    places_given: &[(usize, usize)],
    kinds: &[&[ErrorKind]],
) -> ErrorKind {
    match outcome {
        Ok(_) => panic!("{what}: it succeeded where it must be refused"),
        Err(failure) => {
            let kind = failure.kind();
            check_failure(what, failure, places_given, kinds);
            kind
        }
    }
}
