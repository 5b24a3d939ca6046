//! `stepwell tour`: the main job on whatever is there, beside this machine's floor.

mod cache;
mod conversations;
mod floor;
mod model;
mod outcome;
mod step;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use weightstore::{Codec, ImportOptions, NativeConfig, NativeStore, WeightStore};

use crate::doctor::check_room;
use crate::error::CliError;
use crate::interruption::ScratchDirectory;
use crate::quantity::bytes;
use crate::report::Report;
use crate::target::Target;
use crate::weights::{ModelFiles, restore};
use cache::{Cache, Requests};
pub(crate) use floor::Floor;
pub(crate) use model::{fill, shape as shape_weights, train_on};
use outcome::{Deduplication, FineTune, Outcome};
use step::{Step, Work};

/// Models of the tour by name.
const FIRST: &str = "first";
const SECOND: &str = "second";
const TUNE: &str = "tune";

/// What `tour` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where the tour works, in a directory of its own that it removes.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// A safetensors file; without it the tour makes one of 256 MiB.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// A trace for the KV cache, as `kv replay` takes it, of which the first requests are used; without it the tour
    /// makes one.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// How content is stored: auto, none, gzip, gzip:LEVEL (1 to 9) or lz4.
    #[arg(long, default_value = "auto")]
    codec: Codec,
}

pub(crate) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let dir = &arguments.dir;
    let refused = |source| CliError::file("look at", dir, source);
    let dir = dir.canonicalize().map_err(refused)?;
    let input_bytes = match &arguments.model {
        Some(path) => {
            let metadata = std::fs::metadata(path);
            metadata
                .map_err(|source| CliError::file("open", path, source))?
                .len()
        }
        None => model::SYNTHETIC_BYTES,
    };
    check_room(
        &dir,
        needed_bytes(input_bytes),
        "the tour",
        " or a smaller --model",
    )?;
    let requests = Requests::take(arguments.trace.as_deref())?;
    let scratch = ScratchDirectory::announce(report, &dir, ".stepwell-tour-")?;
    let outcome = Tour {
        report,
        arguments,
        folder: scratch.path(),
    }
    .walk(requests);
    let removed = scratch.remove();
    let outcome = outcome?;
    report.answer(&outcome, || outcome.text())?;
    removed?;
    outcome.check()
}

/// Three versions, the store of all, as many copies out of it, and the floor's file at another time.
fn needed_bytes(input_bytes: u64) -> u64 {
    input_bytes.saturating_mul(9).saturating_add(1 << 30)
}

/// One tour under way.
struct Tour<'a> {
    report: &'a Report,
    arguments: &'a Arguments,
    folder: &'a Path,
}

impl Tour<'_> {
    fn walk(&self, requests: Requests) -> Result<Outcome, CliError> {
        let first = match &self.arguments.model {
            Some(path) => path.clone(),
            None => {
                let path = self.folder.join("first.safetensors");
                self.report.note("making a model");
                model::make(&path)?;
                path
            }
        };
        let second = self.folder.join("second.safetensors");
        let changed = model::change_one_layer(&first, &second)?;
        let tune = self.folder.join("tune.safetensors");
        model::train_on(&first, &tune)?;
        let len =
            std::fs::metadata(&first).map_err(|source| CliError::file("open", &first, source));
        let len_bytes = len?.len();
        self.report
            .note(&format!("measuring this machine with {}", bytes(len_bytes)));
        let floor = Floor::measure(self.folder, len_bytes)?;

        let store_folder = self.folder.join("store");
        let config = NativeConfig::default().with_codec(self.arguments.codec);
        let store = NativeStore::open(&store_folder, config)?;
        let mut steps = Vec::new();
        let (step, stored) = self.add(&store, FIRST, &first, "store", &floor)?;
        steps.push(step);
        let (step, shared) = self.add(&store, SECOND, &second, "store 2nd", &floor)?;
        steps.push(step);
        let (step, tuned) = self.add(&store, TUNE, &tune, "store tune", &floor)?;
        steps.push(step);
        steps.push(self.verify(&store, &floor)?);
        let (restored, differing) = self.restore_all(&store, [&first, &second, &tune], &floor)?;
        steps.extend(restored);
        let stats = store.stats()?;
        store.close()?;
        let progress = self.report.progress("kv replay");
        let folder = self.folder.join("kv");
        let (kv_cache, step) = Cache::replay(&folder, requests, &floor, &progress)?;
        steps.push(step);
        drop(progress);
        Ok(Outcome {
            dir: self.folder.display().to_string(),
            model_bytes: len_bytes,
            sha256: model::sha256(&first)?,
            deduplication: Deduplication {
                changed_tensor: changed,
                tensors: shared.tensors,
                new_tensors: shared.new_tensors,
                deduplicated_tensors: shared.deduplicated_tensors,
                first_stored_bytes: stored.stored_bytes,
                second_stored_bytes: shared.stored_bytes,
            },
            fine_tune: FineTune {
                tensors: tuned.tensors,
                delta_tensors: tuned.delta_tensors,
                stored_bytes: tuned.stored_bytes,
                naive_bytes: stats.logical_bytes,
                family_stored_bytes: stats.stored_bytes,
            },
            kv_cache,
            floor,
            steps,
            identical: differing.is_empty(),
            differing,
        })
    }

    fn add(
        &self,
        store: &NativeStore,
        name: &str,
        path: &Path,
        what: &'static str,
        floor: &Floor,
    ) -> Result<(Step, weightstore::ImportReport), CliError> {
        let files = ModelFiles::open(path)?;
        let progress = self.report.progress(what);
        let on_progress = |done| progress.set(done);
        let options = ImportOptions::default().with_progress(&on_progress);
        let started = Instant::now();
        let added = files.add(store, name, options)?;
        let elapsed_s = started.elapsed().as_secs_f64();
        let work = Work {
            bytes: added.logical_bytes,
            hashed_bytes: added.logical_bytes,
            read_bytes: 0,
            written_bytes: added.stored_bytes,
        };
        Ok((Step::new(what, work, elapsed_s, floor), added))
    }

    fn verify(&self, store: &NativeStore, floor: &Floor) -> Result<Step, CliError> {
        let progress = self.report.progress("verify");
        let started = Instant::now();
        let verified = store.verify(Some(&|done| progress.set(done)))?;
        let elapsed_s = started.elapsed().as_secs_f64();
        if let Some(damage) = verified.corrupt.first() {
            return Err(CliError::Mismatch {
                what: format!("{} {} is damaged", damage.kind.name(), damage.name),
            });
        }
        let work = Work {
            bytes: verified.checked_bytes,
            hashed_bytes: verified.checked_bytes,
            read_bytes: store.stats()?.stored_bytes,
            written_bytes: 0,
        };
        Ok(Step::new("verify", work, elapsed_s, floor))
    }

    /// Restores all versions, and says which of them differ from the originals.
    fn restore_all(
        &self,
        store: &NativeStore,
        [first, second, tune]: [&Path; 3],
        floor: &Floor,
    ) -> Result<(Vec<Step>, Vec<String>), CliError> {
        let mut steps = Vec::new();
        let mut differing = Vec::new();
        for (name, original, what) in [
            (FIRST, first, "restore"),
            (SECOND, second, "restore 2nd"),
            (TUNE, tune, "restore tune"),
        ] {
            let copy = self.folder.join(format!("{name}.out"));
            steps.push(self.restore(store, name, &copy, what, floor)?);
            let (before, after) = (model::sha256(original)?, model::sha256(&copy)?);
            if before != after {
                differing.push(format!("{name} had the SHA-256 {before} and has {after}"));
            }
        }
        Ok((steps, differing))
    }

    fn restore(
        &self,
        store: &NativeStore,
        name: &str,
        copy: &Path,
        what: &'static str,
        floor: &Floor,
    ) -> Result<Step, CliError> {
        let started = Instant::now();
        let target = Target::open(copy, false)?;
        let restored = restore(self.report, store, name, None, target)?;
        let elapsed_s = started.elapsed().as_secs_f64();
        let work = Work {
            bytes: restored.len_bytes,
            hashed_bytes: restored.len_bytes,
            read_bytes: stored_bytes(store, name)?,
            written_bytes: restored.len_bytes,
        };
        Ok(Step::new(what, work, elapsed_s, floor))
    }
}

/// Bytes that the distinct tensors of a model take in the store.
fn stored_bytes(store: &NativeStore, name: &str) -> Result<u64, CliError> {
    let model = store.model(name)?;
    let tensors = model.files.iter().flat_map(|file| &file.tensors);
    let hashes: BTreeSet<_> = tensors.map(|tensor| tensor.hash).collect();
    let mut total_bytes = 0;
    for hash in hashes {
        total_bytes += store.stored_bytes_of(&hash)?.unwrap_or(0);
    }
    Ok(total_bytes)
}
