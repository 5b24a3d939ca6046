//! Models go in and come out byte for byte, and share their tensors.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use core_view::DType;

use crate::fixture::{Tensor, add, add_with, bytes, get, noise, plain, safetensors, store, varied};
use weightstore::{
    ByteSource, Codec, ExportOptions, HashKey, ImportOptions, NativeStore, SourceFile,
    TensorChange, WeightError, WeightStore,
};

const CODECS: [Codec; 4] = [
    Codec::None,
    Codec::Auto,
    Codec::Lz4,
    Codec::Gzip { level: 4 },
];

#[test]
fn a_model_comes_out_as_it_went_in() {
    let file = varied(1);
    for codec in CODECS.into_iter().filter(|codec| codec.check().is_ok()) {
        let (volume, store) = store();
        let options = ImportOptions::default().with_codec(codec);
        let report = add_with(&store, "m", &file, &options).unwrap();
        assert_eq!(report.tensors, 28);
        assert_eq!(report.new_tensors + report.deduplicated_tensors, 28);
        assert_eq!(report.logical_bytes, file.len() as u64);
        assert_eq!(get(&store, "m").unwrap(), file, "{codec}");
        if codec != Codec::None {
            assert!(
                report.stored_bytes < 3 << 20,
                "{codec}: {}",
                report.stored_bytes
            );
        }
        store.close().unwrap();
        let store = NativeStore::on_volume(volume.handle(), crate::fixture::config()).unwrap();
        assert_eq!(store.models().unwrap(), ["m"]);
        assert_eq!(get(&store, "m").unwrap(), file, "{codec} reopened");
        assert!(store.verify(None).unwrap().is_whole());
    }
}

#[test]
fn the_same_tensors_are_stored_once() {
    let (_, store) = store();
    let file = varied(1);
    let first = add(&store, "first", &file).unwrap();
    let second = add(&store, "second", &file).unwrap();
    assert_eq!(second.new_tensors, 0);
    assert_eq!(second.deduplicated_tensors, second.tensors);
    assert_eq!(second.content_hash, first.content_hash);
    assert!(second.stored_bytes < 10_000, "{}", second.stored_bytes);
    let again = add(&store, "first", &file).unwrap();
    assert!(again.was_there && again.new_tensors == 0);
    assert_eq!(get(&store, "second").unwrap(), file);
    let stats = store.stats().unwrap();
    assert_eq!(stats.models, 2);
    assert_eq!(stats.tensors, first.new_tensors);
    assert_eq!(stats.logical_bytes, 2 * file.len() as u64);
    assert!(stats.ratio > 0.15 && stats.ratio < 0.2, "{}", stats.ratio);
}

#[test]
fn elements_are_compared_as_what_they_are() {
    let (_, store) = store();
    let tensor = |dtype: DType, bytes: &[u8]| Tensor {
        name: dtype.to_string(),
        dtype,
        shape: vec![bytes.len() as u64 * 8 / dtype.bits() as u64],
        bytes: bytes.to_vec(),
    };
    let model = |name, [power, packed, across, complex]: [&[u8]; 4]| {
        let tensors = [
            tensor(DType::F8E8M0, power),
            tensor(DType::F4, packed),
            tensor(DType::F6E2M3, across),
            tensor(DType::C64, complex),
        ];
        add(&store, name, &safetensors(&tensors)).unwrap();
    };
    let numbers = |numbers: [f32; 4]| numbers.map(f32::to_le_bytes).concat();
    let (first, second) = (numbers([3.0, 4.0, 0.0, 0.0]), numbers([3.0, 4.5, 0.0, 0.0]));
    model(
        "a",
        [&[127, 127, 127, 0], &[0x22, 0x22], &[1, 2, 3], &first],
    );
    model(
        "b",
        [&[128, 127, 127, 0], &[0x22, 0x24], &[1, 2, 4], &second],
    );
    let comparison = store.compare_models("a", "b", None).unwrap();
    let change = |dtype: DType| {
        let mut tensors = comparison.tensors.iter();
        tensors.find(|tensor| tensor.dtype == dtype).unwrap().change
    };
    let expected = [
        (DType::F8E8M0, 1.0 / 3.0_f64.sqrt(), 0.25),
        (DType::F4, 0.5, 0.25),
        (DType::C64, 0.1, 0.5),
    ];
    for (dtype, relative_change, changed_share) in expected {
        let TensorChange::Changed(Some(elements)) = change(dtype) else {
            panic!("{dtype} {:?}", change(dtype));
        };
        let off = elements.relative_change - relative_change;
        assert!(off.abs() < 1e-12, "{dtype} {elements:?}");
        assert_eq!(elements.changed_share, changed_share, "{dtype}");
    }
    assert_eq!(change(DType::F6E2M3), TensorChange::Changed(None));
    let layer = |dtype: DType| {
        let mut layers = comparison.layers.iter();
        layers
            .find(|layer| layer.layer == dtype.to_string())
            .unwrap()
    };
    let across = layer(DType::F6E2M3);
    assert_eq!((across.changed_tensors, across.similarity), (1, None));
}

#[test]
fn a_tensor_that_a_model_has_twice_is_stored_once() {
    let (_, store) = store();
    let large = noise(5, 20 << 20);
    let file = safetensors(&[
        bytes("embedding", large.clone()),
        bytes("small", noise(6, 100)),
        bytes("head", large),
        bytes("small.again", noise(6, 100)),
    ]);
    let report = add(&store, "tied", &file).unwrap();
    assert_eq!((report.new_tensors, report.deduplicated_tensors), (2, 2));
    assert!(report.stored_bytes < 21 << 20);
    assert_eq!(get(&store, "tied").unwrap(), file);
    let verified = store.verify(None).unwrap();
    assert!(
        verified.is_whole() && verified.unreachable == 0,
        "{verified:?}"
    );
}

#[test]
fn a_large_tensor_that_begins_like_another_is_stored_right() {
    // Compared over three groups of chunks, and over two.
    for (codec, len) in [(Codec::None, 33 << 20), (Codec::Lz4, 17 << 20)] {
        if codec.check().is_err() {
            continue;
        }
        let (_, store) = store();
        let first = noise(1, len + 5);
        let mut second = first.clone();
        *second.last_mut().unwrap() ^= 1;
        let mut third = first.clone();
        third[(16 << 20) + 1] ^= 1;
        for (name, large, new) in [
            ("a", &first, 2),
            ("b", &first, 0),
            ("c", &second, 1),
            ("d", &third, 1),
        ] {
            let file = safetensors(&[
                bytes("before", plain(3, 5000)),
                bytes("large", large.clone()),
                bytes("after", plain(3, 5000)),
            ]);
            let options = ImportOptions::default()
                .with_codec(codec)
                .with_file_sha256(true);
            let report = add_with(&store, name, &file, &options).unwrap();
            assert_eq!(report.new_tensors, new, "{name}");
            assert_eq!(get(&store, name).unwrap(), file, "{name}");
        }
        let verified = store.verify(None).unwrap();
        assert!(
            verified.is_whole() && verified.unreachable == 0,
            "{verified:?}"
        );
    }
}

#[test]
fn a_name_is_taken_by_its_first_content_until_it_is_replaced() {
    let (_, store) = store();
    let old = varied(1);
    let new = safetensors(&[bytes("w", noise(9, 3 << 20))]);
    add(&store, "m", &old).unwrap();
    let refused = add(&store, "m", &new);
    assert!(matches!(refused, Err(WeightError::ModelExists { .. })));
    assert_eq!(get(&store, "m").unwrap(), old);
    // The same header with other data shows only once it is hashed.
    let mut changed = old.clone();
    *changed.last_mut().unwrap() ^= 1;
    let refused = add(&store, "m", &changed);
    assert!(matches!(refused, Err(WeightError::ModelExists { .. })));
    let replace = ImportOptions::default().with_replace(true);
    let report = add_with(&store, "m", &new, &replace).unwrap();
    assert_eq!(report.new_tensors, 1);
    assert_eq!(get(&store, "m").unwrap(), new);
    assert_eq!(store.list_weights().unwrap().len(), 1);
    let verified = store.verify(None).unwrap();
    assert!(
        verified.is_whole() && verified.unreachable == 0,
        "{verified:?}"
    );
}

#[test]
fn files_have_the_names_that_were_imported_last() {
    let (volume, store) = store();
    let (first, second) = (varied(1), safetensors(&[bytes("w", noise(9, 3 << 20))]));
    let import = |names: [&str; 2], options: &ImportOptions<'_>| {
        let files = [(names[0], &first), (names[1], &second)];
        let files = files.map(|(name, source)| SourceFile { name, source });
        store.add_sharded_model("m", &files, options).unwrap()
    };
    let names = |store: &NativeStore| -> Vec<String> {
        let files = store.model("m").unwrap().files;
        files.into_iter().map(|file| file.name).collect()
    };
    let summed = ImportOptions::default().with_file_sha256(true);
    let report = import(["a", "b"], &summed.with_metadata("run", "1"));
    assert!(!report.was_there);
    let sums: Vec<_> = store
        .model("m")
        .unwrap()
        .files
        .into_iter()
        .map(|file| file.sha256)
        .collect();
    assert!(sums.iter().all(Option::is_some));

    // Unless the model is to be replaced, nothing changes.
    let report = import(["c", "d"], &ImportOptions::default());
    assert!(report.was_there && report.new_tensors == 0);
    assert_eq!(names(&store), ["a", "b"]);

    let replace = ImportOptions::default().with_replace(true);
    let report = import(["c", "d"], &replace.clone().with_metadata("run", "2"));
    assert!(report.was_there && report.new_tensors == 0);
    assert_eq!(names(&store), ["c", "d"]);
    let info = store.model("m").unwrap();
    assert_eq!(info.metadata, [("run".to_owned(), "2".to_owned())]);
    // They are of the same bytes, and stay.
    let kept: Vec<_> = info.files.into_iter().map(|file| file.sha256).collect();
    assert_eq!(kept, sums);
    for (name, file) in [("c", &first), ("d", &second)] {
        let mut restored = Vec::new();
        let options = ExportOptions::default().with_file(name);
        store.export_model("m", &mut restored, &options).unwrap();
        assert!(&restored == file, "{name}");
    }
    // What is the same in everything is not written again.
    let again = import(["c", "d"], &replace.with_metadata("run", "2"));
    assert!(again.was_there && again.stored_bytes == 0, "{again:?}");

    store.close().unwrap();
    let store = NativeStore::on_volume(volume.handle(), crate::fixture::config()).unwrap();
    assert_eq!(names(&store), ["c", "d"]);
    let removed = store.remove_model("m").unwrap();
    assert_eq!(removed.kept_tensors, 0);
    assert!(store.list_weights().unwrap().is_empty());
}

#[test]
fn removing_a_model_keeps_what_others_need() {
    let (volume, store) = store();
    let shared = bytes("shared", noise(1, 3 << 20));
    let first = safetensors(&[shared.clone(), bytes("own", noise(2, 2 << 20))]);
    let second = safetensors(&[shared.clone(), bytes("own", noise(3, 20 << 20))]);
    add(&store, "first", &first).unwrap();
    add(&store, "second", &second).unwrap();
    let kept = store.load_tensor("first", "own").unwrap();
    let key = HashKey::from(store.store(&kept, None).unwrap());

    let report = store.remove_model("second").unwrap();
    assert_eq!((report.removed_tensors, report.kept_tensors), (1, 1));
    assert!(matches!(
        get(&store, "second"),
        Err(WeightError::ModelNotFound { .. })
    ));
    assert!(matches!(
        store.remove_model("second"),
        Err(WeightError::ModelNotFound { .. })
    ));
    assert_eq!(get(&store, "first").unwrap(), first);
    assert!(matches!(store.delete(&key), Err(WeightError::InUse { .. })));

    let report = store.remove_model("first").unwrap();
    assert_eq!((report.removed_tensors, report.kept_tensors), (1, 1));
    let loaded = store.load(&key).unwrap().unwrap();
    assert_eq!((loaded.name(), loaded.bytes()), ("own", kept.bytes()));
    assert!(store.delete(&key).unwrap());
    assert!(store.list_weights().unwrap().is_empty());
    let verified = store.verify(None).unwrap();
    assert!(
        verified.is_whole() && verified.unreachable == 0,
        "{verified:?}"
    );
    store.close().unwrap();
    let store = NativeStore::on_volume(volume.handle(), crate::fixture::config()).unwrap();
    assert!(store.models().unwrap().is_empty());
    assert!(store.blobs().keys_with_prefix(b"c/").is_empty());
}

#[test]
fn tensors_of_models_are_weights_too() {
    let (_, store) = store();
    let file = safetensors(&[bytes("w", noise(1, 5000))]);
    add(&store, "a", &file).unwrap();
    add(&store, "b", &file).unwrap();
    let hash = store.list_weights().unwrap()[0];
    let metadata = store.get_metadata(&hash.into()).unwrap().unwrap();
    assert_eq!(
        (&*metadata.name, metadata.model_name.as_deref()),
        ("w", Some("a"))
    );
    let uses = store.uses(&hash.into()).unwrap();
    assert_eq!(uses.len(), 2);
    assert_eq!(uses[1].model_name.as_deref(), Some("b"));
    assert_eq!(
        store.load(&hash.into()).unwrap().unwrap().bytes(),
        noise(1, 5000)
    );
}

#[test]
fn parts_of_tensors_are_read_alone() {
    let (_, store) = store();
    let data = [noise(1, 2 << 20), plain(1, (2 << 20) + 9)].concat();
    let options = ImportOptions::default().with_codec(Codec::Lz4);
    add_with(
        &store,
        "m",
        &safetensors(&[bytes("w", data.clone())]),
        &options,
    )
    .unwrap();
    let len = data.len();
    for (start, end) in [
        (0, 0),
        (0, 1),
        (0, len),
        ((1 << 20) - 1, (1 << 20) + 1),
        (len - 1, len),
        (len, len),
    ] {
        let mut target = vec![0; end - start];
        store
            .read_tensor_range("m", "w", start as u64, &mut target)
            .unwrap();
        assert_eq!(target, data[start..end], "{start}..{end}");
    }
    let refused = store.read_tensor_range("m", "w", len as u64, &mut [0]);
    assert!(matches!(refused, Err(WeightError::OutOfRange { .. })));
    let refused = store.read_tensor_range("m", "w", u64::MAX, &mut [0; 2]);
    assert!(matches!(refused, Err(WeightError::OutOfRange { .. })));
    let refused = store.read_tensor_range("m", "x", 0, &mut [0]);
    assert!(matches!(refused, Err(WeightError::PartNotFound { .. })));
}

#[test]
fn a_sharded_model_keeps_its_files_and_index() {
    let (_, store) = store();
    let first = safetensors(&[bytes("a", noise(1, 100_000)), bytes("t", noise(3, 70))]);
    let second = safetensors(&[bytes("b", noise(2, 100)), bytes("t2", noise(3, 70))]);
    let index = r#"{"metadata":{},"weight_map":{"a":"one","t":"one","b":"two","t2":"two"}}"#;
    let files = [
        SourceFile {
            name: "one",
            source: &first,
        },
        SourceFile {
            name: "two",
            source: &second,
        },
    ];
    let options = ImportOptions::default()
        .with_index(index)
        .with_metadata("origin", "test");
    let report = store.add_sharded_model("m", &files, &options).unwrap();
    assert_eq!((report.tensors, report.new_tensors), (4, 3));
    let info = store.model("m").unwrap();
    assert_eq!(info.index.as_deref(), Some(index));
    assert_eq!(info.metadata, [("origin".to_owned(), "test".to_owned())]);
    assert_eq!(info.files[1].tensors[1].name, "t2");
    for (name, file) in [("one", &first), ("two", &second)] {
        let mut restored = Vec::new();
        let options = ExportOptions::default().with_file(name);
        store.export_model("m", &mut restored, &options).unwrap();
        assert_eq!(&restored, file);
    }
    for file in [None, Some("three")] {
        let options = file.map_or_else(ExportOptions::default, |file| {
            ExportOptions::default().with_file(file)
        });
        let refused = store.export_model("m", &mut Vec::new(), &options);
        assert!(matches!(refused, Err(WeightError::PartNotFound { .. })));
    }
    let wrong = r#"{"weight_map":{"nowhere":"one"}}"#;
    let refused = store.add_sharded_model("n", &files, &ImportOptions::default().with_index(wrong));
    assert!(matches!(refused, Err(WeightError::IndexMismatch { .. })));
    let twins = [files[0], files[0]];
    let refused = store.add_sharded_model("n", &twins, &ImportOptions::default());
    assert!(matches!(refused, Err(WeightError::InvalidName { .. })));
}

#[test]
fn progress_ends_at_the_total() {
    let (_, store) = store();
    let file = varied(3);
    let seen = Mutex::new(Vec::new());
    let progress = |progress: weightstore::Progress| seen.lock().unwrap().push(progress);
    let options = ImportOptions::default().with_progress(&progress);
    add_with(&store, "m", &file, &options).unwrap();
    let options = ExportOptions::default().with_progress(&progress);
    store.export_model("m", &mut Vec::new(), &options).unwrap();
    for progress in seen.lock().unwrap().iter() {
        assert_eq!(progress.total_bytes, file.len() as u64);
    }
    assert_eq!(
        seen.lock().unwrap().last().unwrap().done_bytes,
        file.len() as u64
    );
}

/// Notes up to which byte it was read.
struct Noting<'a> {
    bytes: &'a [u8],
    read_to: AtomicU64,
}

impl ByteSource for Noting<'_> {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read_exact_at(&self, offset_bytes: u64, target: &mut [u8]) -> io::Result<()> {
        let end = offset_bytes + target.len() as u64;
        self.read_to.fetch_max(end, Ordering::SeqCst);
        self.bytes.read_exact_at(offset_bytes, target)
    }
}

#[test]
fn progress_counts_what_is_done_and_not_what_is_read_ahead() {
    let (_, store) = store();
    let tensors: Vec<Tensor> = (0..9)
        .map(|index| bytes(&format!("t{index}"), noise(index, 5 << 20)))
        .collect();
    let file = safetensors(&tensors);
    let source = Noting {
        bytes: &file,
        read_to: AtomicU64::new(0),
    };
    let seen = Mutex::new(Vec::new());
    let progress = |progress: weightstore::Progress| {
        let read_to = source.read_to.load(Ordering::SeqCst);
        seen.lock().unwrap().push((progress.done_bytes, read_to));
    };
    let options = ImportOptions::default().with_progress(&progress);
    let named = SourceFile {
        name: "m",
        source: &source,
    };
    store.add_model("m", named, &options).unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.is_sorted() && seen.len() >= 3, "{seen:?}");
    let len = file.len() as u64;
    assert_eq!(seen.last(), Some(&(len, len)), "{seen:?}");
    // While a group is stored the next one was read.
    let (first_done, first_read) = seen[0];
    assert!(first_done + (8 << 20) <= first_read, "{seen:?}");
}

#[test]
fn a_model_without_tensors_is_a_model() {
    let (_, store) = store();
    let file = safetensors(&[]);
    let report = add(&store, "nothing", &file).unwrap();
    assert_eq!((report.tensors, report.new_tensors), (0, 0));
    assert_eq!(get(&store, "nothing").unwrap(), file);
}

#[test]
fn names_that_can_not_be_used_are_refused() {
    let (_, store) = store();
    let file = safetensors(&[]);
    for name in ["", "a\nb", &"x".repeat(513)] {
        let refused = add(&store, name, &file);
        assert!(
            matches!(refused, Err(WeightError::InvalidName { .. })),
            "{name}"
        );
    }
    add(&store, "org/模型 v1.0", &file).unwrap();
}
