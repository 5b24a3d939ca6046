//! Maps of values, and several who read at once.

use std::sync::Arc;

use tier_nvme::sim::SimVolume;
use tier_nvme::{MapOrigin, NvmeError, NvmeStore, RealVolume, Volume, VolumeOptions, WriteBatch};

use super::config;

fn value(tag: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(tag) ^ tag)
        .collect()
}

/// Fills more than one segment of 256 KiB: "old" ends up in a sealed one, "new" in the last.
fn fill(store: &NvmeStore) {
    store.write_aligned("old", &value(3, 100_000)).unwrap();
    store.write_aligned("small", &value(5, 100)).unwrap();
    store.write_aligned("filler", &value(7, 150_000)).unwrap();
    store.write_aligned("new", &value(9, 50_000)).unwrap();
}

fn check_maps(volume: Arc<dyn Volume>) {
    let store = NvmeStore::on_volume(Arc::clone(&volume), config()).unwrap();
    fill(&store);
    let old = store.map_value("old").unwrap().unwrap();
    assert_eq!(old.origin(), MapOrigin::Mapped);
    assert_eq!(*old, value(3, 100_000));
    let small = store.map_value("small").unwrap().unwrap();
    assert_eq!(
        (small.origin(), &*small),
        (MapOrigin::Mapped, &value(5, 100)[..])
    );
    drop(small);
    let new = store.map_value("new").unwrap().unwrap();
    assert!(matches!(new.origin(), MapOrigin::Copied { .. }));
    assert_eq!(*new, value(9, 50_000));
    assert!(store.map_value("absent").unwrap().is_none());
    assert_eq!(store.stats().maps, 2);

    // What is mapped stays, however dead it is.
    store
        .write_batch(
            WriteBatch::new()
                .delete("old")
                .delete("small")
                .delete("filler"),
        )
        .unwrap();
    let view = old.into_storage().view(1000, 50).unwrap();
    for _ in 0..4 {
        store.checkpoint().unwrap();
    }
    assert_eq!(store.stats().segments, 2);
    store.close().unwrap();
    let locked = NvmeStore::on_volume(Arc::clone(&volume), config()).unwrap_err();
    assert!(matches!(locked, NvmeError::Locked { .. }), "{locked:?}");
    assert_eq!(view.as_slice(), &value(3, 100_000)[1000..1050]);
    drop(view);
    let store = NvmeStore::on_volume(Arc::clone(&volume), config()).unwrap();
    for _ in 0..3 {
        store.checkpoint().unwrap();
    }
    assert_eq!(store.stats().segments, 1);
    assert_eq!(*store.map_value("new").unwrap().unwrap(), value(9, 50_000));
}

#[test]
fn a_map_keeps_its_segment_on_a_simulated_volume() {
    check_maps(SimVolume::new(1).handle());
}

#[test]
fn a_map_keeps_its_segment_on_a_real_volume() {
    let directory = tempfile::tempdir().unwrap();
    let volume = RealVolume::open(directory.path(), VolumeOptions::default()).unwrap();
    check_maps(Arc::new(volume));
}

#[test]
fn a_damaged_value_is_not_mapped() {
    let volume = SimVolume::new(1);
    let store = NvmeStore::on_volume(volume.handle(), config()).unwrap();
    fill(&store);
    // The header takes page 1; the value begins in page 2.
    assert!(volume.flip_bit("SEGMENT-0000000000000001", 8 * (2 * 4096 + 70_000)));
    let error = store.map_value("old").unwrap_err();
    assert!(matches!(error, NvmeError::Corrupt { .. }), "{error:?}");
}

#[test]
fn readers_share_a_store_and_keep_writers_out() {
    let directory = tempfile::tempdir().unwrap();
    let volume = || {
        let volume = RealVolume::open(directory.path(), VolumeOptions::default());
        Arc::new(volume.unwrap())
    };
    let open = |read_only| {
        let config = config().with_read_only(read_only);
        NvmeStore::on_volume(volume(), config)
    };
    let writer = open(false).unwrap();
    fill(&writer);
    assert!(matches!(open(true), Err(NvmeError::Locked { .. })));
    // Who can't write in any case reads beside the writer, and maps nothing.
    let reading = || NvmeStore::new(directory.path(), config().with_read_only(true)).unwrap();
    let beside = reading();
    let old = beside.map_value("old").unwrap().unwrap();
    assert!(matches!(old.origin(), MapOrigin::Copied { .. }));
    writer.close().unwrap();
    let readers = [open(true).unwrap(), reading()];
    for reader in &readers {
        assert_eq!(
            reader.read_direct("new").unwrap().as_deref(),
            Some(&value(9, 50_000)[..])
        );
        // Nothing is written any more: the last segment can be mapped, too.
        let new = reader.map_value("new").unwrap().unwrap();
        assert_eq!(
            (new.origin(), &*new),
            (MapOrigin::Mapped, &value(9, 50_000)[..])
        );
    }
    assert!(matches!(open(false), Err(NvmeError::Locked { .. })));
    let [first, second] = readers;
    drop(first);
    assert!(matches!(open(false), Err(NvmeError::Locked { .. })));
    let held = second.map_value("new").unwrap();
    drop(second);
    assert!(matches!(open(false), Err(NvmeError::Locked { .. })));
    drop(held);
    open(false).unwrap();
}
