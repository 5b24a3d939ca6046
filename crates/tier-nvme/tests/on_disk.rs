//! The blob store in a real directory.
#![cfg(target_os = "linux")]

use std::sync::atomic::{AtomicBool, Ordering};

use core_view::BufferMut;
use core_view::contract::ErrorKind;
use tier_nvme::{NvmeError, NvmeStore, StorageConfig, WriteBatch};

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
