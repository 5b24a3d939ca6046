//! The memory of a store under overload, counted by the store, by the allocator and by the kernel. In a process of its
//! own: what the last two count is the process's.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    unsafe_code,
    reason = "tests, and an allocator that counts"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use core_view::contract::ErrorKind;
use tier_nvme::{CompressionType, MemoryStats, NvmeError, NvmeStore, StorageConfig, WriteBatch};

const LIMIT_BYTES: u64 = 32 << 20;
/// What callers hold before they hand it over, threads, and what the allocator has for itself.
const SLACK_BYTES: u64 = 6 << 20;
const WRITERS: u64 = 4;
const READERS: u64 = 3;
const BATCHES: u64 = 80;
const VALUES: u64 = 32;
const ROUNDS: u64 = 8;
const LENGTHS: [usize; 4] = [64, 700, 20_000, 60_000];

/// Counts what is allocated, but for what the kernel is asked for by the page.
struct Counting {
    now: AtomicUsize,
    peak: AtomicUsize,
}

#[global_allocator]
static HEAP: Counting = Counting {
    now: AtomicUsize::new(0),
    peak: AtomicUsize::new(0),
};

// SAFETY: it hands everything on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = self.now.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        self.peak.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let now = self.now.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        self.peak.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.now.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Most bytes that the process ever had in memory.
fn resident_peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() << 10
}

fn key(writer: u64, round: u64, number: u64) -> Vec<u8> {
    let mut key = (writer << 32 | round << 16 | number).to_le_bytes().to_vec();
    key.resize(8 + 20 * (number % 5) as usize, b'k');
    key
}

/// Half of it shrinks.
fn value(writer: u64, turn: u64, number: u64) -> Vec<u8> {
    let len = LENGTHS[((turn + number) % 4) as usize];
    let mut state = turn << 8 | number;
    let mut value: Vec<u8> = (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            if number.is_multiple_of(2) {
                (state >> 56) as u8
            } else {
                turn as u8
            }
        })
        .collect();
    value[0] = writer as u8;
    value
}

/// Whether it took place; all that may keep it from that is the limit.
fn took_place<T>(outcome: Result<T, NvmeError>) -> bool {
    outcome.map_or_else(
        |error| {
            assert!(error.kind() == ErrorKind::Busy, "{error}");
            false
        },
        |_| true,
    )
}

/// What took place.
#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    read: AtomicU64,
    refused: AtomicU64,
    scanned: AtomicU64,
    compacted: AtomicU64,
    verified: AtomicU64,
}

fn count(counter: &AtomicU64, took_place: bool) {
    counter.fetch_add(u64::from(took_place), Ordering::Relaxed);
}

fn write(store: &NvmeStore, writer: u64, counts: &Counts) {
    for turn in 0..BATCHES {
        let batch = (0..VALUES).fold(WriteBatch::new(), |batch, number| {
            let key = key(writer, turn % ROUNDS, number);
            match (turn + number) % 7 {
                0 => batch.delete(key),
                _ => batch.put(key, value(writer, turn, number)),
            }
        });
        // Nobody overwrites these: no segment is given up without moving some.
        let batch = match turn % 4 {
            0 => batch.put(format!("kept {writer} {turn}"), value(writer, turn, 0)),
            _ => batch,
        };
        let outcome = match turn % 3 {
            0 => store
                .write_batch_async(batch)
                .wait()
                .map_err(NvmeError::from),
            _ => store.write_batch(batch),
        };
        count(&counts.written, took_place(outcome));
    }
}

/// Reads until told to stop, holding on to what it read for a while.
fn read(store: &NvmeStore, reader: u64, stopping: &AtomicBool, counts: &Counts) {
    let mut held = Vec::new();
    let mut turn = reader;
    while !stopping.load(Ordering::Relaxed) {
        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let pick = turn >> 33;
        let writer = pick % WRITERS;
        let keys: Vec<_> = (0..4)
            .map(|more| key(writer, pick / 8 % ROUNDS, (pick / 64 + more) % VALUES))
            .collect();
        for outcome in store.read_many(&keys) {
            match outcome {
                Ok(Some(value)) => {
                    assert_eq!(value[0], writer as u8);
                    count(&counts.read, true);
                    held.push(value);
                }
                outcome => {
                    if !took_place(outcome) {
                        count(&counts.refused, true);
                        held.clear();
                    }
                }
            }
        }
        if held.len() > 2000 {
            held.clear();
        }
    }
}

/// Reads everything in the order in which it was written, and shares what the cache has.
fn scan(store: &NvmeStore, stopping: &AtomicBool, counts: &Counts) {
    while !stopping.load(Ordering::Relaxed) {
        for (writer, round) in
            (0..WRITERS).flat_map(|writer| (0..ROUNDS).map(move |it| (writer, it)))
        {
            for number in 0..VALUES {
                let key = key(writer, round, number);
                let outcome = match number % 2 {
                    0 => store.read_direct(key).map(drop),
                    _ => store.read_shared(key).map(drop),
                };
                count(&counts.scanned, took_place(outcome));
            }
        }
    }
}

/// Sums of the parts never exceed the whole, however it is looked at.
fn watch(store: &NvmeStore, stopping: &AtomicBool) -> MemoryStats {
    let mut most = MemoryStats::default();
    while !stopping.load(Ordering::Relaxed) {
        let memory = store.stats().memory;
        assert!(memory.used_bytes <= LIMIT_BYTES, "{memory:?}");
        most.cache_bytes = most.cache_bytes.max(memory.cache_bytes);
        most.queue_bytes = most.queue_bytes.max(memory.queue_bytes);
        most.buffers_bytes = most.buffers_bytes.max(memory.buffers_bytes);
        most.read_ahead_bytes = most.read_ahead_bytes.max(memory.read_ahead_bytes);
        most.compaction_bytes = most.compaction_bytes.max(memory.compaction_bytes);
        most.checkpoint_bytes = most.checkpoint_bytes.max(memory.checkpoint_bytes);
        most.scan_bytes = most.scan_bytes.max(memory.scan_bytes);
        thread::sleep(Duration::from_millis(1));
    }
    most
}

#[test]
fn everybody_at_once_stays_below_the_limit() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let config = StorageConfig::default()
        .with_segment_bytes(16 << 20)
        .with_cache_size(8 << 20)
        .with_prefetch_distance(256)
        .with_compression(CompressionType::LZ4)
        .with_space_amplification_max(1.25)
        .with_compaction_bytes_per_second(None)
        .with_memory_limit_bytes(LIMIT_BYTES);
    let (resident, heap) = (resident_peak_bytes(), HEAP.now.load(Ordering::Relaxed));
    HEAP.peak.store(heap, Ordering::Relaxed);
    let store = NvmeStore::new(directory.path(), config.clone()).unwrap();
    let (stopping, counts) = (AtomicBool::new(false), Counts::default());
    let most = thread::scope(|scope| {
        let (store, stopping, counts) = (&store, &stopping, &counts);
        for reader in 0..READERS {
            scope.spawn(move || read(store, reader, stopping, counts));
        }
        scope.spawn(move || scan(store, stopping, counts));
        scope.spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                count(&counts.compacted, took_place(store.compact()));
                count(&counts.verified, took_place(store.verify()));
            }
        });
        let watcher = scope.spawn(move || watch(store, stopping));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || write(store, writer, counts)))
            .collect();
        let outcomes: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        stopping.store(true, Ordering::Relaxed);
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
        watcher.join().unwrap()
    });
    let stats = store.stats();
    store.close().unwrap();
    // Opening reads the log and the index again.
    drop(store);
    let reopened = NvmeStore::new(directory.path(), config).unwrap();
    assert!(reopened.verify().unwrap().is_whole());
    let resident = resident_peak_bytes() - resident;
    let heap = HEAP.peak.load(Ordering::Relaxed) - heap;
    println!(
        "counted {} of {LIMIT_BYTES}, resident {resident}, of which heap {heap}\n{counts:?}\nat most {most:?}",
        stats.memory.peak_bytes,
    );
    assert!(stats.memory.peak_bytes <= LIMIT_BYTES, "{stats:?}");
    assert!(stats.memory.peak_bytes > LIMIT_BYTES / 2, "{stats:?}");
    assert!(reopened.stats().memory.peak_bytes <= LIMIT_BYTES);
    assert!(resident <= LIMIT_BYTES + SLACK_BYTES, "{resident}");
    let parts = [
        most.buffers_bytes,
        most.cache_bytes,
        most.queue_bytes,
        most.read_ahead_bytes,
        most.compaction_bytes,
        most.checkpoint_bytes,
        most.scan_bytes,
    ];
    assert!(parts.iter().all(|&bytes| bytes > 0), "{most:?}");
    assert!(stats.values_moved > 0 && stats.checkpoints > 0, "{stats:?}");
    let took_place = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert!(took_place(&counts.written) > WRITERS * BATCHES / 2);
    assert!(took_place(&counts.compacted) > 0 && took_place(&counts.verified) > 0);
}
