//! Carries an operation out on the calling thread, one positioned call after the other.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::thread;

use core_view::contract::ContractError;

use super::operation::{Attempt, Next};
use super::{Counters, Operation};

/// What a test does to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "outside tests nothing interferes with a call")
)]
pub(crate) enum Disturbance {
    /// Nothing.
    None,
    /// It transfers at most this many bytes.
    Limit(usize),
    /// It is not made, and seems to fail with this code of the operating system.
    Error(i32),
}

impl Operation {
    /// What a test wants done to the next call; it may wait here.
    #[cfg(test)]
    pub(super) fn disturbance(&self) -> Disturbance {
        self.file()
            .interference
            .as_ref()
            .map_or(Disturbance::None, |interference| {
                interference.before_call(self)
            })
    }

    /// Nothing interferes outside tests.
    #[cfg(not(test))]
    pub(super) fn disturbance(&self) -> Disturbance {
        Disturbance::None
    }
}

/// Makes calls until the operation is done or has failed.
pub(crate) fn run_attempts(
    operation: &mut Operation,
    counters: &Counters,
) -> Result<(), ContractError> {
    loop {
        let outcome = match operation.disturbance() {
            Disturbance::None => call(operation, None),
            Disturbance::Limit(limit_bytes) => call(operation, Some(limit_bytes)),
            Disturbance::Error(code) => Err(io::Error::from_raw_os_error(code)),
        };
        match operation.advance(outcome, counters) {
            Next::Again => {}
            Next::Later(backoff) => thread::sleep(backoff),
            Next::Done => return Ok(()),
            Next::Failed(error) => return Err(error),
        }
    }
}

fn call(operation: &mut Operation, limit_bytes: Option<usize>) -> io::Result<usize> {
    let offset_bytes = operation.position_bytes();
    let file = operation.file();
    match operation.attempt(limit_bytes) {
        Attempt::Read(target) => file.file.read_at(target, offset_bytes),
        Attempt::Write(source) => file.file.write_at(source, offset_bytes),
        Attempt::WriteVectored(sources) => write_vectored_at(&file.file, &sources, offset_bytes),
        Attempt::Sync => file.file.sync_data().map(|()| 0),
    }
}

fn write_vectored_at(file: &File, sources: &[IoSlice<'_>], offset_bytes: u64) -> io::Result<usize> {
    Ok(rustix::io::pwritev(file, sources, offset_bytes)?)
}
