//! The numbers under which content is stored are never used twice.

use core_view::DType;
use tier_nvme::StorageConfig;
use tier_nvme::sim::SimVolume;
use weightstore::{GcOptions, NativeConfig, NativeStore, WeightStore};

use crate::fixture::{Tensor, add, bytes, config, get, noise, safetensors};

#[test]
fn a_reopened_store_does_not_write_over_what_is_there() {
    for threads in [1, 3] {
        let volume = SimVolume::new(1);
        let mut files = Vec::new();
        for life in 0..4 {
            let config = config().with_threads(threads);
            let store = NativeStore::on_volume(volume.handle(), config).unwrap();
            let tensors = [(1, 300_000), (2, 1_200_000)];
            let tensors = tensors
                .map(|(index, len)| bytes(&format!("t{index}"), noise(10 * index + life, len)));
            let file = safetensors(&tensors);
            add(&store, &format!("m{life}"), &file).unwrap();
            files.push(file);
            for (number, file) in files.iter().enumerate() {
                assert!(get(&store, &format!("m{number}")).unwrap() == *file);
            }
            let report = store.verify(None).unwrap();
            assert!(report.is_whole() && report.unreachable == 0, "{report:?}");
            store.close().unwrap();
        }
    }
}

/// A store that commits often, whose operations come in one order.
fn small(volume: &SimVolume) -> NativeStore {
    let storage = StorageConfig::default().with_segment_bytes(4 << 20);
    let config = NativeConfig::default()
        .with_storage(storage)
        .with_batch_bytes(NativeConfig::BATCH_BYTES_MIN)
        .with_threads(1);
    NativeStore::on_volume(volume.handle(), config).unwrap()
}

#[test]
fn what_a_power_loss_left_of_an_import_is_in_nobodys_way() {
    let model = |seed: u64, len: usize| {
        let names = (0..4_u64).map(|index| (index, format!("t{index}")));
        let tensors = names.map(|(index, name)| bytes(&name, noise(10 * seed + index, len)));
        safetensors(&tensors.collect::<Vec<_>>())
    };
    let (long, short) = (model(1, 3 << 19), model(2, 700_000));
    let (mut left, mut operations) = (0, 0);
    loop {
        let volume = SimVolume::new(operations);
        let store = small(&volume);
        volume.fail_power_after(operations);
        let added = add(&store, "long", &long);
        drop(store);
        volume.crash();
        if added.is_ok() {
            break;
        }
        // Of bodies that are longer than those of the same numbers would be.
        let store = small(&volume);
        left += store.blobs().keys_with_prefix(b"c/").len();
        add(&store, "short", &short).unwrap();
        assert!(get(&store, "short").unwrap() == short);
        store.remove_model("short").unwrap();
        store.gc(GcOptions::default()).unwrap();
        let keys = store.blobs().keys_with_prefix(b"");
        assert!(
            keys.iter().all(|key| key.starts_with(b"s/")),
            "{operations}"
        );
        operations += 3;
    }
    assert!(
        left > 0,
        "no content was left behind in {operations} operations"
    );
}

#[test]
fn shapes_of_many_dimensions_count_for_what_is_committed_together() {
    let volume = SimVolume::new(1);
    let store = small(&volume);
    let tensors = (0..30_u8).map(|number| Tensor {
        name: format!("t{number}"),
        dtype: DType::U8,
        shape: vec![1; 20_000],
        bytes: vec![number],
    });
    let file = safetensors(&tensors.collect::<Vec<_>>());
    add(&store, "m", &file).unwrap();
    assert!(get(&store, "m").unwrap() == file);
}
