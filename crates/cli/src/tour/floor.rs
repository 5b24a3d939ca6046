//! What the machine itself can do: its device without a store, its cores without anything.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use core_view::BufferMut;
use rustix::fs::{FallocateFlags, OFlags};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::CliError;
use crate::quantity::rate;

/// Bytes of one operation.
const BLOCK_BYTES: u64 = 4 << 20;
/// Operations in flight.
const DEPTH: u64 = 4;
/// A device is measured with at least and at most so many bytes.
const LEN_BYTES_MIN: u64 = 64 << 20;
const LEN_BYTES_MAX: u64 = 1 << 30;
/// Bytes that are hashed to measure hashing.
const HASHED_BYTES: usize = 128 << 20;

/// Speeds of the machine in bytes a second.
#[derive(Debug, Serialize)]
pub(crate) struct Floor {
    /// "direct", or "buffered" where the file system refuses O_DIRECT.
    pub(crate) mode: &'static str,
    /// Sequential write and one sync.
    pub(crate) write_bytes_per_s: f64,
    /// Sequential read.
    pub(crate) read_bytes_per_s: f64,
    /// SHA-256 on one core.
    pub(crate) sha256_bytes_per_s: f64,
    pub(crate) cores: usize,
}

impl Floor {
    /// Writes, syncs and reads a file of the model's length in `folder`, past the page cache, and hashes.
    pub(crate) fn measure(folder: &Path, len_bytes: u64) -> Result<Self, CliError> {
        let path = folder.join("floor");
        let failed = |source| CliError::file("measure the device with", &path, source);
        let len_bytes = len_bytes
            .clamp(LEN_BYTES_MIN, LEN_BYTES_MAX)
            .next_multiple_of(BLOCK_BYTES);
        let (file, mode) = open(&path).map_err(failed)?;
        reserve(&file, len_bytes).map_err(failed)?;
        let mut blocks = Vec::new();
        for _ in 0..DEPTH {
            blocks.push(block()?);
        }

        let started = Instant::now();
        in_flight(&mut blocks, len_bytes, |block, at| {
            file.write_all_at(block, at)
        })
        .and_then(|()| file.sync_data())
        .map_err(failed)?;
        let write_s = started.elapsed().as_secs_f64();
        let started = Instant::now();
        in_flight(&mut blocks, len_bytes, |block, at| {
            file.read_exact_at(block, at)
        })
        .map_err(failed)?;
        let read_s = started.elapsed().as_secs_f64();
        std::fs::remove_file(&path).map_err(failed)?;
        Ok(Self {
            mode,
            write_bytes_per_s: rate(len_bytes, write_s),
            read_bytes_per_s: rate(len_bytes, read_s),
            sha256_bytes_per_s: hash_speed(blocks.first().map_or(&[], |block| block)),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        })
    }
}

fn open(path: &Path) -> io::Result<(File, &'static str)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    let direct = OFlags::DIRECT.bits().cast_signed();
    match options.clone().custom_flags(direct).open(path) {
        Ok(file) => Ok((file, "direct")),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            Ok((options.open(path)?, "buffered"))
        }
        Err(error) => Err(error),
    }
}

/// Takes the space beforehand, as a store does for its segments.
fn reserve(file: &File, len_bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len_bytes) {
        // Not every file system can; the writes take it then.
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        reserved => Ok(reserved?),
    }
}

/// Aligned bytes that no device can shrink.
fn block() -> Result<BufferMut, CliError> {
    let requested_bytes = BLOCK_BYTES as usize;
    let mut block = BufferMut::zeroed(requested_bytes, 4096)
        .map_err(|_| CliError::Memory { requested_bytes })?;
    super::model::fill(1, &mut block);
    Ok(block)
}

/// Does `operation` at each block of the file, with as many threads as there are blocks.
fn in_flight(
    blocks: &mut [BufferMut],
    len_bytes: u64,
    operation: impl Fn(&mut [u8], u64) -> io::Result<()> + Sync,
) -> io::Result<()> {
    let stride = BLOCK_BYTES * blocks.len() as u64;
    std::thread::scope(|scope| {
        let operation = &operation;
        let threads: Vec<_> = (0..)
            .zip(blocks)
            .map(|(index, block)| {
                std::thread::Builder::new().spawn_scoped(scope, move || {
                    let mut at = index * BLOCK_BYTES;
                    while at < len_bytes {
                        operation(block, at)?;
                        at += stride;
                    }
                    Ok(())
                })
            })
            .collect::<io::Result<_>>()?;
        threads.into_iter().try_for_each(|thread| {
            let panicked = |_| Err(io::Error::other("a measuring thread panicked"));
            thread.join().unwrap_or_else(panicked)
        })
    })
}

fn hash_speed(block: &[u8]) -> f64 {
    let started = Instant::now();
    let mut hasher = Sha256::new();
    let mut hashed = 0;
    while hashed < HASHED_BYTES && !block.is_empty() {
        hasher.update(block);
        hashed += block.len();
    }
    std::hint::black_box(hasher.finalize());
    rate(hashed as u64, started.elapsed().as_secs_f64())
}
