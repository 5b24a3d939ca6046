//! Checkpoints that are written while the store is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tier_nvme::sim::{SimVolume, Survival};
use tier_nvme::{CommitStage, NvmeError, NvmeStore, StorageConfig};

/// Where the last header of a batch begins: segment and byte.
fn last_batch(volume: &SimVolume) -> (String, u64) {
    let names = volume.files().into_iter().map(|(name, _)| name);
    let segments = names.filter(|name| name.starts_with("SEGMENT"));
    segments
        .filter_map(|name| {
            let bytes = volume.bytes_of(&name)?;
            let page = bytes
                .chunks(4096)
                .rposition(|page| page.starts_with(b"STEPBTCH"))?;
            Some((name, page as u64 * 4096))
        })
        .max()
        .unwrap()
}

#[test]
fn what_a_checkpoint_leaves_out_has_to_be_in_the_log() {
    let volume = SimVolume::new(1);
    let checkpoints = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&checkpoints);
    let config = StorageConfig::default()
        .with_segment_bytes(64 << 10)
        .with_background(false)
        .with_observer(move |stage| {
            seen.fetch_add(
                u64::from(stage == CommitStage::Checkpoint),
                Ordering::Relaxed,
            );
        });
    let store = NvmeStore::on_volume(volume.handle(), config.clone()).unwrap();
    store.write_aligned("replaced", &[1; 100]).unwrap();
    for number in 0.. {
        store
            .write_aligned(format!("{number}"), &[2; 5000])
            .unwrap();
        if checkpoints.load(Ordering::Relaxed) > 0 {
            break;
        }
    }
    assert_eq!(store.stats().checkpoints, 0, "it has only begun");
    store.write_aligned("replaced", &[3; 100]).unwrap();
    while store.stats().checkpoints == 0 {
        store.step_background(Duration::MAX).unwrap();
    }
    volume.crash_keeping(Survival::Everything);
    drop(store);

    let copy = volume.fork(1);
    let store = NvmeStore::on_volume(copy.handle(), config.clone()).unwrap();
    assert_eq!(
        store.read_direct("replaced").unwrap().as_deref(),
        Some(&[3; 100][..])
    );
    drop(store);

    let (segment, at) = last_batch(&volume);
    assert!(volume.flip_bit(&segment, (at + 50) * 8));
    let refused = NvmeStore::on_volume(volume.handle(), config).unwrap_err();
    assert!(matches!(refused, NvmeError::Corrupt { .. }), "{refused}");
}
