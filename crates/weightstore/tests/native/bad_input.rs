//! Files that are not what they should be, and sources that fail.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use core_view::safetensors::SafetensorsError;
use tier_nvme::sim::SimVolume;
use tier_nvme::{NvmeStore, StorageConfig};
use weightstore::{
    ByteSource, ImportOptions, NativeConfig, NativeStore, SourceFile, WeightError, WeightStore,
};

use crate::fixture::{add, bytes, config, noise, safetensors, store};

#[test]
fn files_that_are_no_safetensors_files_are_refused() {
    let (_, store) = store();
    let whole = safetensors(&[bytes("w", noise(1, 3 << 20))]);
    let cut = whole.len() - 1;
    let mut longer = whole.clone();
    longer.push(0);
    let text = |json: &str, data: usize| {
        [
            &(json.len() as u64).to_le_bytes()[..],
            json.as_bytes(),
            &vec![0; data],
        ]
        .concat()
    };
    let overlap = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
    let wrong_type = r#"{"a":{"dtype":"Q7","shape":[4],"data_offsets":[0,4]}}"#;
    let huge = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    for (case, file) in [
        ("empty", Vec::new()),
        ("short", vec![1, 2, 3]),
        ("truncated header", whole[..20].to_vec()),
        ("truncated data", whole[..cut].to_vec()),
        ("trailing byte", longer),
        ("oversized header", huge),
        ("overlap", text(overlap, 6)),
        ("unknown type", text(wrong_type, 4)),
        (
            "no UTF-8",
            [&4_u64.to_le_bytes()[..], &[0xff, 0xfe, 0, 0]].concat(),
        ),
        ("no JSON", text("hello", 0)),
    ] {
        match add(&store, "m", &file) {
            Err(WeightError::Safetensors { file, source }) => {
                assert_eq!(file, "model.safetensors");
                assert!(!source.to_string().is_empty());
                if case == "overlap" {
                    assert!(matches!(source, SafetensorsError::Overlap { .. }));
                }
            }
            other => panic!("{case}: {other:?}"),
        }
    }
    assert!(store.models().unwrap().is_empty());
    assert!(store.list_weights().unwrap().is_empty());
}

/// A source that misbehaves once some bytes were read.
struct Moody {
    bytes: Vec<u8>,
    reads: AtomicU64,
    mood: Mood,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Mood {
    Fails,
    Shrinks,
    Grows,
    IsModified,
}

impl Moody {
    fn turned(&self) -> bool {
        self.reads.load(Ordering::SeqCst) > 8
    }
}

impl ByteSource for Moody {
    fn len_bytes(&self) -> io::Result<u64> {
        let grown = self.turned() && self.mood == Mood::Grows;
        Ok(self.bytes.len() as u64 + u64::from(grown))
    }

    fn read_exact_at(&self, offset_bytes: u64, target: &mut [u8]) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        match self.mood {
            Mood::Fails if self.turned() => Err(io::Error::other("the cable is out")),
            Mood::Shrinks if self.turned() => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => self.bytes.read_exact_at(offset_bytes, target),
        }
    }

    fn version(&self) -> io::Result<u128> {
        Ok(u128::from(self.turned() && self.mood == Mood::IsModified))
    }
}

#[test]
fn a_source_that_fails_or_changes_leaves_nothing_behind() {
    for mood in [Mood::Fails, Mood::Shrinks, Mood::Grows, Mood::IsModified] {
        let (_, store) = store();
        let source = Moody {
            bytes: safetensors(&[
                bytes("small", noise(2, 5000)),
                bytes("large", noise(1, 20 << 20)),
            ]),
            reads: AtomicU64::new(0),
            mood,
        };
        let file = SourceFile {
            name: "moody",
            source: &source,
        };
        let refused = store.add_model("m", file, &ImportOptions::default());
        match refused {
            Err(WeightError::Source { file, .. }) if mood == Mood::Fails => {
                assert_eq!(file, "moody");
            }
            Err(WeightError::SourceChanged { file, .. }) if mood != Mood::Fails => {
                assert_eq!(file, "moody");
            }
            other => panic!("{mood:?}: {other:?}"),
        }
        assert!(store.models().unwrap().is_empty());
        assert!(store.list_weights().unwrap().is_empty(), "{mood:?}");
        assert_eq!(store.verify(None).unwrap().unreachable, 0, "{mood:?}");
    }
}

#[test]
fn a_target_that_fails_is_named() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_, store) = store();
    add(&store, "m", &safetensors(&[bytes("w", noise(1, 3 << 20))])).unwrap();
    let failed = store.export_model("m", &mut Full, &Default::default());
    assert!(
        matches!(failed, Err(WeightError::Target { .. })),
        "{failed:?}"
    );
}

#[test]
fn other_stores_and_newer_ones_are_refused() {
    let volume = SimVolume::new(1);
    let blobs = NvmeStore::on_volume(volume.handle(), config().storage().clone()).unwrap();
    blobs.write_aligned("someone's key", b"value").unwrap();
    blobs.close().unwrap();
    let refused = NativeStore::on_volume(volume.handle(), config());
    assert!(
        matches!(refused, Err(WeightError::NotAWeightStore { .. })),
        "{refused:?}"
    );

    let volume = SimVolume::new(2);
    let blobs = NvmeStore::on_volume(volume.handle(), config().storage().clone()).unwrap();
    let newer = [
        &b"SWST"[..],
        &[2, 0, 0, 0],
        &(1_u32 << 20).to_le_bytes(),
        &[0; 4],
    ]
    .concat();
    blobs.write_aligned("s/format", &newer).unwrap();
    blobs.close().unwrap();
    let refused = NativeStore::on_volume(volume.handle(), config());
    assert!(
        matches!(refused, Err(WeightError::Newer { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_store_in_use_and_a_read_only_one_are_told_apart() {
    let (volume, store) = store();
    let file = safetensors(&[bytes("w", noise(1, 100))]);
    add(&store, "m", &file).unwrap();
    let in_use = NativeStore::on_volume(volume.handle(), config());
    assert!(
        matches!(in_use, Err(WeightError::Storage { .. })),
        "{in_use:?}"
    );
    store.close().unwrap();

    let store = NativeStore::on_volume(volume.handle(), config().with_read_only(true)).unwrap();
    assert_eq!(crate::fixture::get(&store, "m").unwrap(), file);
    let refused = add(&store, "n", &safetensors(&[bytes("w", noise(2, 100))]));
    assert!(
        matches!(refused, Err(WeightError::Storage { .. })),
        "{refused:?}"
    );
    assert!(store.verify(None).unwrap().is_whole());
}

#[test]
fn settings_out_of_range_are_named() {
    let on = |config: NativeConfig| NativeStore::on_volume(SimVolume::new(1).handle(), config);
    for (field, config) in [
        ("threads", NativeConfig::default().with_threads(0)),
        ("batch_bytes", NativeConfig::default().with_batch_bytes(7)),
    ] {
        match on(config) {
            Err(WeightError::InvalidConfig { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{other:?}"),
        }
    }
    let absent = NativeConfig::default()
        .with_create(false)
        .with_storage(StorageConfig::default().with_create(false));
    assert!(matches!(on(absent), Err(WeightError::Storage { .. })));
}
