//! How long a small durable write takes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use crate::error::CliError;

const ROUNDS: u64 = 20;
const BLOCK_BYTES: usize = 4096;

/// Median of writing and syncing 4 KiB, in microseconds.
pub(super) fn median_us(folder: &Path) -> Result<f64, CliError> {
    measure(folder).map_err(|source| CliError::file("measure syncs in", folder, source))
}

fn measure(folder: &Path) -> io::Result<f64> {
    let file = File::create(folder.join("sync"))?;
    // Space is there before the first round, as it is for a store.
    file.write_all_at(&vec![0; BLOCK_BYTES * ROUNDS as usize], 0)?;
    file.sync_all()?;
    let mut rounds_us = Vec::with_capacity(ROUNDS as usize);
    for round in 0..ROUNDS {
        let block = [round as u8 + 1; BLOCK_BYTES];
        let started = Instant::now();
        file.write_all_at(&block, round * BLOCK_BYTES as u64)?;
        file.sync_data()?;
        rounds_us.push(started.elapsed().as_secs_f64() * 1e6);
    }
    rounds_us.sort_by(f64::total_cmp);
    Ok(rounds_us.get(rounds_us.len() / 2).copied().unwrap_or(0.0))
}
