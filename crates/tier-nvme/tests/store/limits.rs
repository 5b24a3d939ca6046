//! What each part of a store does where the memory limit leaves it little.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use core_view::BufferMut;
use core_view::contract::ErrorKind;
use tier_nvme::sim::{Random, SimVolume};
use tier_nvme::{
    CompressionType, NvmeError, NvmeStore, RealVolume, StorageConfig, VolumeOptions, WriteBatch,
};

const LIMIT_BYTES: u64 = StorageConfig::MEMORY_LIMIT_BYTES_MIN;
const PATIENCE: Duration = Duration::from_secs(120);

/// The least memory; nothing is compacted before it is asked for.
fn config() -> StorageConfig {
    StorageConfig::default()
        .with_segment_bytes(4 << 20)
        .with_memory_limit_bytes(LIMIT_BYTES)
        .with_space_amplification_max(1000.0)
}

fn open(volume: &SimVolume) -> NvmeStore {
    NvmeStore::on_volume(volume.handle(), config()).unwrap()
}

fn value(number: u64, len: usize) -> Vec<u8> {
    number.to_le_bytes().repeat(len / 8)
}

/// Takes all the memory that callers can have.
fn take_all(store: &NvmeStore) -> Vec<BufferMut> {
    let mut taken = Vec::new();
    for len in [256 << 10, 64 << 10, 4 << 10] {
        taken.extend(std::iter::from_fn(|| store.buffer(len).ok()));
    }
    taken
}

/// Bytes that nothing shrinks.
fn noise(len: usize) -> Vec<u8> {
    let mut random = Random::new(7);
    (0..len).map(|_| random.below(256) as u8).collect()
}

/// The same bytes at an address that no allocator aligned, so that a store copies them.
fn unaligned(bytes: Vec<u8>) -> BufferMut {
    let padded = [&[0; 8], &bytes[..]].concat();
    BufferMut::from(padded).split_off(8)
}

fn is_refused<T>(outcome: Result<T, NvmeError>) -> bool {
    match outcome {
        Ok(_) => false,
        // A transfer tells the kind alone.
        Err(error) if error.kind() == ErrorKind::Busy => true,
        Err(error) => panic!("{error}"),
    }
}

fn check_peak(store: &NvmeStore) {
    let memory = store.stats().memory;
    assert!(memory.peak_bytes <= memory.limit_bytes, "{memory:?}");
}

#[test]
fn a_limit_below_the_least_is_refused_and_the_least_is_named() {
    let config = config().with_memory_limit_bytes(LIMIT_BYTES - 1);
    let error = NvmeStore::on_volume(SimVolume::new(1).handle(), config).unwrap_err();
    let NvmeError::Invalid { field, reason } = &error else {
        panic!("{error}");
    };
    assert_eq!(*field, "memory_limit_bytes");
    assert!(reason.contains(&LIMIT_BYTES.to_string()), "{reason}");
}

#[test]
fn compaction_goes_on_while_callers_have_all_that_they_can_have() {
    let volume = SimVolume::new(1);
    let store = open(&volume);
    for number in 0..600_u64 {
        // Some are packed, some copied, some read by themselves.
        let len = [800, 20_000, 60_000][number as usize % 3];
        store
            .write_aligned(number.to_le_bytes(), &value(number, len))
            .unwrap();
    }
    for number in (0..600_u64).filter(|number| number / 3 % 4 > 0) {
        store.delete(number.to_le_bytes()).unwrap();
    }
    let taken = take_all(&store);
    assert!(is_refused(store.buffer(4096)));
    let report = store.compact().unwrap();
    assert!(report.segments_removed >= 2, "{report:?}");
    assert_eq!((report.values_too_long, report.damage.len()), (0, 0));
    store.checkpoint().unwrap();
    assert!(store.verify().unwrap().is_whole());
    check_peak(&store);
    drop(taken);
    for number in (0..600_u64).filter(|number| number / 3 % 4 == 0) {
        let len = [800, 20_000, 60_000][number as usize % 3];
        let read = store.read_direct(number.to_le_bytes()).unwrap();
        assert_eq!(read.as_deref(), Some(&value(number, len)[..]));
    }
}

#[test]
fn a_value_too_long_for_what_is_left_stays_and_moves_another_time() {
    let volume = SimVolume::new(1);
    let store = open(&volume);
    let len = 1 << 20;
    for number in 0..6_u64 {
        store
            .write_aligned(number.to_le_bytes(), &value(number, len))
            .unwrap();
    }
    for number in [1, 2, 4, 5_u64] {
        store.delete(number.to_le_bytes()).unwrap();
    }
    let taken = take_all(&store);
    // A batch that nobody commits has what is for batches.
    let waiting = store.write_batch_async(WriteBatch::new().put("w", unaligned(value(9, 600_000))));
    let report = store.compact().unwrap();
    assert!(report.values_too_long > 0, "{report:?}");
    assert_eq!(report.segments_removed, 0, "{report:?}");
    let stats = store.stats();
    assert_eq!(stats.moves_refused, report.values_too_long);
    check_peak(&store);
    waiting.wait().unwrap();
    drop(taken);
    let report = store.compact().unwrap();
    assert_eq!(report.values_too_long, 0, "{report:?}");
    assert!(report.segments_removed > 0, "{report:?}");
    for number in [0, 3_u64] {
        let read = store.read_direct(number.to_le_bytes()).unwrap();
        assert!(read.as_deref() == Some(&value(number, len)[..]));
    }
    check_peak(&store);
}

#[test]
fn verification_needs_little_and_says_so_where_there_is_less() {
    let volume = SimVolume::new(1);
    let store = NvmeStore::on_volume(
        volume.handle(),
        config().with_compression(CompressionType::LZ4),
    )
    .unwrap();
    // Longer than what a verification reads at once; what shrinks has to be made whole.
    store.write_aligned("raw", &noise(1_200_000)).unwrap();
    store.write_aligned("packed", &[7; 400_000]).unwrap();
    for number in 0..3000_u64 {
        let key = [&number.to_le_bytes()[..], &[b'k'; 200]].concat();
        store.write_aligned(key, &[]).unwrap();
    }
    let taken = take_all(&store);
    let report = store.verify().unwrap();
    assert!(
        report.is_whole() && report.values_checked == 3002,
        "{report:?}"
    );
    let waiting = store.write_batch_async(WriteBatch::new().put("w", unaligned(noise(440_000))));
    assert!(is_refused(store.verify()));
    waiting.wait().unwrap();
    assert!(store.verify().unwrap().is_whole());
    check_peak(&store);
    drop(taken);
    assert!(volume.flip_bit("SEGMENT-0000000000000001", 8 * 1_000_000));
    assert_eq!(store.verify().unwrap().damage.len(), 1);
}

#[test]
fn read_ahead_gets_shorter_before_it_is_left_out() {
    let volume = SimVolume::new(1);
    let store =
        NvmeStore::on_volume(volume.handle(), config().with_prefetch_distance(256)).unwrap();
    for number in 0..300_u64 {
        store
            .write_aligned(number.to_le_bytes(), &value(number, 8192))
            .unwrap();
    }
    let scan = || {
        let before = store.stats().prefetch;
        for number in 0..300_u64 {
            let read = store.read_direct(number.to_le_bytes()).unwrap();
            assert_eq!(read.as_deref(), Some(&value(number, 8192)[..]));
        }
        let after = store.stats().prefetch;
        let reads = after.reads - before.reads;
        (
            reads,
            after.shortened - before.shortened,
            after.skipped - before.skipped,
        )
    };
    let (reads, shortened, skipped) = scan();
    assert!(reads > 0 && shortened == 0 && skipped == 0);
    let mut taken = take_all(&store);
    assert_eq!(store.stats().memory.read_ahead_bytes, 0);
    taken.retain(|buffer| buffer.len() > 64 << 10);
    let (reads, shortened, _) = scan();
    assert!(reads > 0 && shortened > 0, "{reads} {shortened}");
    drop(store.buffer(256 << 10));
    assert_eq!(
        store.stats().memory.read_ahead_bytes,
        0,
        "a caller comes first"
    );
    taken.extend(take_all(&store));
    let long = taken.iter().position(|buffer| buffer.len() > 4096).unwrap();
    drop(taken.swap_remove(long));
    let mut pages: Vec<_> = std::iter::from_fn(|| store.buffer(4096).ok()).collect();
    // Room for the reader's own value, and for no other.
    pages.truncate(pages.len() - 3);
    let (_, _, skipped) = scan();
    assert!(skipped > 0);
    check_peak(&store);
}

#[test]
fn small_values_count_for_as_long_as_somebody_has_them() {
    let volume = SimVolume::new(1);
    let store = NvmeStore::on_volume(volume.handle(), config().with_cache_size(1 << 20)).unwrap();
    for first in (0..1500).step_by(500) {
        let batch = (first..first + 500).fold(WriteBatch::new(), |batch, number: u64| {
            batch.put(number.to_le_bytes(), value(number, 2000))
        });
        store.write_batch(batch).unwrap();
    }
    let keys: Vec<_> = (0..1500_u64).map(u64::to_le_bytes).collect();
    let idle = store.stats().memory;
    let read: Vec<_> = store
        .read_many(&keys)
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let memory = store.stats().memory;
    assert!(
        memory.buffers_bytes - idle.buffers_bytes >= 1500 * 2000,
        "{memory:?}"
    );
    assert!(memory.cache_bytes > 300_000, "{memory:?}");
    drop(read);
    assert_eq!(store.stats().memory.buffers_bytes, idle.buffers_bytes);
    // What is shared out of the cache counts when the cache has let it go.
    let shared: Vec<_> = keys[..300]
        .iter()
        .filter_map(|key| store.read_shared(key).unwrap())
        .collect();
    let batch = keys
        .iter()
        .fold(WriteBatch::new(), |batch, key| batch.delete(key));
    store.write_batch(batch).unwrap();
    assert_eq!(store.stats().cache.used_bytes, 0);
    assert!(store.stats().memory.cache_bytes >= 300 * 2000);
    drop(shared);
    assert_eq!(store.stats().memory.cache_bytes, 0);
    check_peak(&store);
}

/// Long keys that one shard of the index has.
fn crowded_keys(count: usize) -> Vec<Vec<u8>> {
    let keys = (0..).map(|number: u32| [&[b'k'; 1000][..], &number.to_le_bytes()].concat());
    let crc = |key: &Vec<u8>| crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, key);
    keys.filter(|key| crc(key) % 256 == 0).take(count).collect()
}

#[test]
fn a_checkpoint_for_which_there_is_no_memory_costs_nothing_but_itself() {
    let volume = SimVolume::new(1);
    let store = open(&volume);
    let keys = crowded_keys(2000);
    for keys in keys.chunks(100) {
        let batch = keys.iter().fold(WriteBatch::new(), |batch, key| {
            batch.put(&key[..], vec![1; 10])
        });
        store.write_batch(batch).unwrap();
    }
    let taken = take_all(&store);
    assert!(is_refused(store.checkpoint()));
    assert_eq!(store.stats().checkpoints_failed, 1);
    store.write_aligned("goes on", &[2; 100]).unwrap();
    check_peak(&store);
    drop(taken);
    let delete = |keys: &[Vec<u8>]| {
        let batch = keys
            .iter()
            .fold(WriteBatch::new(), |batch, key| batch.delete(&key[..]));
        store.write_batch(batch).unwrap();
    };
    delete(&keys[..1000]);
    store.checkpoint().unwrap();
    volume.crash();
    drop(store);
    let store = open(&volume);
    assert_eq!(store.len(), 1001);
    check_peak(&store);
}

#[test]
fn a_store_is_opened_with_the_limit_that_it_was_written_with() {
    let volume = SimVolume::new(1);
    let store = open(&volume);
    // The longest headers that fit, and as many keys as the index takes.
    let mut written = 0_u32;
    'full: for count in [3000_u32, 300, 30] {
        loop {
            let batch = (written..written + count).fold(WriteBatch::new(), |batch, number| {
                batch.put([&number.to_le_bytes()[..], &[7; 60]].concat(), Vec::new())
            });
            if is_refused(store.write_batch(batch)) {
                continue 'full;
            }
            written += count;
        }
    }
    assert!(written > 8000, "{written}");
    let memory = store.stats().memory;
    assert!(memory.index_bytes > LIMIT_BYTES / 3, "{memory:?}");
    check_peak(&store);
    for clean in [false, true] {
        if clean {
            open(&volume).close().unwrap();
        } else {
            volume.kill();
        }
        let store = open(&volume);
        assert_eq!(store.len(), u64::from(written));
        check_peak(&store);
    }
}

/// What each of the threads did.
#[derive(Default)]
struct Done {
    puts: AtomicU64,
    reads: AtomicU64,
    compactions: AtomicU64,
    verifications: AtomicU64,
}

#[test]
fn everything_goes_on_with_hardly_more_than_the_least() {
    let directory = tempfile::tempdir().unwrap();
    let volume = RealVolume::open(directory.path(), VolumeOptions::default()).unwrap();
    let config = config()
        .with_memory_limit_bytes(LIMIT_BYTES + (64 << 10))
        .with_space_amplification_max(1.25)
        .with_compaction_bytes_per_second(None)
        .with_compression(CompressionType::LZ4)
        .with_prefetch_distance(64)
        .with_cache_size(1 << 20);
    let store = NvmeStore::on_volume(std::sync::Arc::new(volume), config).unwrap();
    let (done, stopping) = (Done::default(), AtomicBool::new(false));
    let until = Instant::now() + Duration::from_secs(3);
    let count = |counter: &AtomicU64, refused: bool| {
        counter.fetch_add(u64::from(!refused), Ordering::Relaxed);
    };
    let (alive, watched) = mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        let over = watched.recv_timeout(PATIENCE);
        if over == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("somebody waits for ever");
            std::process::abort();
        }
    });
    std::thread::scope(|scope| {
        for writer in 0..4_u64 {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                for turn in 0.. {
                    if Instant::now() > until {
                        return;
                    }
                    let key = ((writer << 8) + turn % 16).to_le_bytes();
                    let len = [500, 9000, 300_000, 700_000][(turn % 4) as usize];
                    let value = match turn % 3 {
                        0 => vec![turn as u8; len],
                        _ => value((turn + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15), len),
                    };
                    let refused = match turn % 5 {
                        0 => {
                            let batch = WriteBatch::new().put(key, value).delete("nothing");
                            let outcome = store.write_batch_async(batch).wait();
                            is_refused(outcome.map_err(NvmeError::from))
                        }
                        _ => is_refused(store.write_aligned(key, &value)),
                    };
                    count(&done.puts, refused);
                }
            });
        }
        for reader in 0..2_u64 {
            let (store, done, stopping) = (&store, &done, &stopping);
            scope.spawn(move || {
                for turn in reader.. {
                    if stopping.load(Ordering::Relaxed) {
                        return;
                    }
                    let key = ((turn % 4) * 256 + turn / 4 % 16).to_le_bytes();
                    let read = store.read_direct(key);
                    count(&done.reads, is_refused(read));
                }
            });
        }
        let (store, done, stopping) = (&store, &done, &stopping);
        scope.spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                count(&done.compactions, is_refused(store.compact()));
                _ = is_refused(store.checkpoint());
                count(&done.verifications, is_refused(store.verify()));
            }
        });
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        stopping.store(true, Ordering::Relaxed);
    });
    drop(alive);
    watch.join().unwrap();
    for counter in [
        &done.puts,
        &done.reads,
        &done.compactions,
        &done.verifications,
    ] {
        assert!(counter.load(Ordering::Relaxed) > 0);
    }
    check_peak(&store);
    assert!(store.verify().unwrap().is_whole());
}
