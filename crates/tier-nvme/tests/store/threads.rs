//! Callers that get in one another's way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use core_view::contract::Transfer;
use tier_nvme::sim::SimVolume;
use tier_nvme::{CommitStage, NvmeError, NvmeStore, WriteBatch};

use super::{config, open};

const PATIENCE: Duration = Duration::from_secs(60);

fn only_closed<T>(result: Result<T, NvmeError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(NvmeError::Closed) => None,
        Err(error) => panic!("closing is all that went on: {error:?}"),
    }
}

/// One life of a store that is closed while others use it; gives the keys that were acknowledged.
fn close_under_way(store: &Arc<NvmeStore>) -> Vec<[u8; 1]> {
    let begin = Arc::new(Barrier::new(5));
    let other = |work: fn(&NvmeStore)| {
        let (store, begin) = (Arc::clone(store), Arc::clone(&begin));
        std::thread::spawn(move || {
            begin.wait();
            work(&store);
        })
    };
    let writer = {
        let (store, begin) = (Arc::clone(store), Arc::clone(&begin));
        std::thread::spawn(move || {
            begin.wait();
            let write = |key: u8| only_closed(store.write_aligned([key], &[key; 900]));
            (0..255)
                .take_while(|&key| write(key).is_some())
                .map(|key| [key])
                .collect()
        })
    };
    let others = [
        other(|store| while only_closed(store.checkpoint()).is_some() {}),
        other(|store| while only_closed(store.checkpoint()).is_some() {}),
        other(|store| {
            while let Some(value) = only_closed(store.read_direct("before")) {
                assert_eq!(value.as_deref(), Some(&[7; 5000][..]));
            }
        }),
    ];
    begin.wait();
    std::thread::sleep(Duration::from_micros(200));
    store.close().unwrap();
    for other in others {
        other.join().unwrap();
    }
    writer.join().unwrap()
}

#[test]
fn closing_while_others_use_the_store_loses_nothing() {
    for round in 0..200 {
        let volume = SimVolume::new(round);
        let store = Arc::new(open(&volume));
        store.write_aligned("before", &[7; 5000]).unwrap();
        let acknowledged = close_under_way(&store);
        drop(store);
        let store = open(&volume);
        assert!(store.recovery_report().clean, "round {round}");
        assert_eq!(store.len(), 1 + acknowledged.len() as u64, "round {round}");
        for key in acknowledged {
            let value = store.read_direct(key).unwrap().unwrap();
            assert_eq!(&value[..], &[key[0]; 900]);
        }
        assert_eq!(
            store.read_direct("before").unwrap().as_deref(),
            Some(&[7; 5000][..])
        );
    }
}

#[test]
fn batches_with_long_headers_are_not_merged_into_one_that_is_too_long() {
    let (entered, is_entered) = mpsc::channel();
    let first = AtomicBool::new(true);
    let config = config()
        .with_segment_bytes(64 << 20)
        .with_observer(move |stage| {
            if stage == CommitStage::Write && first.swap(false, Ordering::Relaxed) {
                entered.send(()).unwrap();
                // The two others line up behind this commit.
                std::thread::sleep(Duration::from_millis(500));
            }
        });
    let volume = SimVolume::new(1);
    let store = Arc::new(NvmeStore::on_volume(volume.handle(), config).unwrap());
    let write = |batch: WriteBatch| {
        let store = Arc::clone(&store);
        std::thread::spawn(move || store.write_batch(batch))
    };
    // 9000 keys of 1024 bytes are a header of 9 MiB; 16 MiB is the most.
    let long = |tag: u8| {
        (0..9000_u32).fold(WriteBatch::new(), |batch, i| {
            let mut key = vec![tag; 1024];
            key[..4].copy_from_slice(&i.to_le_bytes());
            batch.put(key, Vec::new())
        })
    };
    let batches = [long(1), long(2)];
    let small = write(WriteBatch::new().put("small", vec![1]));
    is_entered.recv().unwrap();
    let long = batches.map(write);
    small.join().unwrap().unwrap();
    for writer in long {
        writer.join().unwrap().unwrap();
    }
    assert_eq!(store.len(), 18_001);
}

#[test]
fn a_panic_inside_a_commit_stops_the_store_and_leaves_nobody_waiting() {
    let armed = AtomicBool::new(true);
    let config = config().with_observer(move |stage| {
        if stage == CommitStage::Sync && armed.swap(false, Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
            std::panic::panic_any("planted in the observer");
        }
    });
    let volume = SimVolume::new(1);
    let store = Arc::new(NvmeStore::on_volume(volume.handle(), config).unwrap());
    let (done, outcomes) = mpsc::channel();
    for key in 0..4_u8 {
        let (store, done) = (Arc::clone(&store), done.clone());
        std::thread::spawn(move || {
            let outcome = store.write_aligned([key], &[key; 10]);
            done.send(outcome).unwrap();
        });
    }
    drop(done);
    // One of the four panicked and sends nothing.
    for _ in 0..3 {
        let outcome = outcomes.recv_timeout(PATIENCE).unwrap();
        assert!(
            matches!(outcome, Err(NvmeError::Poisoned { .. })),
            "{outcome:?}"
        );
    }
    volume.kill();
    drop(store);
    let store = open(&volume);
    // The one whose commit panicked, and the others if they had lined up behind it: nobody was told.
    assert!(store.len() <= 4);
    store.write_aligned("after", b"x").unwrap();
}

/// Batches that their caller has not waited for yet take the memory for the next one, and whoever was committing beside them leaves.
#[test]
fn batches_that_nobody_waits_for_do_not_keep_the_memory_of_the_next() {
    const IN_FLIGHT: usize = 3;
    let first = AtomicBool::new(true);
    let config = config()
        .with_segment_bytes(32 << 20)
        .with_memory_limit_bytes(32 << 20)
        .with_observer(move |stage| {
            if stage == CommitStage::Sync && first.swap(false, Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(300));
            }
        });
    let volume = SimVolume::new(1);
    let store = Arc::new(NvmeStore::on_volume(volume.handle(), config).unwrap());
    let other = {
        let store = Arc::clone(&store);
        std::thread::spawn(move || store.write_batch(WriteBatch::new().put("h", vec![1; 100])))
    };
    std::thread::sleep(Duration::from_millis(50));
    let (done, outcome) = mpsc::channel();
    let writer = Arc::clone(&store);
    std::thread::spawn(move || {
        let mut under_way = std::collections::VecDeque::new();
        for number in 0..12 {
            if under_way.len() == IN_FLIGHT {
                let oldest: Transfer<()> = under_way.pop_front().unwrap();
                oldest.wait().unwrap();
            }
            let batch = WriteBatch::new().put([number], vec![number; 6 << 20]);
            under_way.push_back(writer.write_batch_async(batch));
        }
        let ends = under_way.into_iter().map(|batch| batch.wait().is_ok());
        done.send(ends.collect::<Vec<_>>()).unwrap();
    });
    other.join().unwrap().unwrap();
    assert_eq!(outcome.recv_timeout(PATIENCE), Ok(vec![true; IN_FLIGHT]));
    assert_eq!(store.len(), 13);
}
