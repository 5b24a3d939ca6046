//! `stepwell bench weights`: models in and out of a store, beside what device, hash and codec allow.

mod model;
mod outcome;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::time::{ClockId, clock_gettime};
use weightstore::{CHUNK_LEN_BYTES, ImportOptions, NativeConfig, NativeStore, WeightStore};

use crate::doctor::check_room;
use crate::error::CliError;
use crate::interruption::ScratchDirectory;
use crate::quantity::parse_bytes;
use crate::report::Report;
use crate::target::Target;
use crate::tour::Floor;
use crate::weights::{ModelFiles, restore};
use model::Cores;
use outcome::{Outcome, Round, Turn};

/// Bytes of the model with `--quick`.
const QUICK_BYTES: u64 = 32 << 20;

/// Fewer bytes have no two chunks to measure the cores with.
const MODEL_BYTES_MIN: u64 = 2 * CHUNK_LEN_BYTES as u64;

/// What `bench weights` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where the measurement works, in a directory of its own that it removes.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Bytes of the model that is made, of bfloat16; 2 MiB at least.
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = parse_bytes)]
    model_bytes: u64,
    /// Rounds in which the floors and the store take turns.
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Do a fraction of the work, to see that it works; no figure to rely on.
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    if arguments.model_bytes < MODEL_BYTES_MIN {
        let reason = format!("--model-bytes has to be {MODEL_BYTES_MIN} at least");
        return Err(CliError::Usage { reason });
    }
    let dir = &arguments.dir;
    let refused = |source| CliError::file("look at", dir, source);
    let dir = dir.canonicalize().map_err(refused)?;
    let model_bytes = match arguments.quick {
        true => arguments.model_bytes.min(QUICK_BYTES),
        false => arguments.model_bytes,
    };
    check_room(
        &dir,
        needed_bytes(model_bytes),
        "the measurement",
        " or pass --quick",
    )?;
    let scratch = ScratchDirectory::announce(report, &dir, ".stepwell-bench-")?;
    let measured = Measurement {
        report,
        folder: scratch.path(),
    }
    .take(model_bytes, arguments.rounds);
    let removed = scratch.remove();
    let outcome = Outcome::new(&dir, model_bytes, arguments.quick, &measured?);
    report.answer(&outcome, || outcome.text())?;
    removed
}

/// Two models, a store of both, one copy at a time, and the floor's file.
fn needed_bytes(model_bytes: u64) -> u64 {
    model_bytes.saturating_mul(5).saturating_add(1 << 30)
}

/// A measurement under way.
struct Measurement<'a> {
    report: &'a Report,
    folder: &'a Path,
}

/// Elapsed time and processor time of all threads.
struct Clock {
    started: Instant,
    cpu: Duration,
}

fn cpu_time(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

impl Clock {
    fn start() -> Self {
        Self {
            started: Instant::now(),
            cpu: cpu_time(ClockId::ProcessCPUTime),
        }
    }

    fn stop(self, stored_bytes: u64) -> Turn {
        Turn {
            elapsed_s: self.started.elapsed().as_secs_f64(),
            cpu_s: cpu_time(ClockId::ProcessCPUTime)
                .saturating_sub(self.cpu)
                .as_secs_f64(),
            stored_bytes,
        }
    }
}

impl Measurement<'_> {
    fn take(&self, model_bytes: u64, rounds: u32) -> Result<Vec<Round>, CliError> {
        let base = self.folder.join("base.safetensors");
        let tune = self.folder.join("tune.safetensors");
        self.report.note("making a model and a fine-tune of it");
        model::make(&base, model_bytes)?;
        crate::tour::train_on(&base, &tune)?;
        // The first round warms up and is not counted.
        let mut measured = Vec::new();
        for round in 0..=rounds {
            self.report.note(&format!("round {round} of {rounds}"));
            let taken = self.round(&base, &tune, model_bytes)?;
            if round > 0 {
                measured.push(taken);
            }
        }
        Ok(measured)
    }

    fn round(&self, base: &Path, tune: &Path, model_bytes: u64) -> Result<Round, CliError> {
        let floor = Floor::measure(self.folder, model_bytes)?;
        let cores = Cores::measure(base, tune)?;
        let folder = self.folder.join("store");
        let store = NativeStore::open(&folder, NativeConfig::default())?;
        let add_base = add(&store, "base", base)?;
        let add_tune = add(&store, "tune", tune)?;
        store.close()?;
        let store = NativeStore::open(&folder, NativeConfig::default().with_create(false))?;
        let get_base = self.get(&store, "base", add_base.stored_bytes)?;
        let read_bytes = add_base.stored_bytes + add_tune.stored_bytes;
        let get_tune = self.get(&store, "tune", read_bytes)?;
        let clock = Clock::start();
        let verified = store.verify(None)?;
        let verify = clock.stop(read_bytes);
        if let Some(damage) = verified.corrupt.first() {
            return Err(CliError::Mismatch {
                what: format!("{} {} is damaged", damage.kind.name(), damage.name),
            });
        }
        store.close()?;
        drop(store);
        std::fs::remove_dir_all(&folder)
            .map_err(|source| CliError::file("remove", &folder, source))?;
        Ok(Round {
            floor,
            cores,
            add_base,
            add_tune,
            get_base,
            get_tune,
            verify,
        })
    }

    fn get(&self, store: &NativeStore, name: &str, read_bytes: u64) -> Result<Turn, CliError> {
        let path = self.folder.join("copy.safetensors");
        let clock = Clock::start();
        let target = Target::open(&path, true)?;
        restore(&Report::new(true), store, name, None, target)?;
        let turn = clock.stop(read_bytes);
        std::fs::remove_file(&path).map_err(|source| CliError::file("remove", &path, source))?;
        Ok(turn)
    }
}

fn add(store: &NativeStore, name: &str, path: &Path) -> Result<Turn, CliError> {
    let files = ModelFiles::open(path)?;
    let clock = Clock::start();
    let added = files.add(store, name, ImportOptions::default())?;
    Ok(clock.stop(added.stored_bytes))
}
