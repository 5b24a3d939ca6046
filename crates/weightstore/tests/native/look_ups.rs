//! Finding a model's tensors costs the same however many it has.

use weightstore::{HashKey, ImportOptions, NativeStore, WeightError, WeightStore};

use crate::fixture::{add, add_with, bytes, noise, safetensors, store};

/// A model of so many small tensors.
fn model(count: u64, seed: u64) -> Vec<u8> {
    let tensors = (0..count).map(|i| bytes(&format!("t{i}"), noise(seed + i, 40)));
    safetensors(&tensors.collect::<Vec<_>>())
}

fn hashes(store: &NativeStore, model: &str) -> Vec<HashKey> {
    let tensors = &store.model(model).unwrap().files[0].tensors;
    tensors.iter().map(|tensor| tensor.hash.into()).collect()
}

#[test]
fn tensors_loaded_one_by_one_do_not_read_the_manifest_again() {
    for count in [50, 400] {
        let (_, store) = store();
        add(&store, "m", &model(count, 1)).unwrap();
        let hashes = hashes(&store, "m");
        // The first look-up reads what the others use.
        store.load(&hashes[0]).unwrap().unwrap();
        let before = store.blobs().stats();
        for (index, hash) in hashes.iter().enumerate() {
            let weight = store.load(hash).unwrap().unwrap();
            assert_eq!(weight.name(), format!("t{index}"));
            let metadata = store.get_metadata(hash).unwrap().unwrap();
            assert_eq!(metadata.model_name.as_deref(), Some("m"));
            let loaded = store.load_tensor("m", &format!("t{index}")).unwrap();
            assert_eq!(loaded.bytes(), weight.bytes());
            let mut part = [0; 7];
            let name = format!("t{index}");
            store.read_tensor_range("m", &name, 3, &mut part).unwrap();
            assert_eq!(part, weight.bytes()[3..10]);
        }
        let after = store.blobs().stats();
        // Each call reads the tensor's header, which has its bytes, and nothing else.
        assert_eq!(after.reads - before.reads, 4 * count);
        let read = after.bytes_read - before.bytes_read;
        assert!(read < 4 * count * 256, "{read} bytes for {count} tensors");
    }
}

#[test]
fn names_are_those_of_the_model_as_it_is_now() {
    let (_, store) = store();
    let shared = || bytes("before", noise(1, 40));
    let renamed = bytes("after", noise(1, 40));
    add(
        &store,
        "m",
        &safetensors(&[shared(), bytes("x", noise(2, 9))]),
    )
    .unwrap();
    let hash = hashes(&store, "m")[0];
    let name = |hash: &HashKey| store.load(hash).unwrap().unwrap().name().to_owned();
    for _ in 0..3 {
        assert_eq!(name(&hash), "before");
        let replace = ImportOptions::default().with_replace(true);
        let file = safetensors(&[bytes("y", noise(3, 9)), renamed.clone()]);
        add_with(&store, "m", &file, &replace).unwrap();
        assert_eq!(name(&hash), "after");
        assert!(store.load_tensor("m", "after").is_ok());
        for gone in ["before", "x"] {
            let refused = store.load_tensor("m", gone);
            assert!(matches!(refused, Err(WeightError::PartNotFound { .. })));
        }
        // The same content under the same name, as if nothing had been between.
        let file = safetensors(&[shared(), bytes("x", noise(2, 9))]);
        add_with(&store, "m", &file, &replace).unwrap();
    }
    store.remove_model("m").unwrap();
    let refused = store.load_tensor("m", "before");
    assert!(matches!(refused, Err(WeightError::ModelNotFound { .. })));
    assert!(store.load(&hash).unwrap().is_none());
}
