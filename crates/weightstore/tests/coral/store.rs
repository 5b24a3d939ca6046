//! The store over one file.

use std::collections::BTreeMap;

use core_view::DType;
use tier_nvme::FileName;
use tier_nvme::sim::SimVolume;
use weightstore::{
    Hdf5Compression, Hdf5Config, Hdf5Mode, Hdf5Store, WeightError, WeightHash, WeightStore,
    WeightTensor,
};

fn name() -> FileName {
    FileName::new("weights.h5").unwrap()
}

fn config(mode: Hdf5Mode) -> Hdf5Config {
    Hdf5Config::default()
        .with_compression(Hdf5Compression::Gzip { level: 1 })
        .with_mode(mode)
}

fn open(volume: &SimVolume, mode: Hdf5Mode) -> Result<Hdf5Store, WeightError> {
    Hdf5Store::on_volume(volume.handle(), name(), config(mode))
}

fn weight(seed: u64) -> WeightTensor {
    let len = 40 + 700 * (seed % 7);
    let bytes: Vec<u8> = (0..len).map(|i| (i * (seed + 3) / 5) as u8).collect();
    WeightTensor::new(format!("w{seed}"), DType::U8, &[len], bytes).unwrap()
}

type Content = BTreeMap<WeightHash, Vec<u8>>;

/// What a store has, read back.
fn content(store: &Hdf5Store) -> Content {
    let hashes = store.list_weights().unwrap();
    hashes
        .into_iter()
        .map(|hash| {
            let weight = store.load(&hash.into()).unwrap().unwrap();
            (hash, weight.bytes().to_vec())
        })
        .collect()
}

#[test]
fn modes_are_those_of_h5py() {
    let volume = SimVolume::new(1);
    for mode in [Hdf5Mode::Read, Hdf5Mode::ReadWrite] {
        assert!(matches!(
            open(&volume, mode),
            Err(WeightError::Storage { .. })
        ));
    }
    let store = open(&volume, Hdf5Mode::Append).unwrap();
    let hash = store.store(&weight(1), None).unwrap();
    store.close().unwrap();

    let store = open(&volume, Hdf5Mode::Read).unwrap();
    assert!(store.exists(&hash.into()).unwrap());
    for refused in [
        store.store(&weight(2), None).map(|_| ()),
        store.delete(&hash.into()).map(|_| ()),
    ] {
        assert!(matches!(
            refused,
            Err(WeightError::InvalidConfig { field: "mode", .. })
        ));
    }
    store.close().unwrap();

    open(&volume, Hdf5Mode::Write).unwrap().close().unwrap();
    let store = open(&volume, Hdf5Mode::ReadWrite).unwrap();
    assert!(store.list_weights().unwrap().is_empty());
}

#[test]
fn a_full_disk_leaves_the_old_file() {
    let volume = SimVolume::new(2);
    let store = open(&volume, Hdf5Mode::Append).unwrap();
    store.store(&weight(1), None).unwrap();
    store.commit().unwrap();
    let before = content(&store);
    volume.set_capacity(64 << 10);
    let noise: Vec<u8> = (0..200_000_u64)
        .map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
        .collect();
    let large = WeightTensor::new("large", DType::U8, &[200_000], noise).unwrap();
    store.store(&large, None).unwrap();
    assert!(matches!(store.commit(), Err(WeightError::Storage { .. })));
    drop(store);
    let store = open(&volume, Hdf5Mode::Read).unwrap();
    assert_eq!(content(&store), before);
}

#[test]
fn a_file_that_another_program_changed_is_not_written_over() {
    let volume = SimVolume::new(3);
    let first = open(&volume, Hdf5Mode::Append).unwrap();
    first.store(&weight(1), None).unwrap();
    first.commit().unwrap();
    let second = open(&volume, Hdf5Mode::Append).unwrap();
    let kept = second.store(&weight(2), None).unwrap();
    second.close().unwrap();
    first.store(&weight(3), None).unwrap();
    assert!(matches!(
        first.commit(),
        Err(WeightError::SourceChanged { .. })
    ));
    drop(first);
    let store = open(&volume, Hdf5Mode::Read).unwrap();
    assert!(store.exists(&kept.into()).unwrap());
}

#[test]
fn more_than_fits_memory_is_refused() {
    let volume = SimVolume::new(4);
    let small = config(Hdf5Mode::Append).with_content_bytes_max(1000);
    let store = Hdf5Store::on_volume(volume.handle(), name(), small).unwrap();
    let large = WeightTensor::new("large", DType::U8, &[1001], vec![0_u8; 1001]).unwrap();
    let refused = store.store(&large, None);
    assert!(matches!(
        refused,
        Err(WeightError::TooLarge {
            limit_bytes: 1000,
            ..
        })
    ));
}
