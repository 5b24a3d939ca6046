//! The process that is killed: adds models, and removes some, until then.

use std::io::Write;
use std::path::Path;
use std::sync::mpsc::sync_channel;

use tier_nvme::StorageConfig;
use weightstore::{GcOptions, ImportOptions, NativeConfig, NativeStore, SourceFile};

use crate::models::{Random, file, name, number};
use crate::{Work, stage};

/// Segments so small that they are changed often, and checkpoints with them.
const SEGMENT_BYTES: u64 = 512 << 10;
/// Models that are there at most.
const MODELS_MAX: usize = 24;

/// How both processes open the store.
pub(crate) fn config(storage: StorageConfig) -> NativeConfig {
    NativeConfig::default()
        .with_batch_bytes(NativeConfig::BATCH_BYTES_MIN)
        .with_threads(2)
        .with_storage(storage.with_segment_bytes(SEGMENT_BYTES))
}

pub(crate) fn run(folder: &Path, work: Work) {
    let observer = stage::observer(&folder.join("stage"));
    let storage = StorageConfig::default().with_observer(observer);
    let store = NativeStore::open(folder.join("store"), config(storage)).unwrap();
    let first = std::fs::read_to_string(folder.join("next")).unwrap();
    let first: u64 = first.parse().unwrap();
    let mut random = Random::new(first);
    // Made ahead, so that the process spends its time with the store.
    let (sender, made) = sync_channel(8);
    std::thread::spawn(move || (first..).all(|next| sender.send((next, file(next))).is_ok()));
    tell("ready");
    for model in store.models().unwrap() {
        tell(&format!("found {}", number(&model)));
    }
    tell("opened 0");
    for (next, bytes) in made {
        let models = store.models().unwrap();
        let (most, share) = match work {
            Work::Adding => (MODELS_MAX, 6),
            Work::Collecting => (MODELS_MAX / 3, 2),
        };
        if models.len() >= most || (!models.is_empty() && random.below(share) == 0) {
            let index = random.below(models.len() as u64) as usize;
            let victim = models.get(index).unwrap();
            let number = number(victim);
            tell(&format!("removing {number}"));
            store.remove_model(victim).unwrap();
            tell(&format!("removed {number}"));
        }
        if work == Work::Collecting || random.below(20) == 0 {
            tell(&format!("collecting {next}"));
            let options = GcOptions::default().with_rebase(work == Work::Collecting);
            store.gc(options).unwrap();
            tell(&format!("collected {next}"));
        }
        let source = SourceFile {
            name: "model.safetensors",
            source: &bytes,
        };
        tell(&format!("adding {next}"));
        let options = ImportOptions::default();
        store.add_model(&name(next), source, &options).unwrap();
        tell(&format!("added {next}"));
    }
}

/// Tells the other process by the pipe; a short line goes through it whole or not at all.
pub(crate) fn tell(what: &str) {
    let line = format!("\n@{what}\n");
    let mut pipe = std::io::stdout().lock();
    pipe.write_all(line.as_bytes()).unwrap();
    pipe.flush().unwrap();
}
