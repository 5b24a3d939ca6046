//! Damage is found, named, and never given back as content.

use core_view::BufferMut;
use tier_nvme::FileName;
use tier_nvme::sim::{Random, SimVolume};
use weightstore::{
    Codec, DamageKind, HashKey, ImportOptions, NativeStore, WeightError, WeightStore,
};

use crate::fixture::{add_with, bytes, config, get, noise, plain, safetensors};

/// A closed store with two models that share a tensor, one single weight, and where it lies.
fn closed_store() -> (SimVolume, Vec<u8>, Vec<u8>) {
    let volume = SimVolume::new(3);
    let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
    let first = safetensors(&[
        bytes("shared", noise(1, (1 << 20) + 100)),
        bytes("small", noise(2, 300)),
        bytes("packed", plain(3, 100_000)),
    ]);
    let second = safetensors(&[
        bytes("shared", noise(1, (1 << 20) + 100)),
        bytes("own", noise(4, 70_000)),
    ]);
    let options = ImportOptions::default().with_codec(Codec::Lz4);
    let options = match Codec::Lz4.check() {
        Ok(()) => options,
        Err(_) => ImportOptions::default(),
    };
    add_with(&store, "first", &first, &options).unwrap();
    add_with(&store, "second", &second, &options).unwrap();
    let single = store.load_tensor("second", "own").unwrap();
    store.store(&single, None).unwrap();
    store.close().unwrap();
    (volume, first, second)
}

/// The bytes of a file of the volume.
fn file_bytes(volume: &SimVolume, name: &str, len: u64) -> Vec<u8> {
    let file = volume.handle().open(&FileName::new(name).unwrap()).unwrap();
    let target = BufferMut::zeroed(len as usize, 4096).unwrap();
    file.read(0, target).wait().unwrap().to_vec()
}

/// Where `needle` lies on the volume.
fn find(volume: &SimVolume, needle: &[u8]) -> (String, u64) {
    for (name, len) in volume.files() {
        if !name.starts_with("SEGMENT") {
            continue;
        }
        let bytes = file_bytes(volume, &name, len);
        if let Some(at) = bytes
            .windows(needle.len())
            .position(|window| window == needle)
        {
            return (name, at as u64);
        }
    }
    panic!("the bytes are not on the volume");
}

#[test]
fn a_flipped_bit_of_a_tensor_is_named_and_never_returned() {
    let (volume, first, second) = closed_store();
    // (bytes of the tensor, its name in each model that has it)
    let cases: [(Vec<u8>, &[&str], &[&str]); 3] = [
        (
            noise(1, 64),
            &["first: shared", "second: shared"],
            &["first", "second"],
        ),
        (noise(2, 64), &["first: small"], &["first"]),
        (noise(4, 64), &["second: own"], &["second"]),
    ];
    for (needle, tensors, models) in cases {
        let volume = volume.fork(1);
        let (file, at) = find(&volume, &needle);
        assert!(volume.flip_bit(&file, 8 * at + 77));
        let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
        let report = store.verify(None).unwrap();
        let damage: Vec<_> = report
            .corrupt
            .iter()
            .filter(|damage| damage.kind == DamageKind::Tensor)
            .collect();
        assert_eq!(damage.len(), 1, "{report:?}");
        assert_eq!(damage[0].models, tensors);
        for (name, file) in [("first", &first), ("second", &second)] {
            match get(&store, name) {
                Ok(restored) => assert!(&restored == file && !models.contains(&name)),
                Err(error @ WeightError::Corrupt { .. }) => {
                    let text = error.to_string();
                    assert!(models.contains(&name) && text.contains(name), "{text}");
                    let tensor = tensors[0].split(": ").last().unwrap();
                    assert!(text.contains(tensor), "{text}");
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        let hash: HashKey = damage[0].name.parse().unwrap();
        assert!(matches!(
            store.load(&hash),
            Err(WeightError::Corrupt { .. })
        ));
    }
}

#[test]
fn a_damaged_model_is_named_and_can_be_removed() {
    let (volume, first, _) = closed_store();
    // The header's text is in the manifest alone.
    let (file, at) = find(&volume, br#"{"__metadata__":{"format":"pt"},"shared":{"dtype":"U8","shape":[1048676],"data_offsets":[0,1048676]},"own""#);
    assert!(volume.flip_bit(&file, 8 * at + 3));
    let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
    let report = store.verify(None).unwrap();
    let kinds: Vec<_> = report
        .corrupt
        .iter()
        .map(|damage| (damage.kind, &*damage.name))
        .collect();
    assert_eq!(kinds, [(DamageKind::Model, "second")]);
    assert!(matches!(
        get(&store, "second"),
        Err(WeightError::Corrupt { .. })
    ));
    assert_eq!(get(&store, "first").unwrap(), first);

    // While it is there, it might need any tensor.
    let removed = store.remove_model("first").unwrap();
    assert_eq!((removed.removed_tensors, removed.unreadable.len()), (0, 1));
    let removed = store.remove_model("second").unwrap();
    assert!(removed.unreadable.is_empty());
    assert!(store.models().unwrap().is_empty());
    assert!(store.verify(None).unwrap().is_whole());
}

#[test]
fn flips_anywhere_are_found_or_change_nothing() {
    let (volume, first, second) = closed_store();
    let mut random = Random::new(9);
    let files = volume.files();
    let (mut found, mut refused) = (0, 0);
    for round in 0..120_u64 {
        let volume = volume.fork(round);
        let (name, len) = &files[round as usize % files.len()];
        // Most of a segment is empty; its beginning is not.
        let bound = if round % 2 == 0 {
            *len
        } else {
            (*len).min(1 << 21)
        };
        if !volume.flip_bit(name, random.next_u64() % (8 * bound).max(1)) {
            continue;
        }
        let store = match NativeStore::on_volume(volume.handle(), config()) {
            Ok(store) => store,
            Err(_) => {
                refused += 1;
                continue;
            }
        };
        let whole = store.verify(None).unwrap().is_whole();
        found += u64::from(!whole);
        for (name, file) in [("first", &first), ("second", &second)] {
            match get(&store, name) {
                Ok(restored) => assert!(restored == *file, "round {round}"),
                Err(_) => assert!(!whole, "round {round}: {name} fails and verify is silent"),
            }
        }
        assert_eq!(
            store.models().unwrap(),
            ["first", "second"],
            "round {round}"
        );
    }
    assert!(found + refused > 20, "{found} found, {refused} refused");
}
