//! Imports that fail while some of their content is durable, some on its way and some not read yet.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tier_nvme::sim::{FaultRates, SimVolume};
use tier_nvme::{CommitStage, StorageConfig};
use weightstore::{
    ByteSource, GcOptions, ImportOptions, NativeConfig, NativeStore, SourceFile, WeightStore,
};

use crate::fixture::{add, add_with, bytes, get, noise, safetensors};

/// On several threads, on one, and on one that takes the steps of several in orders of its own.
fn configs() -> Vec<NativeConfig> {
    let storage = StorageConfig::default().with_segment_bytes(4 << 20);
    let config = NativeConfig::default()
        .with_storage(storage)
        .with_batch_bytes(1 << 20);
    let one = config.clone().with_threads(1);
    let seeded = (0..4).map(|seed| one.clone().with_interleaving_seed(seed));
    [config.with_threads(3), one.clone()]
        .into_iter()
        .chain(seeded)
        .collect()
}

fn model(seed: u64) -> Vec<u8> {
    let names = (0..12).map(|index| (index, format!("t{index}")));
    let tensors = names.map(|(index, name)| bytes(&name, noise(100 * seed + index, 700_000)));
    safetensors(&tensors.collect::<Vec<_>>())
}

/// What failed left nothing behind, took nothing that was there, and is in nobody's way.
fn check(store: &NativeStore, kept: &[u8], failed: &[u8], case: &str) {
    let report = store.verify(None).unwrap();
    assert!(
        report.is_whole() && report.unreachable == 0,
        "{case}: {report:?}"
    );
    assert_eq!(store.models().unwrap(), ["kept"], "{case}");
    assert_eq!(store.stats().unwrap().tensors, 12, "{case}");
    add(store, "again", failed).unwrap();
    assert!(get(store, "again").unwrap() == failed, "{case}");
    assert!(get(store, "kept").unwrap() == kept, "{case}");
    assert!(store.verify(None).unwrap().is_whole(), "{case}");
}

#[test]
fn a_disk_that_is_full_midway_gets_everything_back() {
    let (kept, other) = (model(1), model(2));
    for config in configs() {
        let case = format!("{config:?}");
        let volume = SimVolume::new(1);
        let store = NativeStore::on_volume(volume.handle(), config).unwrap();
        add(&store, "kept", &kept).unwrap();
        let used: u64 = volume.files().iter().map(|(_, len)| len).sum();
        volume.set_capacity(used + (4 << 20));
        assert!(add(&store, "other", &other).is_err(), "{case}");
        volume.set_capacity(u64::MAX);
        check(&store, &kept, &other, &case);
    }
}

/// Ends before the file does.
struct Cut<'a> {
    bytes: &'a [u8],
    end_bytes: u64,
}

impl ByteSource for Cut<'_> {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read_exact_at(&self, offset_bytes: u64, target: &mut [u8]) -> io::Result<()> {
        match offset_bytes + target.len() as u64 > self.end_bytes {
            true => Err(io::Error::other("the cable is out")),
            false => self.bytes.read_exact_at(offset_bytes, target),
        }
    }
}

#[test]
fn a_source_that_fails_midway_leaves_nothing_behind() {
    let (kept, mut tensors) = (model(1), Vec::new());
    // More than is read ahead, so that much of it is on its way when the rest can't be read.
    for index in 0..60 {
        tensors.push(bytes(&format!("t{index}"), noise(200 + index, 1 << 20)));
    }
    let other = safetensors(&tensors);
    for config in configs() {
        let case = format!("{config:?}");
        let store = NativeStore::on_volume(SimVolume::new(1).handle(), config).unwrap();
        add(&store, "kept", &kept).unwrap();
        let cut = Cut {
            bytes: &other,
            end_bytes: 55 << 20,
        };
        let file = SourceFile {
            name: "cut",
            source: &cut,
        };
        assert!(
            store
                .add_model("other", file, &ImportOptions::default())
                .is_err(),
            "{case}"
        );
        check(&store, &kept, &other, &case);
    }
}

/// Reads everything from the device.
fn uncached() -> StorageConfig {
    StorageConfig::default()
        .with_segment_bytes(4 << 20)
        .with_cache_size(0)
}

fn one_thread(storage: StorageConfig) -> NativeConfig {
    NativeConfig::default()
        .with_threads(1)
        .with_storage(storage)
}

/// A store with two models on a device that reads nothing from the given commit on.
fn reading_until(volume: &Arc<SimVolume>, commits: usize) -> NativeStore {
    let store = NativeStore::on_volume(volume.handle(), one_thread(uncached())).unwrap();
    add(&store, "m", &model(1)).unwrap();
    add(&store, "kept", &model(3)).unwrap();
    store.close().unwrap();
    let left = Arc::new(AtomicUsize::new(usize::MAX));
    let observer = {
        let (volume, left) = (Arc::clone(volume), Arc::clone(&left));
        move |stage| {
            if stage == CommitStage::Publish && left.fetch_sub(1, Ordering::SeqCst) == 0 {
                let read_errors = 1000;
                volume.set_faults(FaultRates {
                    read_errors,
                    ..FaultRates::default()
                });
            }
        }
    };
    let storage = uncached().with_observer(observer);
    let store = NativeStore::on_volume(volume.handle(), one_thread(storage)).unwrap();
    left.store(commits, Ordering::SeqCst);
    store
}

/// What gives way to a model can't be taken away, which is not the model's fault.
fn replaced(reads_until: usize) -> (bool, Vec<u8>, Vec<u8>) {
    let new = model(2);
    let volume = Arc::new(SimVolume::new(1));
    let store = reading_until(&volume, reads_until);
    let options = ImportOptions::default().with_replace(true);
    let outcome = add_with(&store, "m", &new, &options);
    volume.set_faults(FaultRates::default());
    (outcome.is_ok(), get(&store, "m").unwrap(), new)
}

#[test]
fn a_model_is_replaced_or_the_import_is_an_error() {
    let mut replacements = 0;
    for reads_until in 0..8 {
        let (is_ok, now, new) = replaced(reads_until);
        assert_eq!(is_ok, now == new, "after {reads_until} commits");
        replacements += usize::from(is_ok);
    }
    assert!((1..8).contains(&replacements), "{replacements}");
}

#[test]
fn a_model_whose_tensors_cannot_be_deleted_is_removed_nevertheless() {
    let volume = Arc::new(SimVolume::new(1));
    let store = reading_until(&volume, 0);
    let removal = store.remove_model("m").unwrap();
    volume.set_faults(FaultRates::default());
    assert!(removal.unreclaimed.is_some(), "{removal:?}");
    assert_eq!((removal.removed_tensors, removal.kept_tensors), (0, 0));
    assert_eq!(store.models().unwrap(), ["kept"]);
    let collected = store.gc(GcOptions::default()).unwrap();
    assert_eq!(collected.removed_tensors, 12);
    assert!(get(&store, "kept").unwrap() == model(3));
    assert!(store.verify(None).unwrap().is_whole());
}
