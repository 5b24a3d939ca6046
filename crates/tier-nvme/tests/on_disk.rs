//! The blob store in a real directory.
#![cfg(target_os = "linux")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use core_view::BufferMut;
use core_view::contract::ErrorKind;
use tier_nvme::{NvmeError, NvmeStore, RealVolume, StorageConfig, VolumeOptions, WriteBatch};

fn config() -> StorageConfig {
    StorageConfig::default().with_segment_bytes(8 << 20)
}

#[test]
fn values_come_back_after_reopening_with_and_without_the_page_cache() {
    for direct in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let config = config().with_direct_io(direct);
        let store = NvmeStore::new(directory.path(), config.clone()).unwrap();
        let mut large = BufferMut::zeroed(5 << 20, 4096).unwrap();
        large
            .iter_mut()
            .enumerate()
            .for_each(|(i, byte)| *byte = (i % 251) as u8);
        let mut batch = WriteBatch::new().put("large", large);
        for i in 0..1000_u32 {
            batch = batch.put(i.to_le_bytes(), i.to_le_bytes().repeat(i as usize % 90));
        }
        store.write_batch(batch).unwrap();
        store.close().unwrap();
        let store = NvmeStore::new(directory.path(), config).unwrap();
        assert!(store.recovery_report().clean);
        let large = store.read_direct("large").unwrap().unwrap();
        assert!(
            large
                .iter()
                .enumerate()
                .all(|(i, &byte)| byte == (i % 251) as u8)
        );
        for i in 0..1000_u32 {
            let value = store.read_direct(i.to_le_bytes()).unwrap().unwrap();
            assert_eq!(&value[..], i.to_le_bytes().repeat(i as usize % 90));
        }
        assert!(store.verify().unwrap().is_whole());
    }
}

#[test]
fn a_directory_in_use_absent_or_foreign_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("absent");
    let no_create = config().with_create(false);
    let error = NvmeStore::new(&absent, no_create.clone()).unwrap_err();
    assert!(matches!(error, NvmeError::NotAStore { .. }), "{error:?}");
    assert!(!absent.exists());

    let store = NvmeStore::new(directory.path().join("store"), config()).unwrap();
    let error = NvmeStore::new(directory.path().join("store"), config()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    drop(store);

    let file = directory.path().join("file");
    std::fs::write(&file, "text").unwrap();
    let error = NvmeStore::new(&file, no_create).unwrap_err();
    assert!(matches!(error, NvmeError::NotAStore { .. }), "{error:?}");
    let error = NvmeStore::new(directory.path(), config()).unwrap_err();
    assert!(matches!(error, NvmeError::NotAStore { .. }), "{error:?}");
    assert_eq!(std::fs::read(&file).unwrap(), b"text");
}

#[test]
fn a_store_that_is_being_written_can_be_read_by_others() {
    let directory = tempfile::tempdir().unwrap();
    let small = config().with_segment_bytes(StorageConfig::SEGMENT_BYTES_MIN);
    let store = NvmeStore::new(directory.path(), small.clone()).unwrap();
    let write = |round: u32| {
        let value = vec![round as u8; 9000];
        store.write_aligned([round as u8 % 8], &value).unwrap();
    };
    (0..8).for_each(write);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in (8_u32..).take_while(|_| !is_over.load(Ordering::Relaxed)) {
                write(round);
                if round % 16 == 0 {
                    store.checkpoint().unwrap();
                }
            }
        });
        let failed = (0..60).find_map(|_| {
            let reader = match NvmeStore::new(directory.path(), small.clone().with_read_only(true))
            {
                Ok(reader) => reader,
                Err(error) => return Some(format!("{error:?}")),
            };
            (0..8_u8).find_map(|key| match reader.read_direct([key]) {
                Ok(Some(value))
                    if value[0] % 8 == key && value.iter().all(|&byte| byte == value[0]) =>
                {
                    None
                }
                wrong => Some(format!("{key}: {wrong:?}")),
            })
        });
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(failed, None);
    });
}

/// A reader that takes no lock of the store keeps what it found, however much is written over meanwhile.
#[test]
fn files_that_another_process_reads_are_not_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let small = config().with_segment_bytes(StorageConfig::SEGMENT_BYTES_MIN);
    let store = NvmeStore::new(directory.path(), small.clone()).unwrap();
    let write = |round: u32| {
        let value = vec![round as u8; 9000];
        store.write_aligned([round as u8 % 8], &value).unwrap();
        if round.is_multiple_of(16) {
            store.checkpoint().unwrap();
        }
    };
    (0..64).for_each(write);
    let reader = NvmeStore::new(directory.path(), small.with_read_only(true)).unwrap();
    (64..400).for_each(write);
    for key in 0..8_u8 {
        let value = reader.read_direct([key]).unwrap().unwrap();
        assert_eq!(&value[..], [56 + key; 9000]);
    }
    drop(reader);
    let recycled = store.stats().segments_recycled;
    (400..800).for_each(write);
    assert!(store.stats().segments_recycled > recycled);
}

#[test]
fn a_reader_waits_for_what_a_killed_writer_left_in_flight() {
    let directory = tempfile::tempdir().unwrap();
    let store = NvmeStore::new(directory.path(), config()).unwrap();
    store.write_aligned("key", b"value").unwrap();
    store.close().unwrap();
    let segment = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("SEGMENT-"))
        .unwrap();
    // The kernel holds the file of an operation in flight, and its mark with it, like this handle.
    let in_flight = std::fs::File::open(segment).unwrap();
    in_flight.lock_shared().unwrap();
    let read_only = || NvmeStore::new(directory.path(), config().with_read_only(true)).unwrap();
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            let reader = read_only();
            (Instant::now(), reader)
        });
        std::thread::sleep(Duration::from_millis(100));
        let landed = Instant::now();
        drop(in_flight);
        let (opened, first) = opening.join().unwrap();
        assert!(opened >= landed, "it did not wait");
        // Readers do not wait for each other, however they were opened.
        let begun = Instant::now();
        let volume = RealVolume::open(directory.path(), VolumeOptions::default()).unwrap();
        let second = NvmeStore::on_volume(Arc::new(volume), config().with_read_only(true)).unwrap();
        let third = read_only();
        assert!(begun.elapsed() < Duration::from_secs(10));
        for reader in [&first, &second, &third] {
            let value = reader.read_direct("key").unwrap();
            assert_eq!(value.as_deref(), Some(&b"value"[..]));
        }
    });
}

/// Four writers replace values and delete some, two readers compare, while the thread in the background compacts.
#[test]
fn compaction_in_the_background_keeps_up_with_writers() {
    const SEGMENT_BYTES: u64 = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let config = StorageConfig::default()
        .with_segment_bytes(SEGMENT_BYTES)
        .with_space_amplification_max(1.5);
    let store = NvmeStore::new(directory.path(), config.clone()).unwrap();
    let value = |writer: u8, key: u16, round: u8| {
        let len = 2000 + usize::from(key) * 37 % 9000;
        let mut value = vec![writer ^ round; len];
        value[..4].copy_from_slice(&[writer, round, key as u8, (key >> 8) as u8]);
        value
    };
    let is_sound = |writer: u8, key: u16, read: &[u8]| read == value(writer, key, read[1]);
    let name = |writer: u8, key: u16| format!("{writer} {key}");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4_u8)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || {
                    for round in 0..12_u8 {
                        let mut batch = WriteBatch::new();
                        // Some stay from the first round on.
                        for key in (0..200).filter(|key| round == 0 || key % 5 > 0) {
                            batch = match key % 7 == 3 && round == 11 {
                                true => batch.delete(name(writer, key)),
                                false => batch.put(name(writer, key), value(writer, key, round)),
                            };
                            if batch.len() == 20 {
                                store.write_batch(std::mem::take(&mut batch)).unwrap();
                            }
                        }
                        store.write_batch(batch).unwrap();
                    }
                })
            })
            .collect();
        for reader in 0..2_u16 {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                for turn in (0_u16..4000).cycle() {
                    let (writer, key) = ((turn % 4) as u8, (turn % 200 * 31 + reader) % 200);
                    if let Some(read) = store.read_direct(name(writer, key)).unwrap() {
                        assert!(is_sound(writer, key, &read), "{writer} {key}");
                    }
                    if done.load(std::sync::atomic::Ordering::Acquire) {
                        break;
                    }
                }
            });
        }
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Release);
    });
    let stats = store.stats();
    assert!(
        stats.values_moved > 0 && stats.compactions_finished > 0,
        "{stats:?}"
    );
    assert_eq!(stats.background_failures, 0, "{stats:?}");
    // With so few segments there may be none to gain from for a moment, above all on a busy machine.
    assert!(stats.space_exceeded * 4 <= stats.batches, "{stats:?}");
    let allowed = stats.live_log_bytes * 3 / 2 + 7 * SEGMENT_BYTES;
    assert!(stats.reserved_bytes <= allowed, "{stats:?}");
    let check = |store: &NvmeStore| {
        for (writer, key) in (0..4).flat_map(|writer| (0..200).map(move |key| (writer, key))) {
            let read = store.read_direct(name(writer, key)).unwrap();
            let round = if key % 5 > 0 { 11 } else { 0 };
            let expected = (key % 5 == 0 || key % 7 != 3).then(|| value(writer, key, round));
            assert_eq!(read.as_deref(), expected.as_deref(), "{writer} {key}");
        }
    };
    check(&store);
    store.compact().unwrap();
    check(&store);
    store.close().unwrap();
    let store = NvmeStore::new(directory.path(), config).unwrap();
    check(&store);
    assert!(store.verify().unwrap().is_whole());
}

/// A file system of its own, unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this process may not mount one.
    fn new(bytes: u64) -> Option<Self> {
        let directory = tempfile::tempdir().ok()?;
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(directory.path())
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(Self(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(
            std::process::Command::new("umount")
                .arg(self.0.path())
                .output(),
        );
    }
}

#[test]
fn a_full_file_system_takes_deletes_and_then_puts() {
    let Some(disk) = SmallDisk::new(24 << 20) else {
        println!("skipped: no file system can be mounted here");
        return;
    };
    let config = StorageConfig::default().with_segment_bytes(1 << 20);
    let store = NvmeStore::new(disk.0.path(), config.clone()).unwrap();
    let value = |number: u32| number.to_le_bytes().repeat(5000);
    let mut count = 0;
    let error = loop {
        match store.write_aligned(format!("{count}"), &value(count)) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(count > 500, "{count}");
    // Somebody else takes the rest.
    let filler = disk.0.path().join("filler");
    let mut rest = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut rest, &[1; 4096]).is_ok() {}
    for number in (0..count).filter(|number| number % 4 > 0) {
        assert!(store.delete(format!("{number}")).unwrap(), "{number}");
    }
    store.compact().unwrap();
    for number in 0..count / 4 {
        store
            .write_aligned(format!("new {number}"), &value(number))
            .unwrap();
    }
    store.close().unwrap();
    let store = NvmeStore::new(disk.0.path(), config).unwrap();
    for number in 0..count {
        let read = store.read_direct(format!("{number}")).unwrap();
        let expected = (number % 4 == 0).then(|| value(number));
        assert_eq!(read.as_deref(), expected.as_deref(), "{number}");
    }
    assert!(store.verify().unwrap().is_whole());
    drop(store);
}
