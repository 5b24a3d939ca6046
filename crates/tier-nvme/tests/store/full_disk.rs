//! On a full disk reads, deletes and compaction go on, and then so do puts.

use core_view::contract::ErrorKind;
use tier_nvme::sim::SimVolume;
use tier_nvme::{NvmeError, NvmeStore, StorageConfig, WriteBatch};

const SEGMENT_BYTES: u64 = 512 << 10;

fn open(volume: &SimVolume) -> NvmeStore {
    let config = StorageConfig::default().with_segment_bytes(SEGMENT_BYTES);
    NvmeStore::on_volume(volume.handle(), config).unwrap()
}

fn value(number: usize) -> Vec<u8> {
    (0..9000).map(|i| (i * 13 + number) as u8).collect()
}

fn key(number: usize) -> String {
    format!("key {number:04}")
}

/// Puts values until the disk is full, and then takes what is left of it, as somebody else may.
fn full(volume: &SimVolume) -> (NvmeStore, usize) {
    volume.set_capacity(20 * SEGMENT_BYTES);
    let store = open(volume);
    for number in 0.. {
        match store.write_aligned(key(number), &value(number)) {
            Ok(()) => {}
            Err(NvmeError::NoSpace {
                requested_bytes,
                available_bytes,
                ..
            }) => {
                assert!(requested_bytes > available_bytes.unwrap());
                let used = volume.files().iter().map(|(_, len)| len).sum();
                volume.set_capacity(used);
                return (store, number);
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    unreachable!()
}

fn check(store: &NvmeStore, count: usize, is_kept: impl Fn(usize) -> bool) {
    for number in 0..count {
        let read = store.read_direct(key(number)).unwrap();
        let expected = is_kept(number).then(|| value(number));
        assert_eq!(read.as_deref(), expected.as_deref(), "{number}");
    }
}

#[test]
fn deletes_make_room_for_puts() {
    let volume = SimVolume::new(1);
    let (store, count) = full(&volume);
    assert!(count > 60);
    check(&store, count, |_| true);
    // Something lives on in every segment, so that nothing dies by itself.
    for number in (0..count).filter(|number| number % 3 > 0) {
        assert!(store.delete(key(number)).unwrap());
    }
    check(&store, count, |number| number % 3 == 0);
    let report = store.compact().unwrap();
    let stats = store.stats();
    assert!(report.values_moved + stats.values_moved > 0, "{report:?}");
    assert!(
        stats.reserves_used > 0 && stats.segments_removed > 3,
        "{stats:?}"
    );
    for number in 0..count / 3 {
        store
            .write_aligned(format!("new {number}"), &value(number))
            .unwrap();
    }
    check(&store, count, |number| number % 3 == 0);
    assert!(
        store.stats().reserve_bytes >= SEGMENT_BYTES,
        "kept back again"
    );
    store.close().unwrap();
    drop(store);
    let store = open(&volume);
    check(&store, count, |number| number % 3 == 0);
    assert!(store.verify().unwrap().is_whole());
}

#[test]
fn compaction_alone_makes_room() {
    let volume = SimVolume::new(1);
    let (store, count) = full(&volume);
    for number in (0..count).filter(|number| number % 2 > 0) {
        store.delete(key(number)).unwrap();
    }
    // No call but puts: the writes after which something was given back do what is due.
    let mut refused = 0;
    for number in 0..10 {
        while let Err(error) = store.write_aligned(format!("new {number}"), &value(number)) {
            assert_eq!(error.kind(), ErrorKind::NoSpace);
            refused += 1;
            assert!(refused < 1000, "{:?}", store.stats());
            store.step_background(std::time::Duration::MAX).unwrap();
        }
    }
    check(&store, count, |number| number % 2 == 0);
}

#[test]
fn the_reserve_survives_and_is_found_again() {
    let volume = SimVolume::new(1);
    let (store, count) = full(&volume);
    volume.crash();
    drop(store);
    for round in 0..4 {
        let store = open(&volume);
        assert!(store.stats().reserve_bytes >= SEGMENT_BYTES);
        for number in (0..count).filter(|number| number % 5 == round) {
            store.delete(key(number)).unwrap();
        }
        store.compact().unwrap();
        check(&store, count, |number| number % 5 > round);
        if round % 2 == 0 {
            store.close().unwrap();
        } else {
            volume.crash();
        }
    }
}

/// Lets the power fail at an operation of a checkpoint that has to take what is kept back, and then in the next.
#[test]
fn room_for_a_checkpoint_has_one_name_after_a_power_loss() {
    let volume = SimVolume::new(1);
    let (store, count) = full(&volume);
    volume.crash();
    drop(store);
    let mut taken = 0;
    for life in 0..64_u64 {
        let volume = volume.fork(life);
        for operations in [life % 8, life / 8 % 8] {
            let store = open(&volume);
            assert!(store.recovery_report().damage.is_empty(), "life {life}");
            volume.fail_power_after(operations);
            drop(store.checkpoint());
            taken += store.stats().reserves_used;
            volume.crash();
        }
        let store = open(&volume);
        assert!(store.recovery_report().damage.is_empty(), "life {life}");
        assert!(store.verify().unwrap().is_whole(), "life {life}");
        assert_eq!(store.len(), count as u64);
    }
    assert!(taken > 40, "{taken} checkpoints took what was kept back");
}

#[test]
fn a_delete_that_waits_beside_puts_gets_in() {
    let volume = SimVolume::new(1);
    let (store, count) = full(&volume);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..50 {
                    let batch = WriteBatch::new().put(format!("{thread} {number}"), value(number));
                    if let Err(error) = store.write_batch(batch) {
                        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
                    }
                }
            });
        }
        for number in 0..count {
            store.delete(key(number)).unwrap();
        }
    });
    check(&store, count, |_| false);
    store.compact().unwrap();
    store.write_aligned("at last", &value(1)).unwrap();
}
