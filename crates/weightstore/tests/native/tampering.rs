//! Records that were changed behind a right checksum: the content's own digests find them.

use core_view::DType;
use core_view::safetensors::Header;
use tier_nvme::NvmeStore;
use tier_nvme::sim::{Random, SimVolume};
use weightstore::{
    Codec, Delta, DeltaKind, ImportOptions, NativeStore, WeightError, WeightStore, WeightTensor,
};

use crate::fixture::{
    add_with, bf16, bytes, config, get, noise, plain, safetensors, tuned, weights,
};

/// A closed store with one record of every kind, and its model's file.
fn every_record() -> (SimVolume, Vec<u8>) {
    let volume = SimVolume::new(4);
    let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
    let base = weights(1, 32 << 10);
    let file = safetensors(&[
        bytes("raw", noise(1, (1 << 20) + 9)),
        bytes("inline", noise(2, 50)),
        bytes("packed", plain(3, 200_000)),
        bytes("large", vec![5; 17 << 20]),
        bf16("base", 256, &base),
        bf16("tune", 256, &tuned(&base, 1e-3, 1)),
    ]);
    // The base is stored alone before: within one import the tensors may share a batch.
    let tensor = WeightTensor::new("base", DType::BF16, &[128, 256], bf16("", 256, &base).bytes);
    store.store(&tensor.unwrap(), None).unwrap();
    let codec = Codec::Lz4.check().map_or(Codec::None, |()| Codec::Lz4);
    let options = ImportOptions::default().with_codec(codec);
    let added = add_with(&store, "m", &file, &options).unwrap();
    assert_eq!(added.delta_tensors, u64::from(codec != Codec::None));
    let weight = WeightTensor::new("single", DType::U8, &[9], noise(5, 9)).unwrap();
    let hash = store
        .store(&weight.with_layer_type("Linear"), None)
        .unwrap();
    for len in [20, 5000] {
        let delta = Delta::new(DeltaKind::Sparse, DType::U8, &[9], hash, noise(6, len));
        store.store_delta(&delta, None).unwrap();
    }
    store.close().unwrap();
    (volume, file)
}

/// Changes a record; tells whether the store still opens.
fn tamper(volume: &SimVolume, key: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> bool {
    let blobs = NvmeStore::on_volume(volume.handle(), config().storage().clone()).unwrap();
    let mut value = blobs.read_direct(key).unwrap().unwrap().to_vec();
    change(&mut value);
    blobs.write_aligned(key, &value).unwrap();
    blobs.close().unwrap();
    NativeStore::on_volume(volume.handle(), config()).is_ok()
}

/// Whether damage of this record must be found: the hint is advice, and a model's file names and
/// facts are not content.
fn must_be_found(key: &[u8], bit: u64, len: u64) -> bool {
    match &key[..2] {
        // A depth is a bound, the same tensor may be stored under several.
        b"o/" if len == 8 + 5 + 20 + 8 + 36 + 24 + 40 && bit / 8 == 8 + 5 + 20 + 8 + 32 => false,
        b"o/" | b"c/" | b"u/" | b"d/" => true,
        // The content hash and the number of files.
        b"m/" => bit < 8 * 44,
        _ => false,
    }
}

#[test]
fn changed_records_are_found_and_never_returned() {
    let (volume, file) = every_record();
    let blobs = NvmeStore::on_volume(volume.handle(), config().storage().clone()).unwrap();
    let mut records = Vec::new();
    let mut chunks = 0;
    for key in blobs.keys_with_prefix(b"") {
        // Two of the many chunks are enough.
        chunks += u32::from(key.starts_with(b"c/"));
        if !key.starts_with(b"c/") || chunks <= 3 {
            let len = blobs.len_of(&key).unwrap();
            records.push((key, len));
        }
    }
    blobs.close().unwrap();
    let kinds: std::collections::BTreeSet<&[u8]> =
        records.iter().map(|(key, _)| &key[..2]).collect();
    assert_eq!(kinds.len(), 9, "{kinds:?}");

    let mut random = Random::new(1);
    for (key, len) in &records {
        for round in 0..5 {
            let volume = volume.fork(round);
            let bit = random.next_u64() % (8 * len);
            let opens = tamper(&volume, key, |value| {
                value[(bit / 8) as usize] ^= 1 << (bit % 8)
            });
            if !opens {
                assert!(key.starts_with(b"s/"), "{}", key.escape_ascii());
                continue;
            }
            let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
            let whole = store.verify(None).unwrap().is_whole();
            let place = format!("bit {bit} of {}", key.escape_ascii());
            assert!(!(whole && must_be_found(key, bit, *len)), "{place}");
            match get(&store, "m") {
                Ok(restored) => assert!(restored == file, "{place}"),
                Err(WeightError::Corrupt { .. } | WeightError::Newer { .. }) => {
                    assert!(!whole, "{place}");
                }
                Err(error) => panic!("{place}: {error:?}"),
            }
            for name in TENSORS {
                check_tensor(&store, &file, name, &place);
            }
        }
    }
}

/// The tensors of the model but for the large one, which would take longer than all others.
const TENSORS: [&str; 5] = ["raw", "inline", "packed", "base", "tune"];

/// A tensor, whole and in part, is what was stored, or an error.
fn check_tensor(store: &NativeStore, file: &[u8], name: &str, place: &str) {
    let header = Header::read(&mut &file[..], file.len() as u64).unwrap();
    let info = header.tensors().iter().find(|info| info.name == name);
    let info = info.unwrap();
    let start = (header.data_start() + info.start) as usize;
    let bytes = &file[start..start + info.len_bytes() as usize];
    match store.load_tensor("m", name) {
        Ok(loaded) => assert!(loaded.bytes() == bytes, "{name}: {place}"),
        Err(WeightError::Corrupt { .. } | WeightError::Newer { .. }) => {}
        Err(error) => panic!("{place}: {error:?}"),
    }
    let (from, to) = (bytes.len() / 3, bytes.len() / 3 * 2);
    let mut part = vec![0; to - from];
    match store.read_tensor_range("m", name, from as u64, &mut part) {
        Ok(()) => assert!(part == bytes[from..to], "{name}: {place}"),
        Err(WeightError::Corrupt { .. } | WeightError::Newer { .. }) => {}
        Err(error) => panic!("{place}: {error:?}"),
    }
}

#[test]
fn a_manifest_with_another_name_is_found() {
    let (volume, _) = every_record();
    assert!(tamper(&volume, b"m/m", |value| {
        let name = b"\"tune\"";
        let at = value.windows(name.len()).position(|window| window == name);
        value[at.unwrap() + 1] = b'T';
    }));
    let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
    for refused in [get(&store, "m").map(drop), store.model("m").map(drop)] {
        assert!(
            matches!(refused, Err(WeightError::Corrupt { .. })),
            "{refused:?}"
        );
    }
    assert!(!store.verify(None).unwrap().is_whole());
}

#[test]
fn bases_in_a_circle_are_found() {
    let volume = SimVolume::new(6);
    let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
    let base = weights(1, 32 << 10);
    let tune = tuned(&base, 1e-3, 1);
    let stored = [&base, &tune].map(|weights| {
        let bytes = bf16("", 256, weights).bytes;
        let weight = WeightTensor::new("w", DType::BF16, &[128, 256], bytes).unwrap();
        store.store(&weight, None).unwrap()
    });
    assert_eq!(store.stats().unwrap().depths, [1, 1]);
    store.close().unwrap();
    let blobs = NvmeStore::on_volume(volume.handle(), config().storage().clone()).unwrap();
    let key = blobs.keys_with_prefix([b"o/", &stored[0].as_bytes()[..]].concat());
    blobs.close().unwrap();
    // Behind the prelude, the type, two dimensions and the alias; then body and leaf before the codec.
    const BASE: usize = 8 + 5 + 4 + 16 + 8;
    const CODEC: usize = BASE + 24 + 32 + 4;
    assert!(tamper(&volume, &key[0], |value| {
        value[CODEC] = 4;
        value[6] = 1;
        let link = [stored[1].as_bytes(), &[1, 0, 0, 0][..]].concat();
        value.splice(BASE..BASE, link);
    }));
    let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
    for hash in stored {
        let refused = store.load(&hash.into());
        assert!(
            matches!(refused, Err(WeightError::Corrupt { .. })),
            "{refused:?}"
        );
    }
    assert!(!store.verify(None).unwrap().is_whole());
}

#[test]
fn a_chunk_in_the_place_of_another_is_found() {
    let (volume, _) = every_record();
    let blobs = NvmeStore::on_volume(volume.handle(), config().storage().clone()).unwrap();
    let keys = blobs.keys_with_prefix(b"c/");
    // The first is of the weight that the model has too.
    let other = blobs.read_direct(&keys[2]).unwrap().unwrap().to_vec();
    blobs.close().unwrap();
    assert!(tamper(&volume, &keys[1], |value| *value = other));
    let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
    let report = store.verify(None).unwrap();
    assert_eq!(report.corrupt.len(), 1, "{report:?}");
    assert_eq!(report.corrupt[0].models, ["m: raw"]);
    assert!(matches!(get(&store, "m"), Err(WeightError::Corrupt { .. })));
}

#[test]
fn missing_records_are_found() {
    let (volume, _) = every_record();
    let blobs = NvmeStore::on_volume(volume.handle(), config().storage().clone()).unwrap();
    let chunk = blobs.keys_with_prefix(b"c/").swap_remove(0);
    let objects = blobs.keys_with_prefix(b"o/");
    let links = blobs.keys_with_prefix(b"b/");
    blobs.close().unwrap();
    for key in objects.iter().chain([&chunk]).chain(&links) {
        let volume = volume.fork(1);
        let blobs = NvmeStore::on_volume(volume.handle(), config().storage().clone()).unwrap();
        blobs.delete(key).unwrap();
        blobs.close().unwrap();
        let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
        let report = store.verify(None).unwrap();
        assert!(!report.is_whole(), "{}: {report:?}", key.escape_ascii());
        let mut needed = report
            .corrupt
            .iter()
            .filter(|damage| !damage.models.is_empty());
        // Without its link a difference can still be read.
        if !key.starts_with(b"b/") && needed.next().is_some() {
            assert!(matches!(get(&store, "m"), Err(WeightError::Corrupt { .. })));
        }
    }
}

#[test]
fn a_whole_record_of_another_tensor_is_found() {
    let volume = SimVolume::new(5);
    let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
    for seed in [1, 2] {
        let weight = WeightTensor::new("w", DType::U8, &[40], noise(seed, 40)).unwrap();
        store.store(&weight, None).unwrap();
    }
    store.close().unwrap();
    let blobs = NvmeStore::on_volume(volume.handle(), config().storage().clone()).unwrap();
    let keys = blobs.keys_with_prefix(b"o/");
    let other = blobs.read_direct(&keys[1]).unwrap().unwrap().to_vec();
    blobs.close().unwrap();
    // All of it is right, the alias included, but for the tensor that it is about.
    let alias = 23..31;
    assert!(tamper(&volume, &keys[0], |value| {
        let own = value[alias.clone()].to_vec();
        *value = other;
        value[alias].copy_from_slice(&own);
    }));
    let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
    let hash = store.list_weights().unwrap()[0];
    let refused = store.load(&hash.into());
    assert!(
        matches!(refused, Err(WeightError::Corrupt { .. })),
        "{refused:?}"
    );
    assert_eq!(store.verify(None).unwrap().corrupt.len(), 1);
}
