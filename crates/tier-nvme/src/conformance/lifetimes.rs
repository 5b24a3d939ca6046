//! Dropping transfers, files and volumes at any moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use core_view::contract::{ErrorKind, Failure};

use super::{Checked, Factory, counted, ensure};
use crate::{FileName, VolumeFile};

const OPERATIONS: usize = 200;
const LEN_BYTES: usize = 16 * 1024;

/// How long what is outstanding may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Checks that every buffer is freed exactly once whatever is dropped or cancelled while operations run,
/// that a file outlives its volume, and that completions may submit and drop.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn check_lifetimes(factory: Factory<'_>) -> Checked {
    check_dropped_transfers(factory)?;
    check_dropped_volume(factory)?;
    check_cancelled(factory)?;
    check_chain(factory)
}

fn create(factory: Factory<'_>) -> Result<Arc<dyn VolumeFile>, crate::NvmeError> {
    factory()?.create(&FileName::new("data")?, (OPERATIONS * LEN_BYTES) as u64)
}

fn ensure_freed(freed: &AtomicUsize, expected: usize) -> Checked {
    let until = Instant::now() + PATIENCE;
    while freed.load(Ordering::Acquire) < expected && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    let count = freed.load(Ordering::Acquire);
    ensure(count == expected, || {
        format!("{count} of {expected} buffers were freed")
    })
}

/// Transfers and the file are dropped right after submission.
fn check_dropped_transfers(factory: Factory<'_>) -> Checked {
    let freed = Arc::new(AtomicUsize::new(0));
    let file = create(factory)?;
    let memory_bytes = file.alignment().memory_bytes;
    for number in 0..OPERATIONS {
        let offset_bytes = (number * LEN_BYTES) as u64;
        let buffer = counted::buffer(LEN_BYTES, memory_bytes, &freed)?;
        match number % 3 {
            0 => drop(file.read(offset_bytes, buffer)),
            1 => drop(file.write(offset_bytes, buffer)),
            _ => {
                let second = counted::buffer(LEN_BYTES, memory_bytes, &freed)?;
                drop(file.write_vectored(0, vec![buffer, second]));
            }
        }
    }
    drop(file);
    ensure_freed(&freed, OPERATIONS + OPERATIONS / 3)
}

/// Volume and file are dropped while transfers are still waited for.
fn check_dropped_volume(factory: Factory<'_>) -> Checked {
    let freed = Arc::new(AtomicUsize::new(0));
    let file = create(factory)?;
    let memory_bytes = file.alignment().memory_bytes;
    let mut transfers = Vec::new();
    for number in 0..OPERATIONS {
        let buffer = counted::buffer(LEN_BYTES, memory_bytes, &freed)?;
        transfers.push(file.write((number * LEN_BYTES) as u64, buffer));
    }
    drop(file);
    for transfer in transfers {
        let buffer = transfer.wait()?;
        ensure(buffer.len() == LEN_BYTES, || {
            "another buffer came back".into()
        })?;
    }
    ensure_freed(&freed, OPERATIONS)
}

/// Whatever is cancelled either succeeds or gives its buffer back.
fn check_cancelled(factory: Factory<'_>) -> Checked {
    let freed = Arc::new(AtomicUsize::new(0));
    let file = create(factory)?;
    let memory_bytes = file.alignment().memory_bytes;
    let mut transfers = Vec::new();
    for number in 0..OPERATIONS {
        let buffer = counted::buffer(LEN_BYTES, memory_bytes, &freed)?;
        let transfer = file.write((number * LEN_BYTES) as u64, buffer);
        transfer.cancel();
        transfers.push(transfer);
    }
    for transfer in transfers {
        match transfer.wait() {
            Ok(buffer) => ensure(buffer.len() == LEN_BYTES, || {
                "another buffer came back".into()
            })?,
            Err(failure) => {
                ensure(failure.kind() == ErrorKind::Cancelled, || {
                    format!("a cancelled write gives {failure}")
                })?;
                ensure(failure.into_parts().1.len() == 1, || {
                    "a cancelled write keeps its buffer".into()
                })?;
            }
        }
    }
    ensure_freed(&freed, OPERATIONS)
}

/// Completions submit the next operation, and the last of them drops the last handle of the file.
fn check_chain(factory: Factory<'_>) -> Checked {
    let freed = Arc::new(AtomicUsize::new(0));
    let file = create(factory)?;
    let memory_bytes = file.alignment().memory_bytes;
    let (sender, receiver) = mpsc::channel();
    for number in 0..OPERATIONS {
        let buffer = counted::buffer(LEN_BYTES, memory_bytes, &freed)?;
        let chained = Arc::clone(&file);
        let sender = sender.clone();
        let offset_bytes = (number * LEN_BYTES) as u64;
        file.write(offset_bytes, buffer)
            .on_complete(move |outcome| {
                let buffer = match outcome {
                    Ok(buffer) => buffer,
                    // Nobody may be there to hear any more.
                    Err(failure) => return drop(sender.send(Err(failure))),
                };
                let again = Arc::clone(&chained);
                chained.read(offset_bytes, buffer).on_complete(move |read| {
                    drop(again);
                    drop(sender.send(read.map(drop)));
                });
            });
    }
    drop((file, sender));
    for number in 0..OPERATIONS {
        let outcome: Result<(), Failure> = receiver
            .recv_timeout(PATIENCE)
            .map_err(|_| format!("only {number} of {OPERATIONS} chains have ended"))?;
        outcome?;
    }
    ensure_freed(&freed, OPERATIONS)
}
