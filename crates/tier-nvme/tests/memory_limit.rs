//! The memory of a store under overload, counted by the store and by the kernel. In a process of its own: what the
//! kernel counts is the process's.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use tier_nvme::{NvmeError, NvmeStore, StorageConfig, WriteBatch};

const LIMIT_BYTES: u64 = 64 << 20;
/// Threads, the allocator's own, and what callers hold before they hand it over.
const SLACK_BYTES: u64 = 24 << 20;
const WRITERS: u64 = 4;
const BATCHES: u64 = 40;
const VALUES: u64 = 32;
const VALUE_BYTES: usize = 128 << 10;

/// Most bytes that the process ever had in memory.
fn resident_peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() << 10
}

fn batch(writer: u64, turn: u64) -> WriteBatch {
    (0..VALUES).fold(WriteBatch::new(), |batch, number| {
        let key = (writer << 32 | (turn % 8) << 16 | number).to_le_bytes();
        batch.put(key, vec![writer as u8; VALUE_BYTES])
    })
}

/// Reads until told to stop, holding on to what it read for a while; returns how often there was no memory.
fn read(store: &NvmeStore, reader: u64, stopping: &AtomicBool) -> u64 {
    let mut held = Vec::new();
    let (mut refused, mut turn) = (0, reader);
    while !stopping.load(Ordering::Relaxed) {
        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let pick = turn >> 33;
        let (writer, number) = (pick % WRITERS, pick / 8 % VALUES);
        let key = (writer << 32 | (pick / 256 % 8) << 16 | number).to_le_bytes();
        match store.read_direct(key) {
            Ok(Some(value)) => {
                assert!(value.len() == VALUE_BYTES && value[100] == writer as u8);
                held.push(value);
            }
            Ok(None) => thread::yield_now(),
            Err(error) => {
                assert!(matches!(error, NvmeError::MemoryLimit { .. }), "{error}");
                refused += 1;
                held.clear();
            }
        }
        if held.len() > 150 {
            held.clear();
        }
    }
    refused
}

#[test]
fn writers_readers_and_cache_stay_below_the_limit() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let config = StorageConfig::default()
        .with_segment_bytes(32 << 20)
        .with_cache_size(24 << 20)
        .with_memory_limit_bytes(LIMIT_BYTES);
    let before = resident_peak_bytes();
    let store = NvmeStore::new(directory.path(), config).unwrap();
    let stopping = AtomicBool::new(false);
    let (written, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for reader in 0..3 {
            let (store, stopping, refused) = (&store, &stopping, &refused);
            scope.spawn(move || {
                refused.fetch_add(read(store, reader, stopping), Ordering::Relaxed);
            });
        }
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (store, written) = (&store, &written);
                scope.spawn(move || {
                    for turn in 0..BATCHES {
                        match store.write_batch(batch(writer, turn)) {
                            Ok(()) => _ = written.fetch_add(1, Ordering::Relaxed),
                            Err(error) => {
                                assert!(matches!(error, NvmeError::MemoryLimit { .. }), "{error}");
                            }
                        }
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        stopping.store(true, Ordering::Relaxed);
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    });
    let memory = store.stats().memory;
    let resident = resident_peak_bytes() - before;
    println!(
        "budget {} of {LIMIT_BYTES}, resident {resident}, written {}, reads refused {}",
        memory.peak_bytes,
        written.load(Ordering::Relaxed),
        refused.load(Ordering::Relaxed),
    );
    assert!(memory.peak_bytes <= LIMIT_BYTES, "{memory:?}");
    assert!(memory.peak_bytes > LIMIT_BYTES / 2, "{memory:?}");
    assert!(resident <= LIMIT_BYTES + SLACK_BYTES, "{resident}");
    assert!(written.load(Ordering::Relaxed) > WRITERS * BATCHES / 2);
}
