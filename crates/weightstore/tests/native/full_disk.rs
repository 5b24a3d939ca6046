//! A full disk: what was acknowledged is whole. Power failures: see the simulation.

use std::collections::BTreeMap;

use tier_nvme::StorageConfig;
use tier_nvme::sim::SimVolume;
use weightstore::{ImportOptions, NativeConfig, NativeStore};

use crate::fixture::{add_with, bytes, get, noise, safetensors};

fn small() -> NativeConfig {
    let storage = StorageConfig::default().with_segment_bytes(4 << 20);
    NativeConfig::default()
        .with_storage(storage)
        .with_batch_bytes(1 << 20)
        .with_threads(1)
}

#[test]
fn a_full_disk_loses_nothing() {
    let volume = SimVolume::new(1);
    volume.set_capacity(24 << 20);
    let store = NativeStore::on_volume(volume.handle(), small()).unwrap();
    let mut stored = BTreeMap::new();
    let full = (0..40_u64).find_map(|index| {
        let file = safetensors(&[bytes("w", noise(index + 100, 3 << 20))]);
        let name = format!("m{index}");
        match add_with(&store, &name, &file, &ImportOptions::default()) {
            Ok(_) => {
                stored.insert(name, file);
                None
            }
            Err(error) => Some(error),
        }
    });
    let full = full.unwrap();
    let cause = std::error::Error::source(&full).unwrap().to_string();
    assert!(cause.contains("no space"), "{full:?}");
    assert_eq!(
        store.models().unwrap(),
        stored.keys().cloned().collect::<Vec<_>>()
    );
    for (name, file) in &stored {
        assert_eq!(&get(&store, name).unwrap(), file);
    }
    assert!(store.verify(None).unwrap().is_whole());
}
