//! Writers, readers and deleters at once, for as long as `STEPWELL_STRESS_SECONDS` says (20 if unset).
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tier_nvme::{CompressionType, NvmeStore, StorageConfig, WriteBatch};

const WRITERS: usize = 3;
const READERS: usize = 3;
const KEYS: usize = 96;

fn seconds() -> u64 {
    let seconds = std::env::var("STEPWELL_STRESS_SECONDS").ok();
    seconds
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(20)
}

/// The number of the write all over a value of a length that follows from it.
fn value(number: u64) -> Vec<u8> {
    let len = [8, 800, 4096, 40_000, 1 << 20][number as usize % 5];
    number.to_le_bytes().repeat(len / 8)
}

fn number_of(value: &[u8]) -> u64 {
    let number = u64::from_le_bytes(value[..8].try_into().unwrap());
    assert!(value == self::value(number), "a value is of two writes");
    number
}

#[test]
fn nothing_acknowledged_is_lost_under_load() {
    let directory = match std::env::var_os("STEPWELL_NVME_DIR") {
        Some(root) => tempfile::tempdir_in(root).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let config = StorageConfig::default()
        .with_segment_bytes(16 << 20)
        .with_compression(CompressionType::LZ4)
        .with_cache_size(16 << 20)
        .with_prefetch_distance(16);
    let until = Instant::now() + Duration::from_secs(seconds());
    // The newest acknowledged number of each key, 0 for none; whoever writes the key holds the lock.
    let newest: Vec<Mutex<u64>> = (0..KEYS).map(|_| Mutex::new(0)).collect();
    let mut rounds = 0;
    while Instant::now() < until {
        let store = NvmeStore::new(directory.path(), config.clone()).unwrap();
        for (key, number) in newest.iter().enumerate() {
            let read = store.read_direct(key.to_le_bytes()).unwrap();
            let found = read.map_or(0, |value| number_of(&value));
            assert_eq!(found, *number.lock().unwrap(), "key {key}");
        }
        let turn_ends = until.min(Instant::now() + Duration::from_secs(5));
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (store, newest) = (&store, &newest);
                scope.spawn(move || {
                    let mut number = (rounds * 1_000_000 + writer as u64 * 100_000).max(1);
                    while Instant::now() < turn_ends {
                        number += 1;
                        let key = number as usize * 7 % KEYS;
                        let mut newest = newest[key].lock().unwrap();
                        if number.is_multiple_of(9) {
                            store.delete(key.to_le_bytes()).unwrap();
                            *newest = 0;
                        } else {
                            let batch = WriteBatch::new().put(key.to_le_bytes(), value(number));
                            store.write_batch(batch).unwrap();
                            *newest = number;
                        }
                    }
                });
            }
            for reader in 0..READERS {
                let (store, newest) = (&store, &newest);
                scope.spawn(move || {
                    let mut at = reader;
                    while Instant::now() < turn_ends {
                        at += 1;
                        let keys: Vec<_> =
                            (0..8).map(|i| ((at + i) % KEYS).to_le_bytes()).collect();
                        for read in store.read_many(&keys).into_iter().flat_map(Result::unwrap) {
                            number_of(&read);
                        }
                        let key = at % KEYS;
                        let newest = newest[key].lock().unwrap();
                        let read = store.read_shared(key.to_le_bytes()).unwrap();
                        let found = read.map_or(0, |value| number_of(value.as_slice()));
                        assert_eq!(found, *newest, "key {key}");
                    }
                });
            }
        });
        assert!(store.verify().unwrap().is_whole());
        println!("{:?}", store.stats());
        rounds += 1;
    }
}
