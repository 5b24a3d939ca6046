//! The cache gives what is there, and nothing that was.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;
use tier_nvme::sim::SimVolume;
use tier_nvme::{CompressionType, NvmeError, NvmeStore, StorageConfig, WriteBatch};

fn open(volume: &SimVolume, cache_size: u64) -> NvmeStore {
    let config = super::config()
        .with_cache_size(cache_size)
        .with_compression(CompressionType::LZ4);
    NvmeStore::on_volume(volume.handle(), config).unwrap()
}

#[test]
fn what_was_read_is_read_without_the_disk() {
    let volume = SimVolume::new(1);
    let store = open(&volume, 1 << 20);
    store.write_aligned("small", &[1; 100]).unwrap();
    store.write_aligned("large", &vec![2; 200_000]).unwrap();
    store.write_aligned("empty", &[]).unwrap();
    let first = store.read_shared("large").unwrap().unwrap();
    assert_eq!(
        store.read_direct("small").unwrap().as_deref(),
        Some(&[1; 100][..])
    );
    // Bytes that are damaged now are not looked at.
    let stats = store.stats();
    assert_eq!((stats.cache.hits, stats.cache.misses), (0, 2));
    for bit in 0..600 {
        assert!(volume.flip_bit("SEGMENT-0000000000000001", 8 * 8192 + bit));
    }
    let second = store.read_shared("large").unwrap().unwrap();
    assert_eq!(first.as_ptr(), second.as_ptr(), "a hit is no copy");
    assert_eq!(
        store.read_direct("small").unwrap().as_deref(),
        Some(&[1; 100][..])
    );
    assert_eq!(store.read_many(&["small", "large"]).len(), 2);
    assert_eq!(
        store.read_async("large").wait().unwrap().unwrap().len(),
        200_000
    );
    assert!(store.read_shared("empty").unwrap().unwrap().is_empty());
    let stats = store.stats();
    assert_eq!((stats.cache.hits, stats.cache.misses), (5, 2));
    assert!(stats.memory.cache_bytes >= 200_000, "{stats:?}");
    assert!(!store.verify().unwrap().is_whole(), "verify asks the disk");
}

#[test]
fn a_changed_value_leaves_the_cache_at_once() {
    let store = open(&SimVolume::new(1), 1 << 20);
    for round in 0..50_u8 {
        store.write_aligned("key", &vec![round; 50_000]).unwrap();
        let value = store.read_shared("key").unwrap().unwrap();
        assert!(value.as_slice().iter().all(|&byte| byte == round));
        assert!(store.stats().cache.used_bytes < 70_000);
    }
    assert!(store.delete("key").unwrap());
    assert!(store.read_shared("key").unwrap().is_none());
    assert_eq!(store.stats().cache.used_bytes, 0);
    assert_eq!(store.stats().memory.cache_bytes, 0);
}

#[test]
fn the_cache_gives_way_to_reads_that_need_memory() {
    let volume = SimVolume::new(1);
    let limit_bytes = 8 << 20;
    let config = StorageConfig::default()
        .with_segment_bytes(8 << 20)
        .with_memory_limit_bytes(limit_bytes)
        .with_cache_size(6 << 20);
    let store = NvmeStore::on_volume(volume.handle(), config).unwrap();
    let value = |number: u8| vec![number; 400_000];
    for number in 0..40 {
        store.write_aligned([number], &value(number)).unwrap();
    }
    let mut lent = Vec::new();
    let refused = (0..40_u8).find_map(|number| match store.read_direct([number]) {
        Ok(read) => {
            let read = read.unwrap();
            assert_eq!(*read, *value(number));
            lent.push(read);
            None
        }
        Err(error) => Some(error),
    });
    assert!(
        matches!(refused, Some(NvmeError::MemoryLimit { .. })),
        "{refused:?}"
    );
    assert!(lent.len() >= 10, "{} of what there is", lent.len());
    let stats = store.stats();
    assert!(stats.memory.peak_bytes <= limit_bytes);
    assert!(stats.cache.evictions + stats.cache.refusals > 0);
    drop(lent);
    assert_eq!(*store.read_direct([39]).unwrap().unwrap(), *value(39));
}

#[test]
fn too_large_a_cache_is_refused() {
    let config = StorageConfig::builder().cache_size(4 << 30).build();
    assert!(matches!(
        config,
        Err(NvmeError::Invalid {
            field: "cache_size",
            ..
        })
    ));
    let config = StorageConfig::builder()
        .io_depth(64)
        .direct_io(true)
        .compression(CompressionType::LZ4)
        .cache_size(1 << 30)
        .build()
        .unwrap();
    assert_eq!(config.cache_size(), 1 << 30);
}

/// The number of the write, over and over, so that a mixture shows.
fn numbered(number: u64, len: usize) -> Vec<u8> {
    number.to_le_bytes().repeat(len / 8 + 1)
}

fn number_of(value: &[u8]) -> u64 {
    let number = u64::from_le_bytes(value[..8].try_into().unwrap());
    assert!(
        value
            .chunks_exact(8)
            .all(|chunk| chunk == number.to_le_bytes())
    );
    number
}

#[test]
fn readers_beside_writers_never_see_what_was_before() {
    const KEYS: usize = 6;
    let store = open(&SimVolume::new(5), 300_000);
    let acknowledged: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    for key in 0..KEYS as u8 {
        store.write_aligned([key], &numbered(0, 8)).unwrap();
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Each key has one writer, so that numbers rise.
        for half in 0..2 {
            let (store, acknowledged, is_over) = (&store, &acknowledged, &is_over);
            scope.spawn(move || {
                for number in 1..400_u64 {
                    let key = half * (KEYS / 2) + number as usize % (KEYS / 2);
                    let len = [10, 5000, 40_000][number as usize % 3];
                    let value = numbered(number, len);
                    store.write_aligned([key as u8], &value).unwrap();
                    acknowledged[key].store(number, Ordering::SeqCst);
                }
                is_over.store(true, Ordering::SeqCst);
            });
        }
        for reader in 0..2_usize {
            let (store, acknowledged, is_over) = (&store, &acknowledged, &is_over);
            scope.spawn(move || {
                let mut round = reader;
                while !is_over.load(Ordering::SeqCst) {
                    round += 1;
                    let key = round % KEYS;
                    let least = acknowledged[key].load(Ordering::SeqCst);
                    let number = match round % 4 {
                        0 => number_of(&store.read_direct([key as u8]).unwrap().unwrap()),
                        1 => {
                            let mut values = store.read_many(&[[key as u8]]);
                            number_of(&values.pop().unwrap().unwrap().unwrap())
                        }
                        _ => number_of(store.read_shared([key as u8]).unwrap().unwrap().as_slice()),
                    };
                    assert!(number >= least, "{number} after {least} was acknowledged");
                }
            });
        }
    });
    let stats = store.stats();
    assert!(stats.cache.hits > 0 && stats.cache.misses > 0, "{stats:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_history_reads_as_the_model(
        cache_size in 0_u64..200_000,
        steps in proptest::collection::vec((0_u8..8, 0_u8..12, 0_usize..30_000), 1..120),
    ) {
        let volume = SimVolume::new(7);
        let mut store = open(&volume, cache_size);
        let mut model = BTreeMap::new();
        for (number, (what, key, len)) in (1_u64..).zip(steps) {
            match what {
                0 => {
                    store.delete([key]).unwrap();
                    model.remove(&key);
                }
                1 | 2 => {
                    let value = numbered(number, len);
                    store.write_batch(WriteBatch::new().put([key], value.clone())).unwrap();
                    model.insert(key, value);
                }
                3 if number % 5 == 0 => {
                    volume.kill();
                    drop(store);
                    store = open(&volume, cache_size);
                }
                4 => {
                    let read = store.read_direct([key]).unwrap();
                    prop_assert_eq!(read.as_deref(), model.get(&key).map(Vec::as_slice));
                }
                _ => {
                    let read = store.read_shared([key]).unwrap();
                    let read = read.as_ref().map(|value| value.as_slice());
                    prop_assert_eq!(read, model.get(&key).map(Vec::as_slice));
                }
            }
            prop_assert!(store.stats().cache.used_bytes <= cache_size);
        }
    }
}
