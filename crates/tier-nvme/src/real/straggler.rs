//! Operations that a killed process left in flight.
//!
//! The kernel holds a file open until the last operation on it is done, also when the process that
//! submitted it is gone. So a file lock taken through the handle that operations go through is given
//! back only then: whoever gets it for himself knows that nothing is on its way any more.

use std::fs::{File, TryLockError};
use std::time::{Duration, Instant};

use crate::NvmeError;

/// How long the device may take over what is on its way.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Marks the file as written through this handle. A file system without locks has no stragglers to
/// tell either, so that a refusal is no error.
pub(super) fn mark_in_use(file: &File) {
    drop(file.try_lock_shared());
}

/// Waits until nobody has the file marked.
pub(super) fn settle(file: &File, path: &str) -> Result<(), NvmeError> {
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => {
                std::thread::sleep(POLL_INTERVAL);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(NvmeError::Locked {
                    path: path.to_owned(),
                    holder_pid: None,
                });
            }
            Err(TryLockError::Error(_)) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settling_waits_for_the_last_handle() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("segment");
        let writer = File::create(&path).unwrap();
        mark_in_use(&writer);
        let in_flight = writer.try_clone().unwrap();
        drop(writer);
        let waiting = std::thread::spawn(move || {
            let file = File::open(&path).unwrap();
            settle(&file, "segment").unwrap();
            Instant::now()
        });
        std::thread::sleep(Duration::from_millis(50));
        let released = Instant::now();
        drop(in_flight);
        assert!(waiting.join().unwrap() >= released);
    }
}
