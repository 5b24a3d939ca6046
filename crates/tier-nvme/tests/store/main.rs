//! The blob store beside bad input, full disks, failing devices and many threads.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what is wrong by panicking"
)]

mod cache;
mod checked;
mod checkpoint;
mod compaction;
mod compression;
mod full_disk;
mod hostile;
mod index_memory;
mod limits;
mod maps;
mod overlap;
mod prefetch;
mod reads;
mod scrub;
mod side_by_side;
mod spares;
mod threads;

use std::sync::Arc;

use core_view::BufferMut;
use core_view::contract::ErrorKind;
use tier_nvme::sim::{FaultRates, SimVolume};
use tier_nvme::{FileName, NvmeError, NvmeStore, StorageConfig, WriteBatch};

fn config() -> StorageConfig {
    StorageConfig::default().with_segment_bytes(256 << 10)
}

fn open(volume: &SimVolume) -> NvmeStore {
    NvmeStore::on_volume(volume.handle(), config()).unwrap()
}

/// Overwrites both copies of the superblock with a changed byte and a right checksum.
fn change_superblock(volume: &SimVolume, at: usize, byte: u8) {
    let file = volume
        .handle()
        .open(&FileName::new("STORE").unwrap())
        .unwrap();
    let mut page = file
        .read(0, BufferMut::zeroed(4096, 4096).unwrap())
        .wait()
        .unwrap();
    page[at] = byte;
    let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &page[..4092]) as u32;
    page[4092..].copy_from_slice(&checksum.to_le_bytes());
    let page = file.write(0, page).wait().unwrap();
    file.write(4096, page).wait().unwrap();
}

#[test]
fn values_of_all_sizes_come_back_after_closing() {
    let volume = SimVolume::new(1);
    let store = open(&volume);
    let value = |len: usize| (0..len).map(|i| (i * 31 + len) as u8).collect::<Vec<_>>();
    let sizes = [0, 1, 7, 8, 4095, 4096, 4097, 8192, 100_000, 200_000];
    for len in sizes {
        store
            .write_aligned(format!("size {len}"), &value(len))
            .unwrap();
    }
    let longest_key = vec![255; 1024];
    store.write_aligned(&longest_key, b"x").unwrap();
    store.close().unwrap();
    let store = open(&volume);
    assert!(store.recovery_report().clean);
    for len in sizes {
        let key = format!("size {len}");
        assert_eq!(
            store.read_direct(&key).unwrap().as_deref(),
            Some(value(len).as_slice())
        );
        assert_eq!(store.len_of(&key), Some(len as u64));
    }
    assert!(store.contains(&longest_key));
    assert_eq!(store.keys_with_prefix("size 8").len(), 2);
    assert!(store.delete("size 0").unwrap() && !store.delete("size 0").unwrap());
}

#[test]
fn wrong_arguments_are_named() {
    let store = open(&SimVolume::new(1));
    let field = |result: Result<(), NvmeError>| match result.unwrap_err() {
        NvmeError::Invalid { field, .. } => field,
        error => panic!("{error:?}"),
    };
    assert_eq!(field(store.write_aligned("", b"x")), "key");
    assert_eq!(field(store.write_aligned(vec![0; 1025], b"x")), "key");
    assert_eq!(
        field(store.write_aligned("large", &vec![0; 256 << 10])),
        "batch"
    );
    assert!(store.write_batch(WriteBatch::new()).is_ok());
    assert!(store.is_empty());
    for wrong in [0, 4096, 100_000, (1 << 40) + 4096] {
        let built = StorageConfig::builder().segment_bytes(wrong).build();
        assert_eq!(field(built.map(drop)), "segment_bytes");
    }
    assert_eq!(
        field(StorageConfig::builder().io_depth(0).build().map(drop)),
        "io_depth"
    );
}

#[test]
fn the_last_change_of_a_key_in_a_batch_counts() {
    let store = open(&SimVolume::new(1));
    let batch = WriteBatch::new()
        .put("a", vec![1])
        .delete("a")
        .put("a", vec![2])
        .put("b", vec![3]);
    store.write_batch(batch.delete("b")).unwrap();
    assert_eq!(store.read_direct("a").unwrap().as_deref(), Some(&[2][..]));
    assert!(!store.contains("b"));
    assert_eq!(store.stats().live_bytes, 1);
}

#[test]
fn a_directory_that_is_no_store_is_refused() {
    let volume = SimVolume::new(1);
    let absent = NvmeStore::on_volume(volume.handle(), config().with_create(false));
    assert!(matches!(absent.unwrap_err(), NvmeError::NotAStore { .. }));
    volume
        .handle()
        .create(&FileName::new("notes.txt").unwrap(), 4096)
        .unwrap();
    let foreign = NvmeStore::on_volume(volume.handle(), config()).unwrap_err();
    assert!(foreign.to_string().contains("notes.txt"), "{foreign}");
    assert_eq!(volume.files().len(), 1, "nothing was made");

    let volume = SimVolume::new(2);
    open(&volume).write_aligned("a", b"b").unwrap();
    volume
        .handle()
        .remove(&FileName::new("STORE").unwrap())
        .unwrap();
    let lost = NvmeStore::on_volume(volume.handle(), config()).unwrap_err();
    assert!(matches!(lost, NvmeError::NotAStore { .. }), "{lost:?}");
}

#[test]
fn a_second_user_is_refused_until_the_first_is_done() {
    let volume = SimVolume::new(1);
    let store = open(&volume);
    let second = NvmeStore::on_volume(volume.handle(), config()).unwrap_err();
    assert!(matches!(second, NvmeError::Locked { .. }));
    assert_eq!(second.kind(), ErrorKind::Busy);
    store.close().unwrap();
    store.close().unwrap();
    assert!(matches!(
        store.write_aligned("a", b"b"),
        Err(NvmeError::Closed)
    ));
    assert!(matches!(store.read_direct("a"), Err(NvmeError::Closed)));
    open(&volume);
}

#[test]
fn newer_versions_and_features_are_told_apart() {
    let made = |at, byte| {
        let volume = SimVolume::new(1);
        open(&volume).write_aligned("a", b"b").unwrap();
        change_superblock(&volume, at, byte);
        NvmeStore::on_volume(volume.handle(), config())
    };
    assert!(matches!(
        made(8, 2).unwrap_err(),
        NvmeError::NewerVersion { found: 2, .. }
    ));
    assert!(matches!(
        made(23, 1 << 6).unwrap_err(),
        NvmeError::UnknownFeatures {
            bits: 0x4000_0000_0000_0000,
            ..
        }
    ));
    let compatible = made(24, 1).unwrap();
    assert_eq!(
        compatible.read_direct("a").unwrap().as_deref(),
        Some(&b"b"[..])
    );
    let refused = compatible.write_aligned("a", b"c").unwrap_err();
    assert!(matches!(refused, NvmeError::ReadOnly { .. }), "{refused:?}");
}

#[test]
fn a_read_only_store_reads_and_refuses_writes() {
    let volume = SimVolume::new(1);
    open(&volume).write_aligned("a", b"b").unwrap();
    let before = volume.operations();
    let store = NvmeStore::on_volume(volume.handle(), config().with_read_only(true)).unwrap();
    assert_eq!(store.read_direct("a").unwrap().as_deref(), Some(&b"b"[..]));
    assert!(matches!(store.delete("a"), Err(NvmeError::ReadOnly { .. })));
    assert!(matches!(
        store.checkpoint(),
        Err(NvmeError::ReadOnly { .. })
    ));
    assert!(store.verify().unwrap().is_whole());
    store.close().unwrap();
    assert_eq!(volume.operations(), before, "nothing was written");
}

#[test]
fn a_full_disk_loses_nothing_and_works_again_with_space() {
    let volume = SimVolume::new(1);
    volume.set_capacity(700 << 10);
    let store = open(&volume);
    let mut stored = 0;
    let error = loop {
        match store.write_aligned(format!("key {stored}"), &[stored as u8; 50_000]) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
    assert!(stored > 5);
    for i in 0..stored {
        let value = store.read_direct(format!("key {i}")).unwrap().unwrap();
        assert_eq!(&value[..], &[i as u8; 50_000]);
    }
    volume.set_capacity(u64::MAX);
    store.write_aligned("more", &[1; 50_000]).unwrap();
    drop(store);
    assert_eq!(open(&volume).len(), stored + 1);
}

#[test]
fn a_failed_sync_stops_writes_until_reopening() {
    let volume = SimVolume::new(3);
    let store = open(&volume);
    store.write_aligned("a", b"before").unwrap();
    volume.set_faults(FaultRates {
        sync_errors: 1000,
        ..FaultRates::default()
    });
    assert_eq!(
        store.write_aligned("b", b"x").unwrap_err().kind(),
        ErrorKind::Io
    );
    volume.set_faults(FaultRates::default());
    assert!(matches!(
        store.write_aligned("c", b"x"),
        Err(NvmeError::Poisoned { .. })
    ));
    assert_eq!(
        store.read_direct("a").unwrap().as_deref(),
        Some(&b"before"[..])
    );
    drop(store);
    let store = open(&volume);
    store.write_aligned("c", b"x").unwrap();
    assert_eq!(
        store.read_direct("a").unwrap().as_deref(),
        Some(&b"before"[..])
    );
}

#[test]
fn a_failed_read_is_an_error_of_its_key_alone() {
    let volume = SimVolume::new(3);
    let store = open(&volume);
    store.write_aligned("a", b"value").unwrap();
    volume.set_faults(FaultRates {
        read_errors: 1000,
        ..FaultRates::default()
    });
    assert_eq!(store.read_direct("a").unwrap_err().kind(), ErrorKind::Io);
    volume.set_faults(FaultRates::default());
    assert_eq!(
        store.read_direct("a").unwrap().as_deref(),
        Some(&b"value"[..])
    );
    store.write_aligned("b", b"value").unwrap();
}

#[test]
fn a_missing_segment_is_named_and_the_others_are_read() {
    let volume = SimVolume::new(1);
    let store = open(&volume);
    for i in 0..8 {
        store
            .write_aligned(format!("key {i}"), &[i; 100_000])
            .unwrap();
    }
    store.close().unwrap();
    let (name, _) = volume
        .files()
        .into_iter()
        .find(|(name, _)| name.contains("SEGMENT"))
        .unwrap();
    volume
        .handle()
        .remove(&FileName::new(name.clone()).unwrap())
        .unwrap();
    let store = open(&volume);
    let (mut lost, mut read) = (0, 0);
    for i in 0..8 {
        match store.read_direct(format!("key {i}")) {
            Ok(value) => {
                assert_eq!(&value.unwrap()[..], &[i; 100_000]);
                read += 1;
            }
            Err(NvmeError::Corrupt { location, .. }) => {
                assert!(location.contains(&name), "{location}");
                lost += 1;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(lost == 2 && read == 6, "{lost} lost, {read} read");
    let report = store.verify().unwrap();
    let keys = report
        .damage
        .iter()
        .filter(|damage| damage.key.is_some())
        .count();
    assert_eq!(keys, 2, "{report:?}");
}

#[test]
fn an_acknowledged_batch_that_is_damaged_is_not_taken_for_a_torn_one() {
    let volume = SimVolume::new(1);
    let store = open(&volume);
    for i in 0..5_u8 {
        store.write_aligned([i], &[i; 5000]).unwrap();
    }
    volume.kill();
    drop(store);
    // The header of the second batch: one page of segment header, then one header and two pages a batch.
    assert!(volume.flip_bit("SEGMENT-0000000000000001", (4096 + 12288 + 100) * 8));
    let error = NvmeStore::on_volume(volume.handle(), config()).unwrap_err();
    assert!(
        matches!(
            error,
            NvmeError::Corrupt {
                structure: "batch header",
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn space_of_values_that_were_replaced_comes_back() {
    let volume = SimVolume::new(1);
    let store = open(&volume);
    for round in 0..200_u32 {
        store
            .write_aligned("key", &round.to_le_bytes().repeat(10_000))
            .unwrap();
        if round % 10 == 0 {
            store.checkpoint().unwrap();
        }
    }
    let stats = store.stats();
    assert!(stats.segments_removed > 20, "{stats:?}");
    assert!(stats.segments < 10, "{stats:?}");
    drop(store);
    let value = open(&volume).read_direct("key").unwrap().unwrap();
    assert_eq!(&value[..4], &199_u32.to_le_bytes());
}

#[test]
fn writers_on_many_threads_share_commits_and_lose_nothing() {
    let volume = SimVolume::new(1);
    // Without batches of a compaction between those that are counted.
    let loose = config().with_space_amplification_max(1000.0);
    let store = Arc::new(NvmeStore::on_volume(volume.handle(), loose).unwrap());
    let threads: Vec<_> = (0..8_u8)
        .map(|thread| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                for i in 0..100_u8 {
                    store
                        .write_aligned([thread, i], &[thread ^ i; 700])
                        .unwrap();
                    let read = store.read_direct([thread, i]).unwrap().unwrap();
                    assert!(read.iter().all(|&byte| byte == thread ^ i));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(store.len(), 800);
    let stats = store.stats();
    assert_eq!(stats.syncs + stats.syncs_shared, stats.batches);
    assert!(stats.batches <= 800);
    assert!(store.verify().unwrap().is_whole());
    drop(store);
    volume.crash();
    assert_eq!(open(&volume).len(), 800);
}
