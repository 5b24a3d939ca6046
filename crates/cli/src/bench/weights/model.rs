//! The model of the measurement, and what one core does with its bytes.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Barrier;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use core_view::DType;
use core_view::safetensors::HeaderBuilder;
use rustix::time::ClockId;
use serde::Serialize;
use weightstore::{CHUNK_LEN_BYTES, ChunkEncoding, Codec, Difference, encode_delta, leaf_digest};

use super::cpu_time;
use crate::error::CliError;
use crate::quantity::rate;
use crate::tour::{fill, shape_weights};

/// Rows and columns of most tensors: 32 MiB.
const ROWS: u64 = 4096;
const COLUMNS: u64 = 4096;
/// Chunks that each core's work is measured with.
const CHUNKS: u64 = 24;

/// Writes a model of bfloat16 in tensors of 32 MiB and of 8 KiB.
pub(super) fn make(path: &Path, len_bytes: u64) -> Result<(), CliError> {
    let failed = |source| CliError::file("write the model", path, source);
    let mut header = HeaderBuilder::new().metadata("format", "pt");
    let mut left = len_bytes / 2;
    let mut layer = 0;
    while left > 0 {
        let rows = ROWS.min(left.div_ceil(COLUMNS));
        header = header
            .tensor(
                format!("layers.{layer}.weight"),
                DType::BF16,
                &[rows, COLUMNS],
            )
            .tensor(format!("layers.{layer}.norm"), DType::BF16, &[COLUMNS]);
        left = left.saturating_sub(rows * COLUMNS);
        layer += 1;
    }
    let header = header
        .build()
        .map_err(|error| failed(io::Error::other(error)))?;
    let mut file = File::create(path).map_err(failed)?;
    file.write_all(header.raw()).map_err(failed)?;
    let mut block = vec![0; CHUNK_LEN_BYTES];
    let mut left = header.data_len();
    let mut seed = 0;
    while left > 0 {
        let len = left.min(CHUNK_LEN_BYTES as u64);
        let (part, _) = block.split_at_mut(len as usize);
        seed += 1;
        fill(seed, part);
        shape_weights(DType::BF16, part);
        file.write_all(part).map_err(failed)?;
        left -= len;
    }
    file.sync_all().map_err(failed)
}

/// What one core does in a second of its own time while all others do the same, in bytes before encoding. Alone it would
/// be faster than it can be beside the others, with which it shares memory. Elapsed time would say how busy the machine is: on
/// a busy one a store of several threads has a larger share of it than a measurement of one thread for each core.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Cores {
    pub(super) encode_bytes_per_s: f64,
    pub(super) decode_bytes_per_s: f64,
    /// The difference of a fine-tune from its base.
    pub(super) difference_bytes_per_s: f64,
    pub(super) undo_difference_bytes_per_s: f64,
    pub(super) leaf_bytes_per_s: f64,
}

impl Cores {
    pub(super) fn measure(base: &Path, tune: &Path) -> Result<Self, CliError> {
        let (base, tune) = (chunks(base)?, chunks(tune)?);
        let count = thread::available_parallelism().map_or(1, usize::from);
        let gate = Barrier::new(count);
        let lost = || CliError::Mismatch {
            what: "a measuring thread panicked".to_owned(),
        };
        let cores = thread::scope(|scope| {
            // Nobody waits at the gate before all are there.
            let (begin, began): (Vec<_>, Vec<_>) = (0..count).map(|_| sync_channel(1)).unzip();
            let one = |began: Receiver<()>| {
                began.recv().map_err(|_| lost())?;
                Core::new(&base, &tune, &gate).measure()
            };
            let threads: Vec<_> = began
                .into_iter()
                .map(|began| thread::Builder::new().spawn_scoped(scope, move || one(began)))
                .collect::<io::Result<_>>()
                .map_err(|source| {
                    CliError::file("start a thread for", "the measurement", source)
                })?;
            begin
                .iter()
                .try_for_each(|begin| begin.send(()).map_err(|_| lost()))?;
            let ended = threads.into_iter().map(|thread| thread.join());
            let cores = ended.map(|core| core.unwrap_or_else(|_| Err(lost())));
            cores.collect::<Result<Vec<Self>, CliError>>()
        })?;
        let mean = |of: fn(&Self) -> f64| cores.iter().map(of).sum::<f64>() / count as f64;
        Ok(Self {
            encode_bytes_per_s: mean(|core| core.encode_bytes_per_s),
            decode_bytes_per_s: mean(|core| core.decode_bytes_per_s),
            difference_bytes_per_s: mean(|core| core.difference_bytes_per_s),
            undo_difference_bytes_per_s: mean(|core| core.undo_difference_bytes_per_s),
            leaf_bytes_per_s: mean(|core| core.leaf_bytes_per_s),
        })
    }
}

/// The measurement on one core.
struct Core<'a> {
    base: &'a [Vec<u8>],
    tune: &'a [Vec<u8>],
    /// Where all cores meet before each piece of work.
    gate: &'a Barrier,
}

impl<'a> Core<'a> {
    fn new(base: &'a [Vec<u8>], tune: &'a [Vec<u8>], gate: &'a Barrier) -> Self {
        Self { base, tune, gate }
    }

    fn timed(&self, work: impl FnOnce()) -> f64 {
        let bytes = self.base.len() as u64 * CHUNK_LEN_BYTES as u64;
        self.gate.wait();
        let started = cpu_time(ClockId::ThreadCPUTime);
        work();
        let taken = cpu_time(ClockId::ThreadCPUTime).saturating_sub(started);
        rate(bytes, taken.as_secs_f64())
    }

    fn measure(&self) -> Result<Cores, CliError> {
        let Self { base, tune, .. } = *self;
        // What stays is made before the clock runs: memory that is new costs as much as a fifth of the encoding, and a
        // store has it once.
        let chunks = base.iter();
        let encode = |chunk: &Vec<u8>| ChunkEncoding::encode(Codec::Auto, DType::BF16, chunk);
        let encoded: Vec<Option<(ChunkEncoding, Vec<u8>)>> = chunks.map(encode).collect();
        let encode_bytes_per_s = self.timed(|| {
            for chunk in base {
                let keep = |bytes: &[u8]| std::hint::black_box(bytes.len());
                ChunkEncoding::encode_with(Codec::Auto, DType::BF16, chunk, keep);
            }
        });
        let mut target = vec![0; CHUNK_LEN_BYTES];
        let mut outcome = Ok(());
        let decode_bytes_per_s = self.timed(|| {
            for (encoding, bytes) in encoded.iter().flatten() {
                outcome = outcome.and(encoding.decode(bytes, &mut target).map_err(|_| ()));
            }
        });
        let subtract =
            |(base, tune): (&Vec<u8>, &Vec<u8>)| encode_delta(base, tune, DType::BF16).ok();
        let differences: Vec<_> = base.iter().zip(tune).map(subtract).collect();
        let difference_bytes_per_s = self.timed(|| {
            for pair in base.iter().zip(tune) {
                std::hint::black_box(subtract(pair));
            }
        });
        let undo_difference_bytes_per_s = self.timed(|| {
            for (difference, base) in differences.iter().zip(base) {
                let parsed = difference.as_ref().map(|bytes| Difference::parse(bytes));
                if let Some(Ok(parsed)) = parsed {
                    let undone = parsed.decode_range(base, 0, &mut target);
                    outcome = outcome.and(undone.map_err(|_| ()));
                }
            }
        });
        let leaf_bytes_per_s = self.timed(|| {
            for chunk in base {
                std::hint::black_box(leaf_digest(chunk));
            }
        });
        outcome.map_err(|()| CliError::Mismatch {
            what: "a chunk does not decode".to_owned(),
        })?;
        Ok(Cores {
            encode_bytes_per_s,
            decode_bytes_per_s,
            difference_bytes_per_s,
            undo_difference_bytes_per_s,
            leaf_bytes_per_s,
        })
    }
}

/// Some chunks from all over a model.
fn chunks(path: &Path) -> Result<Vec<Vec<u8>>, CliError> {
    let failed = |source| CliError::file("read", path, source);
    let file = File::open(path).map_err(failed)?;
    let len_bytes = file.metadata().map_err(failed)?.len();
    let step = (len_bytes / CHUNKS).max(CHUNK_LEN_BYTES as u64) / 4096 * 4096;
    let mut chunks = Vec::new();
    let mut at = 0;
    while at + CHUNK_LEN_BYTES as u64 <= len_bytes {
        let mut chunk = vec![0; CHUNK_LEN_BYTES];
        file.read_exact_at(&mut chunk, at).map_err(failed)?;
        chunks.push(chunk);
        at += step;
    }
    Ok(chunks)
}
