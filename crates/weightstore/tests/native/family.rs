//! Fine-tunes are found, stored as differences, and come back bit for bit.

use core_view::DType;
use tier_nvme::sim::SimVolume;
use weightstore::{
    Codec, HashKey, ImportOptions, NativeConfig, NativeStore, WeightError, WeightStore,
    WeightTensor,
};

use crate::fixture::{Tensor, add, add_with, bf16, bytes, config, get, noise, safetensors};
use crate::fixture::{store, tuned, weights};

const COLUMNS: u64 = 256;

/// A model of three matrices and a small tensor, trained on from `start` by that much.
fn trained(start: u64, relative: f32, seed: u64) -> Vec<u8> {
    let matrix = |index: u64| {
        let base = weights(start * 10 + index, 300 * COLUMNS as usize);
        let now = tuned(&base, relative, seed * 10 + index);
        bf16(&format!("layer.{index}"), COLUMNS, &now)
    };
    let norm = bytes("norm", noise(seed, 512));
    safetensors(&[matrix(0), matrix(1), norm, matrix(2)])
}

fn tensor_of(tensor: &Tensor) -> WeightTensor {
    let data = tensor.bytes.clone();
    WeightTensor::new(&tensor.name, tensor.dtype, &tensor.shape, data).unwrap()
}

/// The store holds nothing but what every store has.
fn is_empty(store: &NativeStore) -> bool {
    let keys = store.blobs().keys_with_prefix(b"");
    keys.iter().all(|key| key.starts_with(b"s/"))
}

fn verified(store: &NativeStore) {
    let report = store.verify(None).unwrap();
    assert!(report.is_whole() && report.unreachable == 0, "{report:?}");
}

#[test]
fn a_fine_tune_is_found_and_stored_as_a_difference() {
    let (volume, store) = store();
    let base = trained(1, 0.0, 1);
    let tune = trained(1, 1e-3, 2);
    let stranger = trained(7, 0.0, 3);
    let first = add(&store, "base", &base).unwrap();
    let second = add(&store, "tune", &tune).unwrap();
    let third = add(&store, "stranger", &stranger).unwrap();
    assert_eq!((first.delta_tensors, second.delta_tensors), (0, 3));
    assert_eq!(third.delta_tensors, 0);
    assert!(
        second.stored_bytes * 4 < first.stored_bytes,
        "{first:?} {second:?}"
    );
    verified(&store);
    store.close().unwrap();
    let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
    for (name, file) in [("base", &base), ("tune", &tune), ("stranger", &stranger)] {
        assert!(get(&store, name).unwrap() == *file, "{name}");
    }
    // The sketches are found after a reopen, and a fine-tune of the fine-tune with them.
    let next = trained(1, 1.1e-3, 2);
    assert_eq!(add(&store, "next", &next).unwrap().delta_tensors, 3);
    assert!(get(&store, "next").unwrap() == next);
    verified(&store);
}

#[test]
fn single_weights_find_their_base_too() {
    let (_, store) = store();
    let base = weights(1, 100 * COLUMNS as usize);
    let first = tensor_of(&bf16("first", COLUMNS, &base));
    let second = tensor_of(&bf16("second", COLUMNS, &tuned(&base, 1e-3, 1)));
    let base_hash = store.store(&first, None).unwrap();
    let hash = store.store(&second, None).unwrap();
    let stored = |hash| store.stored_bytes_of(hash).unwrap().unwrap();
    assert!(stored(&hash) * 2 < stored(&base_hash));
    let loaded = store.load(&hash.into()).unwrap().unwrap();
    assert_eq!(loaded.bytes(), second.bytes());

    let refused = store.delete(&base_hash.into());
    assert!(
        matches!(refused, Err(WeightError::InUse { .. })),
        "{refused:?}"
    );
    assert!(store.delete(&hash.into()).unwrap());
    assert!(store.delete(&base_hash.into()).unwrap());
    assert!(is_empty(&store));
}

#[test]
fn a_near_sibling_does_not_hide_a_nearer_base() {
    let single = |name: &str, numbers: &[f32]| {
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let rows = numbers.len() as u64 / COLUMNS;
        WeightTensor::new(name, DType::F32, &[rows, COLUMNS], bytes).unwrap()
    };
    let numbers = weights(1, 300 * COLUMNS as usize);
    let base = single("base", &numbers);
    let mut changed = numbers.clone();
    changed[12_345] += 1.0;
    let changed = single("changed", &changed);
    // Those that are equally likely by their signs are met in the order of their hashes.
    for sibling_first in [true, false] {
        let mut siblings = (1..).map(|seed| single("sibling", &tuned(&numbers, 1e-3, seed)));
        let sibling = siblings
            .find(|sibling| (sibling.compute_hash() < base.compute_hash()) == sibling_first)
            .unwrap();
        let (_, store) = store();
        let stored = |weight| {
            let hash = store.store(weight, None).unwrap();
            store.stored_bytes_of(&hash).unwrap().unwrap()
        };
        let alone = stored(&base);
        assert!((alone / 2..alone).contains(&stored(&sibling)));
        let bytes = stored(&changed);
        assert!(
            bytes < 4096,
            "{bytes} bytes, sibling first: {sibling_first}"
        );
        let key = changed.compute_hash().into();
        let loaded = store.load(&key).unwrap().unwrap();
        assert_eq!(loaded.bytes(), changed.bytes());
    }
}

#[test]
fn a_base_stays_as_long_as_it_is_needed() {
    let (volume, store) = store();
    let files = [trained(1, 0.0, 1), trained(1, 1e-3, 2), trained(1, 1e-3, 3)];
    for (index, file) in files.iter().enumerate() {
        add(&store, &index.to_string(), file).unwrap();
    }
    let removed = store.remove_model("0").unwrap();
    assert_eq!((removed.removed_tensors, removed.kept_tensors), (1, 3));
    store.close().unwrap();
    let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
    assert!(get(&store, "1").unwrap() == files[1]);
    store.remove_model("1").unwrap();
    assert!(get(&store, "2").unwrap() == files[2]);
    verified(&store);
    store.remove_model("2").unwrap();
    assert!(
        is_empty(&store),
        "the bases went with the last that needed them"
    );
}

#[test]
fn chains_are_bounded() {
    for depth_max in [0, 1, 3] {
        let volume = SimVolume::new(1);
        let config = config().with_chain_depth_max(depth_max);
        let store = NativeStore::on_volume(volume.handle(), config).unwrap();
        let mut now = weights(1, 640 * COLUMNS as usize);
        let mut files = Vec::new();
        for step in 0..8 {
            let file = safetensors(&[bf16("w", COLUMNS, &now)]);
            let added = add(&store, &step.to_string(), &file).unwrap();
            assert_eq!(added.delta_tensors, u64::from(step > 0 && depth_max > 0));
            files.push(file);
            now = tuned(&now, 2e-3, step);
        }
        for (step, file) in files.iter().enumerate() {
            assert!(get(&store, &step.to_string()).unwrap() == *file);
        }
        let depths = store.stats().unwrap().depths;
        assert_eq!(depths.iter().sum::<u64>(), 8);
        assert_eq!(depths.len(), usize::from(depth_max) + 1, "{depths:?}");
        verified(&store);
    }
}

#[test]
fn a_grown_vocabulary_finds_what_it_was() {
    // The second crosses a power of two.
    for (rows, more) in [(300, 20), (250, 10)] {
        let (_, store) = store();
        let mut embedding = weights(1, rows * COLUMNS as usize);
        let base = safetensors(&[bf16("embedding", COLUMNS, &embedding)]);
        add(&store, "base", &base).unwrap();
        embedding.extend(weights(2, more * COLUMNS as usize));
        let grown = safetensors(&[bf16("embedding", COLUMNS, &embedding)]);
        let added = add(&store, "grown", &grown).unwrap();
        assert_eq!(added.delta_tensors, 1);
        assert!(added.stored_bytes < grown.len() as u64 / 6, "{added:?}");
        assert!(get(&store, "grown").unwrap() == grown);
        // And the other way round: a base that is longer.
        store.remove_model("base").unwrap();
        store.remove_model("grown").unwrap();
        add(&store, "grown", &grown).unwrap();
        assert_eq!(add(&store, "base", &base).unwrap().delta_tensors, 1);
        assert!(get(&store, "base").unwrap() == base);
        verified(&store);
    }
}

#[test]
fn ranges_of_differences_are_read_alone() {
    let (_, store) = store();
    let base = weights(1, 9 << 20);
    let base_file = safetensors(&[bf16("w", 1024, &base)]);
    let tune = bf16("w", 1024, &tuned(&base, 1e-3, 1));
    add(&store, "base", &base_file).unwrap();
    let file = safetensors(std::slice::from_ref(&tune));
    let added = add(&store, "tune", &file).unwrap();
    assert_eq!(
        added.delta_tensors, 1,
        "a tensor of several groups is decided on by its first"
    );
    assert!(get(&store, "tune").unwrap() == file);
    let len = tune.bytes.len();
    for (start, end) in [
        (0, 1),
        ((1 << 20) - 1, (1 << 20) + 1),
        ((3 << 20) + 7, (6 << 20) + 9),
        (len - 3, len),
    ] {
        let mut target = vec![0; end - start];
        store
            .read_tensor_range("tune", "w", start as u64, &mut target)
            .unwrap();
        assert!(target == tune.bytes[start..end], "{start}..{end}");
    }
    let hash = store.model("tune").unwrap().files[0].tensors[0].hash;
    let loaded = store.load(&HashKey::from(hash)).unwrap().unwrap();
    assert!(loaded.bytes() == tune.bytes);
    verified(&store);
}

#[test]
fn a_base_can_be_named() {
    let (_, store) = store();
    let base = trained(1, 0.0, 1);
    let tune = trained(1, 1e-3, 2);
    add(&store, "base", &base).unwrap();
    add(&store, "stranger", &trained(9, 0.0, 9)).unwrap();
    let alone = ImportOptions::default().with_find_bases(false);
    let added = add_with(&store, "alone", &tune, &alone).unwrap();
    assert_eq!(added.delta_tensors, 0);
    store.remove_model("alone").unwrap();
    let as_it_is = ImportOptions::default().with_codec(Codec::None);
    let added = add_with(&store, "as it is", &tune, &as_it_is).unwrap();
    assert_eq!(added.delta_tensors, 0);
    store.remove_model("as it is").unwrap();
    for (name, deltas) in [("base", 3), ("stranger", 0)] {
        let named = ImportOptions::default()
            .with_find_bases(false)
            .with_base(name);
        let added = add_with(&store, "tune", &tune, &named).unwrap();
        assert_eq!(added.delta_tensors, deltas, "{name}");
        assert!(get(&store, "tune").unwrap() == tune);
        store.remove_model("tune").unwrap();
    }
    let nobody = ImportOptions::default().with_base("nobody");
    let refused = add_with(&store, "tune", &tune, &nobody);
    assert!(matches!(refused, Err(WeightError::ModelNotFound { .. })));
}

#[test]
fn a_damaged_base_is_named() {
    let (volume, store) = store();
    let base = trained(1, 0.0, 1);
    add(&store, "base", &base).unwrap();
    add(&store, "tune", &trained(1, 1e-3, 2)).unwrap();
    let base_hash = store.model("base").unwrap().files[0].tensors[0].hash;
    let tune_hash = store.model("tune").unwrap().files[0].tensors[0].hash;
    store.close().unwrap();
    let blobs = tier_nvme::NvmeStore::on_volume(volume.handle(), config().storage().clone());
    let blobs = blobs.unwrap();
    let chunk = blobs.keys_with_prefix(b"c/").into_iter().min().unwrap();
    let mut value = blobs.read_direct(&chunk).unwrap().unwrap().to_vec();
    let middle = value.len() / 2;
    value[middle] ^= 0x10;
    blobs.write_aligned(&chunk, &value).unwrap();
    blobs.close().unwrap();
    let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
    let error = store.load(&tune_hash.into()).unwrap_err();
    let WeightError::Corrupt { name, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(name.starts_with(&base_hash.to_string()), "{error}");
    assert!(name.contains(&tune_hash.to_string()), "{error}");
    let report = store.verify(None).unwrap();
    let damaged: Vec<&str> = report.corrupt.iter().map(|item| &*item.name).collect();
    assert!(
        damaged.contains(&base_hash.to_string().as_str()),
        "{report:?}"
    );
    assert!(
        damaged.contains(&tune_hash.to_string().as_str()),
        "{report:?}"
    );
    assert_eq!(damaged.len(), 2, "{report:?}");
    // What is damaged is no base for anything new.
    let next = trained(1, 1.1e-3, 2);
    add(&store, "next", &next).unwrap();
    assert!(get(&store, "next").unwrap() == next);
}

#[test]
fn a_depth_out_of_range_is_refused() {
    let volume = SimVolume::new(1);
    let deep = config().with_chain_depth_max(NativeConfig::CHAIN_DEPTH_MAX + 1);
    let refused = NativeStore::on_volume(volume.handle(), deep);
    assert!(matches!(
        refused,
        Err(WeightError::InvalidConfig {
            field: "chain_depth_max",
            ..
        })
    ));
}

/// A difference that is far below what the base takes is kept, though the tensor repeats itself and would be
/// smaller alone: nobody looks, which is what makes fine-tunes quick to store. Where the base says nothing, somebody does.
#[test]
fn a_tensor_is_not_encoded_alone_where_its_base_tells_its_size() {
    let pattern = weights(1, 1024);
    let repeated: Vec<f32> = pattern.iter().cycle().take(400 * 256).copied().collect();
    let tune = bf16("w", COLUMNS, &repeated);
    let mut base = tune.clone();
    let changes = noise(2, base.bytes.len());
    for (byte, change) in base.bytes.iter_mut().zip(changes).step_by(2) {
        *byte ^= change & 7;
    }
    let (base, tune) = (safetensors(&[base]), safetensors(&[tune]));
    for (codec, deltas) in [(Codec::Auto, 1), (Codec::None, 0)] {
        let (_, store) = store();
        let options = ImportOptions::default().with_codec(codec);
        add_with(&store, "base", &base, &options).unwrap();
        let options = ImportOptions::default().with_base("base");
        let added = add_with(&store, "tune", &tune, &options).unwrap();
        assert_eq!(added.delta_tensors, deltas, "{codec:?} {added:?}");
        let is_small = added.stored_bytes * 20 < tune.len() as u64;
        assert_eq!(is_small, deltas == 0, "{added:?}");
        assert!(get(&store, "tune").unwrap() == tune);
        verified(&store);
    }
}
