//! Reading ahead changes how often the device is asked, and no answer.

use std::sync::Arc;

use proptest::prelude::*;
use tier_nvme::sim::SimVolume;
use tier_nvme::{NvmeError, NvmeStore, RealVolume, StorageConfig, VolumeOptions, WriteBatch};

fn value(number: usize) -> Vec<u8> {
    let len = [4096, 300, 9000, 8192][number % 4];
    vec![number as u8 + 1; len]
}

fn fill(store: &NvmeStore, count: usize) {
    for first in (0..count).step_by(8) {
        let batch = (first..first + 8).fold(WriteBatch::new(), |batch, number| {
            batch.put(number.to_le_bytes(), value(number))
        });
        store.write_batch(batch).unwrap();
    }
}

fn read(store: &NvmeStore, number: usize) {
    let read = store.read_direct(number.to_le_bytes()).unwrap();
    assert_eq!(read.as_deref(), Some(&value(number)[..]), "{number}");
}

fn config(pages: u32) -> StorageConfig {
    super::config().with_prefetch_distance(pages)
}

#[test]
fn who_reads_in_order_is_read_ahead_for() {
    let directory = tempfile::tempdir().unwrap();
    let volume = RealVolume::open(directory.path(), VolumeOptions::default()).unwrap();
    for volume in [SimVolume::new(1).handle(), Arc::new(volume)] {
        let store = NvmeStore::on_volume(volume, config(32)).unwrap();
        fill(&store, 96);
        (0..96).for_each(|number| read(&store, number));
        let stats = store.stats().prefetch;
        assert!(stats.reads > 0 && stats.reads < 48, "{stats:?}");
        assert!(stats.useful_bytes > 200_000, "{stats:?}");
        assert!(stats.useful_bytes <= stats.read_bytes, "{stats:?}");
    }
}

#[test]
fn who_reads_in_no_order_is_not() {
    let store = NvmeStore::on_volume(SimVolume::new(1).handle(), config(32)).unwrap();
    fill(&store, 96);
    (0..96).for_each(|number| read(&store, number * 37 % 96));
    let stats = store.stats().prefetch;
    assert!(stats.read_bytes < 300_000, "{stats:?}");
    let without = NvmeStore::on_volume(SimVolume::new(1).handle(), config(0)).unwrap();
    fill(&without, 96);
    (0..96).for_each(|number| read(&without, number));
    assert_eq!(without.stats().prefetch.reads, 0);
}

#[test]
fn damage_ahead_is_told_of_its_own_key() {
    let volume = SimVolume::new(1);
    let store = NvmeStore::on_volume(volume.handle(), config(64)).unwrap();
    let batch = (0..12_u8).fold(WriteBatch::new(), |batch, number| {
        batch.put([number], vec![number; 4096])
    });
    store.write_batch(batch).unwrap();
    assert!(volume.flip_bit("SEGMENT-0000000000000001", 8 * (8192 + 7 * 4096)));
    for number in 0..12_u8 {
        let outcome = store.read_direct([number]);
        if number == 7 {
            assert!(
                matches!(outcome, Err(NvmeError::Corrupt { .. })),
                "{outcome:?}"
            );
        } else {
            assert_eq!(outcome.unwrap().as_deref(), Some(&[number; 4096][..]));
        }
    }
    assert!(store.stats().prefetch.useful_bytes > 0);
}

#[test]
fn too_long_a_distance_is_refused() {
    let built = StorageConfig::builder().prefetch_distance(1 << 20).build();
    assert!(matches!(
        built,
        Err(NvmeError::Invalid {
            field: "prefetch_distance",
            ..
        })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_order_of_reads_and_writes_gives_another_answer(
        pages in 1_u32..40,
        steps in proptest::collection::vec((0_u8..4, 0_usize..48), 1..200),
    ) {
        let store = NvmeStore::on_volume(SimVolume::new(9).handle(), config(pages)).unwrap();
        fill(&store, 48);
        let mut at = 0;
        for (what, number) in steps {
            match what {
                0 => {
                    store.write_aligned(number.to_le_bytes(), &value(number)).unwrap();
                }
                1 => at = number,
                _ => at = (at + 1) % 48,
            }
            read(&store, at);
        }
    }
}
