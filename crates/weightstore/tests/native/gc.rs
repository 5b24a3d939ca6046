//! Garbage goes, nothing else does, whatever runs beside.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tier_nvme::sim::SimVolume;
use tier_nvme::{NvmeStore, StorageConfig};
use weightstore::{
    ByteSource, GcOptions, GcReport, ImportOptions, NativeConfig, NativeStore, SourceFile,
    WeightError, WeightStore,
};

use crate::fixture::{
    add, add_with, bf16, bytes, config, get, noise, safetensors, store, tuned, weights,
};

/// A model of two tensors of a family: each step is a fine-tune of the one before.
fn generation(step: u64) -> Vec<u8> {
    let mut now = weights(1, 32 << 10);
    for step in 0..step {
        now = tuned(&now, 2e-3, step);
    }
    safetensors(&[bf16("w", 256, &now), bytes("own", noise(step, 5000))])
}

fn collect(store: &NativeStore) -> GcReport {
    store.gc(GcOptions::default()).unwrap()
}

fn unreachable(store: &NativeStore) -> u64 {
    let report = store.verify(None).unwrap();
    assert!(report.is_whole(), "{report:?}");
    report.unreachable
}

#[test]
fn what_a_power_loss_leaves_is_collected() {
    let small = || {
        let storage = StorageConfig::default().with_segment_bytes(4 << 20);
        config()
            .with_storage(storage)
            .with_batch_bytes(NativeConfig::BATCH_BYTES_MIN)
    };
    let volume = SimVolume::new(3);
    let store = NativeStore::on_volume(volume.handle(), small()).unwrap();
    let kept = generation(0);
    add(&store, "kept", &kept).unwrap();
    volume.fail_power_after(24);
    let file = safetensors(&[bytes("large", noise(9, 14 << 20))]);
    add(&store, "cut off", &file).unwrap_err();
    volume.crash();

    let store = NativeStore::on_volume(volume.handle(), small()).unwrap();
    let left = unreachable(&store);
    assert!(left > 0);
    let before = store.stats().unwrap().stored_bytes;
    let dry = store.gc(GcOptions::default().with_dry_run(true)).unwrap();
    assert_eq!((dry.removed_chunks, unreachable(&store)), (left, left));
    let report = collect(&store);
    assert_eq!((report.removed_tensors, report.removed_chunks), (0, left));
    assert_eq!(report.reclaimed_bytes, dry.reclaimed_bytes);
    assert_eq!(
        store.stats().unwrap().stored_bytes,
        before - report.reclaimed_bytes
    );
    assert_eq!(unreachable(&store), 0);
    assert_eq!(collect(&store), GcReport::default());
    assert!(get(&store, "kept").unwrap() == kept);
}

/// A file that has garbage collected while it is read.
struct Collecting<'a> {
    file: &'a [u8],
    store: &'a NativeStore,
    collected: AtomicU64,
}

impl ByteSource for Collecting<'_> {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.file.len() as u64)
    }

    fn read_exact_at(&self, offset_bytes: u64, target: &mut [u8]) -> io::Result<()> {
        // Late enough that chunks were committed that no header names yet.
        if offset_bytes > 40 << 20 && target.len() == 1 << 20 {
            let report = collect(self.store);
            assert_eq!((report.removed_chunks, report.removed_tensors), (0, 0));
            self.collected.fetch_add(1, Ordering::SeqCst);
        }
        self.file.as_ref().read_exact_at(offset_bytes, target)
    }
}

#[test]
fn a_running_import_is_left_alone() {
    let (_, store) = store();
    let file = safetensors(&[
        bytes("first", noise(1, 300_000)),
        bytes("large", noise(2, 60 << 20)),
    ]);
    let source = Collecting {
        file: &file,
        store: &store,
        collected: AtomicU64::new(0),
    };
    let input = SourceFile {
        name: "model.safetensors",
        source: &source,
    };
    store
        .add_model("m", input, &ImportOptions::default())
        .unwrap();
    assert!(source.collected.load(Ordering::SeqCst) > 5);
    assert!(get(&store, "m").unwrap() == file);
    assert_eq!(unreachable(&store), 0);
}

#[test]
fn nothing_is_collected_while_a_header_can_not_be_read() {
    let (volume, store) = store();
    for step in 0..2 {
        add(&store, &step.to_string(), &generation(step)).unwrap();
    }
    let hash = store.model("1").unwrap().files[0].tensors[0].hash;
    store.close().unwrap();
    let blobs = NvmeStore::on_volume(volume.handle(), config().storage().clone()).unwrap();
    let damaged = blobs.keys_with_prefix([b"o/", &hash.as_bytes()[..]].concat());
    let mut value = blobs.read_direct(&damaged[0]).unwrap().unwrap().to_vec();
    value[10] ^= 1;
    blobs.write_aligned(&damaged[0], &value).unwrap();
    // A chunk that nothing names: or does the damaged header?
    let chunk = [&b"c/"[..], &1000_u64.to_be_bytes(), &[0; 4]].concat();
    blobs.write_aligned(&chunk, b"chunk").unwrap();
    blobs.close().unwrap();
    let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
    let report = collect(&store);
    assert_eq!(report.unreadable.len(), 1, "{report:?}");
    assert_eq!((report.removed_tensors, report.removed_chunks), (0, 0));
    assert!(store.blobs().contains(&chunk));
}

#[test]
fn what_is_damaged_keeps_its_base() {
    let (volume, store) = store();
    let files: Vec<Vec<u8>> = (0..3).map(generation).collect();
    let on_first = ImportOptions::default().with_base("0");
    add(&store, "0", &files[0]).unwrap();
    for step in [1, 2] {
        add_with(&store, &step.to_string(), &files[step], &on_first).unwrap();
    }
    store.close().unwrap();
    let blobs = NvmeStore::on_volume(volume.handle(), config().storage().clone()).unwrap();
    let chunks = blobs.keys_with_prefix(b"c/");
    // Bodies are numbered in the order in which they are stored: the last difference is of the last model.
    let lens = chunks.iter().map(|key| (blobs.len_of(key), key));
    let difference = lens
        .filter(|(len, _)| *len != Some(5000))
        .max_by_key(|(_, key)| *key);
    let key = difference.unwrap().1;
    let mut value = blobs.read_direct(key).unwrap().unwrap().to_vec();
    value[200] ^= 1;
    blobs.write_aligned(key, &value).unwrap();
    blobs.close().unwrap();
    let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
    assert!(matches!(get(&store, "2"), Err(WeightError::Corrupt { .. })));
    store.remove_model("0").unwrap();
    let report = store.gc(GcOptions::default().with_rebase(true)).unwrap();
    assert_eq!(
        (report.rebased_tensors, report.kept_bases),
        (1, 1),
        "{report:?}"
    );
    assert!(get(&store, "1").unwrap() == files[1]);
    assert_eq!(store.verify(None).unwrap().corrupt.len(), 1);
    // It goes with its model, and the base with it.
    store.remove_model("2").unwrap();
    assert_eq!(unreachable(&store), 0);
    assert_eq!(store.stats().unwrap().unnamed_tensors, 0);
}

#[test]
fn records_without_their_tensor_are_collected() {
    let (volume, store) = store();
    let file = generation(0);
    add(&store, "m", &file).unwrap();
    store.close().unwrap();
    let blobs = NvmeStore::on_volume(volume.handle(), config().storage().clone()).unwrap();
    for prefix in [b"h/", b"k/"] {
        let middle = if prefix == b"h/" { 16 } else { 25 };
        let key = [&prefix[..], &vec![7; middle], &[9; 32]].concat();
        blobs.write_aligned(&key, b"SWHN\x01\0\0\0").unwrap();
    }
    let link = [&b"b/"[..], &[8; 32], &[9; 32]].concat();
    blobs.write_aligned(&link, b"SWBL\x01\0\0\0").unwrap();
    blobs.close().unwrap();
    let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
    assert_eq!(collect(&store).removed_records, 3);
    assert_eq!(unreachable(&store), 0);
    assert!(get(&store, "m").unwrap() == file);
}

/// All orders of some numbers.
fn orders(numbers: &[u64]) -> Vec<Vec<u64>> {
    if numbers.is_empty() {
        return vec![Vec::new()];
    }
    let first = numbers.iter().flat_map(|first| {
        let rest: Vec<u64> = numbers.iter().copied().filter(|n| n != first).collect();
        orders(&rest)
            .into_iter()
            .map(move |rest| [&[*first], &rest[..]].concat())
    });
    first.collect()
}

#[test]
fn models_of_a_chain_go_in_every_order() {
    let files: Vec<Vec<u8>> = (0..4).map(generation).collect();
    let volume = SimVolume::new(1);
    let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
    for (step, file) in files.iter().enumerate() {
        let before = step.saturating_sub(1).to_string();
        let options = match step {
            0 => ImportOptions::default(),
            _ => ImportOptions::default().with_base(&before),
        };
        add_with(&store, &step.to_string(), file, &options).unwrap();
    }
    assert_eq!(store.stats().unwrap().depths, [5, 1, 1, 1]);
    store.close().unwrap();
    for (index, order) in orders(&[0, 1, 2, 3]).into_iter().enumerate() {
        let rebase = index % 2 == 0;
        let store = NativeStore::on_volume(volume.fork(1).handle(), config()).unwrap();
        for (gone, step) in order.iter().enumerate() {
            store.remove_model(&step.to_string()).unwrap();
            let report = store.gc(GcOptions::default().with_rebase(rebase)).unwrap();
            assert_eq!(report.unreadable, [""; 0]);
            for left in &order[gone + 1..] {
                let file = get(&store, &left.to_string()).unwrap();
                assert!(file == files[*left as usize], "{left} of {order:?}");
            }
            let stats = store.stats().unwrap();
            assert_eq!(
                stats.unnamed_tensors,
                if rebase { 0 } else { report.kept_bases }
            );
            assert_eq!(unreachable(&store), 0);
        }
        assert!(store.list_weights().unwrap().is_empty(), "{order:?}");
    }
}

#[test]
fn a_base_that_goes_leaves_its_place_to_the_first() {
    let volume = SimVolume::new(1);
    let store = NativeStore::on_volume(volume.handle(), config().with_rebase(true)).unwrap();
    let base = weights(1, 32 << 10);
    let member = |step| safetensors(&[bf16("w", 256, &tuned(&base, 1e-3 * step as f32, step))]);
    let files: Vec<Vec<u8>> = (0..4).map(member).collect();
    for (step, file) in files.iter().enumerate() {
        // All against the first.
        let options = ImportOptions::default()
            .with_find_bases(false)
            .with_base("0");
        match step {
            0 => add(&store, "0", file).unwrap(),
            step => add_with(&store, &step.to_string(), file, &options).unwrap(),
        };
    }
    assert_eq!(store.stats().unwrap().depths, [1, 3]);
    let whole = store.stats().unwrap().stored_bytes;
    let removed = store.remove_model("0").unwrap();
    assert_eq!((removed.removed_tensors, removed.kept_tensors), (1, 0));
    let stats = store.stats().unwrap();
    assert_eq!((stats.depths, stats.unnamed_tensors), (vec![1, 2], 0));
    assert!(stats.stored_bytes < whole);
    for (step, file) in files.iter().enumerate().skip(1) {
        assert!(get(&store, &step.to_string()).unwrap() == *file);
    }
    assert_eq!(unreachable(&store), 0);

    // A single weight goes by its hash in the same way.
    let hash = store.model("1").unwrap().files[0].tensors[0].hash;
    let weight = store.load(&hash.into()).unwrap().unwrap();
    store.store(&weight, None).unwrap();
    store.remove_model("1").unwrap();
    assert!(store.delete(&hash.into()).unwrap());
    for (step, file) in files.iter().enumerate().skip(2) {
        assert!(get(&store, &step.to_string()).unwrap() == *file);
    }
    assert_eq!(unreachable(&store), 0);
}

/// Adds, reads and removes members of a family that others add and remove too.
fn churn(store: &NativeStore, files: &[Vec<u8>], thread: usize) {
    for round in 0..12 {
        let step = (thread + round) % files.len();
        let name = format!("{}", step % 4);
        let replace = ImportOptions::default().with_replace(true);
        add_with(store, &name, &files[step], &replace).unwrap();
        match get(store, &name) {
            Ok(file) => assert!(files.contains(&file)),
            Err(WeightError::ModelNotFound { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
        match store.remove_model(&name) {
            Ok(_) | Err(WeightError::ModelNotFound { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Takes bases away from what is stored against them until one was stored otherwise, reading it meanwhile.
fn shake(store: &NativeStore, files: &[Vec<u8>], rebased: &AtomicU64) {
    let on_root = ImportOptions::default().with_base("root");
    for round in 0..400 {
        if round >= 5 && rebased.load(Ordering::SeqCst) > 0 {
            return;
        }
        add_with(store, "root", &files[0], &ImportOptions::default()).unwrap();
        for (name, file) in [("leaf", &files[1]), ("twig", &files[2])] {
            add_with(store, name, file, &on_root).unwrap();
        }
        store.remove_model("root").unwrap();
        for (name, file) in [("leaf", &files[1]), ("twig", &files[2])] {
            assert!(get(store, name).unwrap() == *file);
            store.remove_model(name).unwrap();
        }
    }
}

#[test]
fn adding_removing_collecting_and_verifying_at_once_loses_nothing() {
    let (_, store) = store();
    let files: Vec<Vec<u8>> = (0..9).map(generation).collect();
    let lasting = generation(10);
    add(&store, "lasting", &lasting).unwrap();
    let (done, rebased) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (store, done, rebased) = (&store, &done, &rebased);
        let (first, others) = files.split_at(6);
        let collector = scope.spawn(move || {
            while !done.load(Ordering::SeqCst) {
                let report = store.gc(GcOptions::default().with_rebase(true)).unwrap();
                assert!(report.unreadable.is_empty(), "{report:?}");
                rebased.fetch_add(report.rebased_tensors, Ordering::SeqCst);
            }
        });
        let reader = scope.spawn(move || {
            while !done.load(Ordering::SeqCst) {
                let report = store.verify(None).unwrap();
                assert!(report.is_whole(), "{report:?}");
                for hash in store.list_weights().unwrap() {
                    store.load(&hash.into()).unwrap();
                }
            }
        });
        let mut changers = vec![scope.spawn(move || shake(store, others, rebased))];
        changers.extend((0..2).map(|thread| scope.spawn(move || churn(store, first, thread))));
        let changed: Vec<_> = changers.into_iter().map(|thread| thread.join()).collect();
        done.store(true, Ordering::SeqCst);
        assert!(changed.iter().all(Result::is_ok));
        reader.join().unwrap();
        collector.join().unwrap();
    });
    assert!(
        rebased.load(Ordering::SeqCst) > 0,
        "no base was taken away in time"
    );
    assert!(get(&store, "lasting").unwrap() == lasting);
    for name in store.models().unwrap() {
        store.remove_model(&name).unwrap();
    }
    collect(&store);
    assert_eq!(
        (store.stats().unwrap().tensors, unreachable(&store)),
        (0, 0)
    );
}
