//! Segments that are made ahead, and files that are used again.

use tier_nvme::sim::{SimVolume, Survival};
use tier_nvme::{NvmeStore, StorageConfig, WriteBatch};

use super::{config, open};

const SEGMENT_BYTES: u64 = 256 << 10;

fn open_small(volume: &SimVolume) -> NvmeStore {
    let config = config()
        .with_segment_bytes(SEGMENT_BYTES)
        .with_background(false);
    NvmeStore::on_volume(volume.handle(), config).unwrap()
}

/// Overwrites one key until files have been used again; the last value.
fn churn(store: &NvmeStore, rounds: u8) -> Vec<u8> {
    for round in 0..rounds {
        store.write_aligned("key", &[round; 50_000]).unwrap();
        if round % 8 == 7 {
            store.checkpoint().unwrap();
        }
    }
    vec![rounds - 1; 50_000]
}

#[test]
fn files_of_dead_segments_are_used_again() {
    let volume = SimVolume::new(1);
    let store = open_small(&volume);
    store.write_aligned("stays", &[1; 9000]).unwrap();
    let last = churn(&store, 100);
    let stats = store.stats();
    assert!(stats.segments_recycled > 5, "{stats:?}");
    assert!(stats.segments_prepared > 5, "{stats:?}");
    assert!(stats.segments_made > stats.segments_recycled);
    assert!(volume.files().len() < 15, "{:?}", volume.files());
    assert!(store.verify().unwrap().is_whole());
    volume.crash_keeping(Survival::Nothing);
    drop(store);
    let store = open_small(&volume);
    assert_eq!(
        store.read_direct("key").unwrap().as_deref(),
        Some(&last[..])
    );
    assert_eq!(
        store.read_direct("stays").unwrap().as_deref(),
        Some(&[1; 9000][..])
    );
    churn(&store, 30);
    let segments = |volume: &SimVolume| {
        let names = volume.files().into_iter().map(|(name, _)| name);
        names.filter(|name| name.starts_with("SEGMENT")).count() as u64
    };
    let stats = store.stats();
    let spares = stats.spare_bytes / SEGMENT_BYTES;
    assert_eq!(segments(&volume), stats.segments + spares);
    // Neither what was ready nor what was kept is left.
    store.close().unwrap();
    let left = segments(&volume);
    assert!(left <= stats.segments);
    assert_eq!(left, open_small(&volume).stats().segments);
}

#[test]
fn what_a_file_held_before_is_never_taken_for_what_it_holds() {
    for seed in 0..40 {
        let volume = SimVolume::new(seed);
        let store = open_small(&volume);
        // Batches of the same sizes at the same places: old headers lie where new ones are expected.
        for round in 0..60_u8 {
            let batch = WriteBatch::new()
                .put("key", vec![round; 20_000])
                .put([round % 3], vec![round]);
            store.write_batch(batch).unwrap();
            if round % 11 == 10 {
                store.checkpoint().unwrap();
            }
        }
        let recycled = store.stats().segments_recycled;
        assert!(recycled > 0, "seed {seed}");
        let pending = store.write_batch_async(WriteBatch::new().put("key", vec![99; 20_000]));
        store.step();
        volume.crash();
        drop((pending, store));
        let store = open(&volume);
        let value = store.read_direct("key").unwrap().unwrap();
        assert!(
            value[..] == [59; 20_000] || value[..] == [99; 20_000],
            "seed {seed}"
        );
        assert!(store.verify().unwrap().is_whole());
    }
}

#[test]
fn a_reader_keeps_a_file_from_being_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let config = config().with_segment_bytes(SEGMENT_BYTES);
    let store = NvmeStore::new(directory.path(), config).unwrap();
    store.write_aligned("mapped", &[5; 40_000]).unwrap();
    churn(&store, 20);
    let mapped = store.map_value("mapped").unwrap().unwrap();
    store.delete("mapped").unwrap();
    churn(&store, 100);
    assert!(store.stats().segments_recycled > 0);
    assert!(mapped.iter().all(|&byte| byte == 5));
}

#[test]
fn what_is_spare_makes_room_on_a_full_disk() {
    let volume = SimVolume::new(1);
    let store = open_small(&volume);
    churn(&store, 100);
    let used: u64 = volume.files().iter().map(|(_, len)| len).sum();
    volume.set_capacity(used);
    // A checkpoint needs a file beside the two that are there.
    store.checkpoint().unwrap();
    volume.set_capacity(u64::MAX);
    churn(&store, 20);
    store.close().unwrap();
}

#[test]
fn a_new_store_on_a_small_disk_has_small_segments() {
    let sizes = [
        (u64::MAX, 256 << 20),
        (8 << 30, 256 << 20),
        (1 << 30, 64 << 20),
        (100 << 20, 4 << 20),
        (20 << 20, 4 << 20),
    ];
    for (capacity, expected) in sizes {
        let volume = SimVolume::new(1);
        volume.set_capacity(capacity);
        let config = StorageConfig::default();
        let store = NvmeStore::on_volume(volume.handle(), config).unwrap();
        assert_eq!(store.segment_bytes(), expected, "{capacity}");
    }
    let volume = SimVolume::new(1);
    volume.set_capacity(20 << 20);
    let config = config().with_segment_bytes(8 << 20);
    let store = NvmeStore::on_volume(volume.handle(), config).unwrap();
    assert_eq!(store.segment_bytes(), 8 << 20);
}
