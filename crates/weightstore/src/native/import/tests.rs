//! Imports on a machine that starts no more threads.

use core_view::DType;
use core_view::safetensors::HeaderBuilder;
use tier_nvme::StorageConfig;
use tier_nvme::sim::SimVolume;

use crate::threads::scarcity::with_threads;
use crate::{
    ExportOptions, ImportOptions, NativeConfig, NativeStore, SourceFile, WeightError, WeightStore,
};

/// A store that would like to have three threads for an import, and two for its commits.
fn store() -> NativeStore {
    let storage = StorageConfig::default().with_segment_bytes(4 << 20);
    let config = NativeConfig::default()
        .with_storage(storage)
        .with_batch_bytes(NativeConfig::BATCH_BYTES_MIN)
        .with_threads(3);
    NativeStore::on_volume(SimVolume::new(1).handle(), config).unwrap()
}

/// A model of more than one batch.
fn model() -> Vec<u8> {
    noise(std::iter::repeat_n(900_000, 5))
}

/// Tensors of so many bytes, of which no two are alike.
fn noise(lens: impl Iterator<Item = u64>) -> Vec<u8> {
    let header = lens
        .enumerate()
        .fold(HeaderBuilder::new(), |header, (index, len)| {
            header.tensor(format!("t{index}"), DType::U8, &[len])
        });
    let header = header.build().unwrap();
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    });
    let data = noise.take(header.data_len() as usize);
    header.raw().iter().copied().chain(data).collect()
}

fn add(store: &NativeStore, name: &str, file: &[u8]) -> Result<(), WeightError> {
    let source = SourceFile {
        name: "m.safetensors",
        source: &file,
    };
    store.add_model(name, source, &ImportOptions::default())?;
    Ok(())
}

fn get(store: &NativeStore, name: &str) -> Vec<u8> {
    let mut file = Vec::new();
    store
        .export_model(name, &mut file, &ExportOptions::default())
        .unwrap();
    file
}

#[test]
fn headers_that_hold_their_tensors_fit_the_batches_that_they_are_committed_in() {
    let storage = StorageConfig::default().with_segment_bytes(4 << 20);
    for threads in [1, 2] {
        let config = NativeConfig::default()
            .with_storage(storage.clone())
            .with_threads(threads);
        let store = NativeStore::on_volume(SimVolume::new(1).handle(), config).unwrap();
        // Each batch of content has headers with many tensors of some kilobytes in them.
        let group = || std::iter::once(1_000_000).chain(std::iter::repeat_n(3584, 30));
        let file = noise((0..40).flat_map(|_| group()));
        add(&store, "m", &file).unwrap();
        assert!(get(&store, "m") == file);
        let alone = noise(std::iter::repeat_n(3583, 2000));
        add(&store, "alone", &alone).unwrap();
        assert!(get(&store, "alone") == alone);
    }
}

#[test]
fn an_import_does_with_the_threads_that_there_are() {
    let file = model();
    // One for reading, three for reading, one and two for commits, and those that look for bases.
    for threads in 1..8 {
        let store = store();
        with_threads(threads, || add(&store, "m", &file)).unwrap();
        assert!(get(&store, "m") == file, "{threads}");
        let report = store.verify(None).unwrap();
        assert!(report.is_whole() && report.unreachable == 0, "{report:?}");
    }
}

#[test]
fn an_import_without_a_thread_fails_and_leaves_nothing() {
    let (store, file) = (store(), model());
    let refused = with_threads(0, || add(&store, "m", &file));
    assert!(
        matches!(refused, Err(WeightError::NoThreads { .. })),
        "{refused:?}"
    );
    assert!(store.models().unwrap().is_empty());
    assert_eq!(store.stats().unwrap().tensors, 0);
    add(&store, "m", &file).unwrap();
    assert!(get(&store, "m") == file);
}

#[test]
fn what_is_stored_is_read_and_verified_without_threads() {
    let (store, file) = (store(), model());
    add(&store, "m", &file).unwrap();
    with_threads(0, || {
        assert!(get(&store, "m") == file);
        assert!(store.verify(None).unwrap().is_whole());
        let loaded = store.load_tensor("m", "t3").unwrap();
        assert!(
            file.ends_with(
                &[
                    loaded.bytes(),
                    store.load_tensor("m", "t4").unwrap().bytes()
                ]
                .concat()
            )
        );
        store.store(&loaded, None).unwrap();
        store.remove_model("m").unwrap();
        assert_eq!(store.stats().unwrap().tensors, 1);
    });
}
