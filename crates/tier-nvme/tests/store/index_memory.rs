//! The index under the memory limit.

use std::sync::Arc;

use tier_nvme::sim::SimVolume;
use tier_nvme::{NvmeError, NvmeStore, StorageConfig, Volume, WriteBatch};

const LIMIT_BYTES: u64 = StorageConfig::MEMORY_LIMIT_BYTES_MIN;
const BATCH_KEYS: u32 = 1000;

fn config() -> StorageConfig {
    StorageConfig::default()
        .with_segment_bytes(16 << 20)
        .with_memory_limit_bytes(LIMIT_BYTES)
}

fn puts(first: u32, value: u8) -> WriteBatch {
    (first..first + BATCH_KEYS).fold(WriteBatch::new(), |batch, number| {
        batch.put(number.to_le_bytes(), vec![value; 10])
    })
}

fn deletes(first: u32) -> WriteBatch {
    (first..first + BATCH_KEYS).fold(WriteBatch::new(), |batch, number| {
        batch.delete(number.to_le_bytes())
    })
}

/// Puts until the index is full; returns the first key that did not fit.
fn fill(store: &NvmeStore) -> u32 {
    let mut first = 0;
    loop {
        match store.write_batch(puts(first, 1)) {
            Ok(()) => first += BATCH_KEYS,
            Err(error) => {
                assert!(
                    matches!(error, NvmeError::MemoryLimit { purpose, .. } if purpose == "the index"),
                    "{error}"
                );
                return first;
            }
        }
        assert!(store.stats().memory.index_bytes <= LIMIT_BYTES / 2);
    }
}

#[test]
fn a_full_index_refuses_new_keys_and_nothing_else() {
    let volume: Arc<dyn Volume> = SimVolume::new(1).handle();
    let store = NvmeStore::on_volume(Arc::clone(&volume), config()).unwrap();
    let end = fill(&store);
    assert!(end >= 4 * BATCH_KEYS, "{end}");
    assert_eq!(store.len(), u64::from(end));
    let memory = store.stats().memory;
    assert!(memory.index_bytes > LIMIT_BYTES / 4 && memory.peak_bytes <= LIMIT_BYTES);

    // Keys that are there can be put again, read and deleted.
    store.write_batch(puts(0, 2)).unwrap();
    assert_eq!(store.stats().memory.index_bytes, memory.index_bytes);
    let value = store.read_direct(5u32.to_le_bytes()).unwrap().unwrap();
    assert_eq!(value[..], [2; 10]);
    assert!(store.write_batch(puts(end, 1)).is_err());
    store.write_batch(deletes(0)).unwrap();
    store.write_batch(puts(end, 1)).unwrap();
    assert_eq!(store.stats().memory.index_bytes, memory.index_bytes);
    assert!(store.write_batch(puts(0, 1)).is_err());
    store.close().unwrap();

    let store = NvmeStore::on_volume(volume, config()).unwrap();
    assert_eq!(store.stats().memory.index_bytes, memory.index_bytes);
    assert!(store.write_batch(puts(0, 1)).is_err());
}

#[test]
fn an_index_beyond_the_limit_is_named_when_the_store_is_opened() {
    let volume: Arc<dyn Volume> = SimVolume::new(2).handle();
    let roomy = config().with_memory_limit_bytes(4 * LIMIT_BYTES);
    let store = NvmeStore::on_volume(Arc::clone(&volume), roomy.clone()).unwrap();
    let mut first = 0;
    while store.stats().memory.index_bytes <= LIMIT_BYTES / 2 {
        store.write_batch(puts(first, 3)).unwrap();
        first += BATCH_KEYS;
    }
    store.close().unwrap();
    let error = NvmeStore::on_volume(Arc::clone(&volume), config()).unwrap_err();
    assert!(matches!(error, NvmeError::MemoryLimit { .. }), "{error}");
    let store = NvmeStore::on_volume(volume, roomy).unwrap();
    assert_eq!(store.len(), u64::from(first));
}

#[test]
fn what_was_refused_or_failed_gives_its_memory_back() {
    let store = NvmeStore::on_volume(SimVolume::new(3).handle(), config()).unwrap();
    let idle = store.stats().memory;
    let too_long = puts(0, 1).put("long", vec![0; 17 << 20]);
    assert!(store.write_batch(too_long).is_err());
    assert_eq!(store.stats().memory.used_bytes, idle.used_bytes);
    store.write_batch(puts(0, 1)).unwrap();
    assert!(store.stats().memory.index_bytes > idle.index_bytes);
    store.write_batch(deletes(0)).unwrap();
    assert_eq!(store.stats().memory.used_bytes, idle.used_bytes);
}
