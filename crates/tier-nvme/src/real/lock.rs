//! The locks of a real volume.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::directory::Directory;
use crate::{NvmeError, VolumeLock};

/// The name of the lock file; no file of a volume can have it.
const LOCK_NAME: &str = ".lock";

/// The name of the file that those lock who read beside somebody who writes.
const READERS_NAME: &str = ".readers";

/// How long a reader waits for a writer who is about to use a file again.
const READER_PATIENCE: Duration = Duration::from_secs(2);
const READER_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Most characters of a process id in the lock file.
const PID_BYTES_MAX: usize = 20;

/// A lock on an open file description, so that it also holds against another handle in this process,
/// and ends with the process, however that ends.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

impl VolumeLock for DirectoryLock {}

/// Takes the lock alone, or says who has it.
pub(super) fn take(directory: &Directory) -> Result<DirectoryLock, NvmeError> {
    let file = open(directory, OFlags::RDWR | OFlags::CREATE)?;
    settle(directory, &file, file.try_lock())?;
    // The process id is for messages only, and on a full disk it can't be written.
    let _ = write_pid(&file);
    Ok(DirectoryLock { _file: file })
}

/// Takes the lock beside others who read, or says who has it; makes its file only if `make`.
pub(super) fn take_shared(directory: &Directory, make: bool) -> Result<DirectoryLock, NvmeError> {
    let file = if make {
        open(directory, OFlags::RDWR | OFlags::CREATE)?
    } else {
        open(directory, OFlags::RDONLY)?
    };
    settle(directory, &file, file.try_lock_shared())?;
    if make {
        let _ = write_pid(&file);
    }
    Ok(DirectoryLock { _file: file })
}

/// Makes known that somebody reads; `None` where no writer has been that would look, or one does not let go.
pub(super) fn take_reading(directory: &Directory) -> Option<DirectoryLock> {
    let file = directory.open_entry(READERS_NAME, OFlags::RDONLY).ok()?;
    let begun = Instant::now();
    loop {
        match file.try_lock_shared() {
            Ok(()) => return Some(DirectoryLock { _file: file }),
            Err(TryLockError::WouldBlock) if begun.elapsed() < READER_PATIENCE => {
                std::thread::sleep(READER_POLL_INTERVAL);
            }
            Err(_) => return None,
        }
    }
}

/// Makes the file that readers lock, for a directory that is going to be written.
pub(super) fn invite_readers(directory: &Directory) -> Result<(), NvmeError> {
    directory
        .open_entry(READERS_NAME, OFlags::RDWR | OFlags::CREATE)
        .map(drop)
        .map_err(|error| fail(directory, error))
}

/// Keeps new readers waiting; `None` if somebody reads.
pub(super) fn keep_readers_out(directory: &Directory) -> Option<DirectoryLock> {
    let file = directory
        .open_entry(READERS_NAME, OFlags::RDWR | OFlags::CREATE)
        .ok()?;
    file.try_lock().ok().map(|()| DirectoryLock { _file: file })
}

fn open(directory: &Directory, flags: OFlags) -> Result<File, NvmeError> {
    directory
        .open_entry(LOCK_NAME, flags)
        .map_err(|error| fail(directory, error))
}

fn fail(directory: &Directory, error: io::Error) -> NvmeError {
    NvmeError::from_io("lock directory", directory.path_of(LOCK_NAME), 0, error)
}

fn settle(
    directory: &Directory,
    file: &File,
    taken: Result<(), TryLockError>,
) -> Result<(), NvmeError> {
    match taken {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(NvmeError::Locked {
            path: directory.location(),
            holder_pid: read_pid(file),
        }),
        Err(TryLockError::Error(error)) => Err(fail(directory, error)),
    }
}

fn write_pid(file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all_at(std::process::id().to_string().as_bytes(), 0)
}

fn read_pid(file: &File) -> Option<u32> {
    let mut bytes = [0; PID_BYTES_MAX];
    let len = file.read_at(&mut bytes, 0).ok()?;
    std::str::from_utf8(bytes.get(..len)?)
        .ok()?
        .trim()
        .parse()
        .ok()
}
