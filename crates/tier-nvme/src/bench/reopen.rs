//! How fast a store is there again.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::BenchError;
use crate::{NvmeStore, StorageConfig, WriteBatch};

/// Keys of one batch.
const BATCH_KEYS: u64 = 16 << 10;

/// What the process to be killed says when it has stored everything.
const READY: &str = "ready";

/// How long opening a store took.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Reopened {
    /// Keys in the store.
    pub keys: u64,
    /// From the call until the store could be read and written.
    pub elapsed: Duration,
    /// Batches that were replayed from the log.
    pub batches_replayed: u64,
}

impl Reopened {
    /// Keys a second.
    pub fn keys_per_s(&self) -> f64 {
        self.keys as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Stores so many small values, says so on standard output, and waits to be killed. The store is never closed.
///
/// # Errors
/// Those of the store; a closed standard output.
pub fn fill_until_killed(path: &Path, keys: u64) -> Result<(), BenchError> {
    let store = NvmeStore::new(path, StorageConfig::default())?;
    for first in (0..keys).step_by(BATCH_KEYS as usize) {
        let numbers = first..keys.min(first + BATCH_KEYS);
        let batch = numbers.fold(WriteBatch::new(), |batch, number| {
            batch.put(
                format!("reopen/{number:016}"),
                number.to_le_bytes().to_vec(),
            )
        });
        store.write_batch(batch)?;
    }
    let mut output = std::io::stdout().lock();
    writeln!(output, "{READY}")?;
    output.flush()?;
    drop(output);
    // Whoever started this kills it, or goes away, which ends its standard input.
    drop(std::io::copy(
        &mut std::io::stdin().lock(),
        &mut std::io::sink(),
    ));
    std::mem::forget(store);
    Ok(())
}

/// Opens a store that a process left which was killed, then the same store after it was closed.
///
/// `child` has to call [`fill_until_killed`] with `path`.
///
/// # Errors
/// Those of the store and of the process; keys that are missing.
pub fn reopen(
    mut child: Command,
    path: &Path,
    keys: u64,
) -> Result<(Reopened, Reopened), BenchError> {
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let ready = match child.stdout.take() {
        Some(output) => BufReader::new(output)
            .lines()
            .any(|line| line.is_ok_and(|line| line == READY)),
        None => false,
    };
    child.kill()?;
    child.wait()?;
    if !ready {
        return Err("the process that stores values ended early".into());
    }
    let killed = open(path, keys)?;
    let closed = open(path, keys)?;
    Ok((killed, closed))
}

/// Opens the store, and closes it again.
fn open(path: &Path, keys: u64) -> Result<Reopened, BenchError> {
    let started = Instant::now();
    let store = NvmeStore::new(path, StorageConfig::default().with_create(false))?;
    let elapsed = started.elapsed();
    let last = store.read_direct(format!("reopen/{:016}", keys.saturating_sub(1)))?;
    if store.len() != keys || last.as_deref() != Some(&(keys - 1).to_le_bytes()[..]) {
        return Err(format!("{} of {keys} keys are there again", store.len()).into());
    }
    let reopened = Reopened {
        keys,
        elapsed,
        batches_replayed: store.recovery_report().batches_replayed,
    };
    store.close()?;
    Ok(reopened)
}
