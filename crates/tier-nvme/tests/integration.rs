//! The store on the device of the directory that `STEPWELL_NVME_DIR` names.
#![expect(clippy::unwrap_used, reason = "tests")]

use core_view::BufferMut;
use tier_nvme::{CompressionType, FileMode, MapOrigin, NvmeStore, StorageConfig, WriteBatch};

const VALUES: usize = 192;
const VALUE_BYTES: usize = 1 << 20;

fn value(number: usize) -> BufferMut {
    let mut value = BufferMut::zeroed(VALUE_BYTES, 4096).unwrap();
    let mut state = number as u64 + 1;
    for word in value.chunks_exact_mut(8) {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        word.copy_from_slice(&state.to_le_bytes());
    }
    value
}

fn key(number: usize) -> String {
    format!("value {number}")
}

#[test]
fn a_device_gives_back_what_it_was_given() {
    let Some(root) = std::env::var_os("STEPWELL_NVME_DIR") else {
        println!("skipped: STEPWELL_NVME_DIR names no directory on a device");
        return;
    };
    let directory = tempfile::tempdir_in(root).unwrap();
    let config = StorageConfig::builder()
        .io_depth(64)
        .direct_io(true)
        .compression(CompressionType::LZ4)
        .cache_size(1 << 26)
        .prefetch_distance(16)
        .segment_bytes(64 << 20)
        .build()
        .unwrap();
    let store = NvmeStore::new(directory.path(), config.clone()).unwrap();
    println!("{:?}", store.stats().volume);
    assert_eq!(store.stats().volume.mode, FileMode::Direct);
    for first in (0..VALUES).step_by(32) {
        let batch = (first..first + 32).fold(WriteBatch::new(), |batch, number| {
            batch.put(key(number), value(number))
        });
        store.write_batch(batch).unwrap();
    }
    let check = |store: &NvmeStore| {
        let keys: Vec<String> = (0..VALUES).map(key).collect();
        for (number, read) in store.read_many(&keys).into_iter().enumerate() {
            assert_eq!(*read.unwrap().unwrap(), *value(number));
        }
        for number in (0..VALUES).rev().step_by(7) {
            let read = store.read_async(key(number)).wait().unwrap();
            assert_eq!(*read.unwrap(), *value(number));
            let mapped = store.map_value(key(number)).unwrap().unwrap();
            assert_eq!(*mapped, *value(number));
        }
        let first = store.map_value(key(0)).unwrap().unwrap();
        assert_eq!(first.origin(), MapOrigin::Mapped);
    };
    check(&store);
    store.close().unwrap();
    let store = NvmeStore::new(directory.path(), config).unwrap();
    assert!(store.recovery_report().clean);
    check(&store);
    assert!(store.verify().unwrap().is_whole());
}
