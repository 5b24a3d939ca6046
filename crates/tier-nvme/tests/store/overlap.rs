//! Batches that are under way at the same time.

use core_view::contract::ErrorKind;
use tier_nvme::sim::{FaultRates, SimVolume, Survival};
use tier_nvme::{NvmeError, NvmeStore, StorageConfig, WriteBatch};

use super::{config, open};

fn stepped() -> StorageConfig {
    config().with_background(false)
}

fn batch(key: u8) -> WriteBatch {
    WriteBatch::new().put([key], vec![key; 6000])
}

#[test]
fn batches_are_committed_in_order_with_several_under_way() {
    let volume = SimVolume::new(1);
    let store = NvmeStore::on_volume(volume.handle(), stepped()).unwrap();
    let mut writes = Vec::new();
    for key in 0..4 {
        writes.push(store.write_batch_async(batch(key)));
        assert!(store.step());
    }
    assert!(store.is_empty() && writes.iter().all(|write| !write.is_done()));
    // No more than four may be unsynced.
    writes.push(store.write_batch_async(batch(4)));
    assert!(store.step() && store.len() == 4);
    while store.step() {}
    assert!(!store.step() && writes.iter().all(|write| write.is_done()));
    let stats = store.stats();
    assert_eq!((stats.batches, stats.syncs, stats.syncs_shared), (5, 2, 3));
    assert_eq!(stats.batches_overlapped, 3);
    assert_eq!(stats.memory.queue_bytes, 0);
    volume.crash_keeping(Survival::Nothing);
    drop(store);
    let store = open(&volume);
    assert_eq!(store.len(), 5);
    assert!(store.verify().unwrap().is_whole());
}

#[test]
fn whoever_waits_does_the_work_of_those_before_it() {
    let volume = SimVolume::new(1);
    let store = NvmeStore::on_volume(volume.handle(), stepped()).unwrap();
    let first = store.write_batch_async(batch(1));
    let second = store.write_batch_async(batch(2));
    second.wait().unwrap();
    assert!(first.is_done() && store.len() == 2);
    let third = store.write_batch_async(batch(3));
    store.write_aligned("fourth", &[4; 100]).unwrap();
    assert!(third.is_done() && store.len() == 4);
    // A checkpoint has no commit under way, and so brings them to their end.
    let written = store.write_batch_async(batch(5));
    store.step();
    store.checkpoint().unwrap();
    assert!(written.is_done());
    store.close().unwrap();
}

#[test]
fn a_failed_sync_fails_all_that_came_after() {
    let volume = SimVolume::new(1);
    let store = NvmeStore::on_volume(volume.handle(), stepped()).unwrap();
    store.write_aligned("before", b"x").unwrap();
    let first = store.write_batch_async(batch(1));
    store.step();
    let second = store.write_batch_async(batch(2));
    store.step();
    let third = store.write_batch_async(batch(3));
    volume.set_faults(FaultRates {
        sync_errors: 1000,
        ..FaultRates::default()
    });
    assert_eq!(first.wait().unwrap_err().kind(), ErrorKind::Io);
    volume.set_faults(FaultRates::default());
    assert_eq!(second.wait().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(third.wait().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(store.keys_with_prefix(""), [b"before"]);
    assert!(matches!(
        store.write_batch(batch(4)),
        Err(NvmeError::Poisoned { .. })
    ));
    assert_eq!(store.stats().memory.queue_bytes, 0);
}

#[test]
fn a_batch_that_failed_to_be_written_leaves_the_one_before_alone() {
    let volume = SimVolume::new(1);
    let store = NvmeStore::on_volume(volume.handle(), stepped()).unwrap();
    let first = store.write_batch_async(batch(1));
    store.step();
    volume.set_faults(FaultRates {
        write_errors: 1000,
        ..FaultRates::default()
    });
    let second = store.write_batch_async(batch(2));
    store.step();
    volume.set_faults(FaultRates::default());
    first.wait().unwrap();
    assert_eq!(second.wait().unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(store.len(), 1);
}

#[test]
fn a_discarded_batch_does_not_follow_the_same_batch_written_again() {
    let volume = SimVolume::new(1);
    let open = || {
        let config = stepped().with_segment_bytes(16 << 20);
        NvmeStore::on_volume(volume.handle(), config).unwrap()
    };
    // Recovery clears 4 MiB behind the end of the log: what it discards begins behind that.
    let long = || WriteBatch::new().put("long", vec![1; 5 << 20]);
    let store = open();
    store.write_aligned("before", b"x").unwrap();
    let first = store.write_batch_async(long());
    store.step();
    let second = store.write_batch_async(batch(2));
    store.step();
    volume.crash_keeping(Survival::Everything);
    drop((first, second, store));
    // Of the two that nobody was told of, the first is torn: its value begins on page 4.
    let names = volume.files().into_iter().map(|(name, _)| name);
    let segment = names
        .max_by_key(|name| name.starts_with("SEGMENT"))
        .unwrap();
    assert!(volume.flip_bit(&segment, 8 * (4 * 4096 + 5)));
    let store = open();
    assert_eq!(store.recovery_report().tail_batches_discarded, 2);
    assert_eq!(store.len(), 1);
    store.write_batch(long()).unwrap();
    volume.crash_keeping(Survival::Everything);
    drop(store);
    let store = open();
    assert_eq!(store.len(), 2, "the second came back");
}

#[test]
fn closing_finishes_what_was_begun_and_refuses_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    for background in [false, true] {
        let config = config().with_background(background);
        let store = NvmeStore::new(directory.path(), config.clone()).unwrap();
        let before = store.len();
        let writes: Vec<_> = (0..20)
            .map(|key| store.write_batch_async(WriteBatch::new().put([key, 7], vec![1; 9])))
            .collect();
        store.close().unwrap();
        let mut done = 0;
        for write in writes {
            match write.wait() {
                Ok(()) => done += 1,
                Err(failure) => assert_eq!(failure.kind(), ErrorKind::Abandoned),
            }
        }
        let late = store.write_batch_async(batch(21)).wait().unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Abandoned);
        drop(store);
        let store = NvmeStore::new(directory.path(), config).unwrap();
        assert_eq!(store.len(), before + done);
        let keys = store.keys_with_prefix("");
        store
            .write_batch(keys.into_iter().fold(WriteBatch::new(), WriteBatch::delete))
            .unwrap();
    }
}

#[test]
fn threads_commit_what_nobody_waits_for() {
    let directory = tempfile::tempdir().unwrap();
    let store = NvmeStore::new(directory.path(), config()).unwrap();
    let (told, outcomes) = std::sync::mpsc::channel();
    for key in 0..100 {
        let told = told.clone();
        store
            .write_batch_async(batch(key))
            .on_complete(move |outcome| told.send((key, outcome.is_ok())).unwrap());
    }
    for key in 0..100 {
        let patience = std::time::Duration::from_secs(60);
        assert_eq!(outcomes.recv_timeout(patience).unwrap(), (key, true));
    }
    assert_eq!(store.len(), 100);
}

#[test]
fn the_limit_holds_while_many_write_and_nobody_waits_for_ever() {
    let volume = SimVolume::new(1);
    let config = config()
        .with_segment_bytes(8 << 20)
        .with_memory_limit_bytes(StorageConfig::MEMORY_LIMIT_BYTES_MIN);
    let store = NvmeStore::on_volume(volume.handle(), config).unwrap();
    let held: Vec<_> = std::iter::from_fn(|| store.buffer(256 << 10).ok()).collect();
    assert!(held.len() > 4 && held.len() < 16);
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let store = &store;
            scope.spawn(move || {
                for i in 0..20_u8 {
                    store.write_aligned([thread, i], &[i; 300_000]).unwrap();
                }
            });
        }
    });
    let memory = store.stats().memory;
    assert!(memory.peak_bytes <= memory.limit_bytes && memory.queue_bytes == 0);
    assert!(memory.waits > 0 && memory.refusals > 0, "{memory:?}");
    let error = store.write_aligned("large", &vec![1; 3 << 20]).unwrap_err();
    assert!(matches!(error, NvmeError::MemoryLimit { .. }), "{error}");
    assert_eq!(store.len(), 160);
}
