//! Commits are the same on however many threads they are made.

use core_view::DType;
use tier_nvme::StorageConfig;
use tier_nvme::sim::SimVolume;

use super::*;
use crate::native::body_writer::write_body;
use crate::native::changes::NewObject;
use crate::record::{BodyId, Key, ObjectRecord};
use crate::threads::scarcity::with_threads;
use crate::{NativeConfig, NativeStore, WeightHash, WeightTensor, leaf_digests};

fn store() -> NativeStore {
    let storage = StorageConfig::default().with_segment_bytes(4 << 20);
    let config = NativeConfig::default().with_storage(storage);
    NativeStore::on_volume(SimVolume::new(1).handle(), config).unwrap()
}

/// One tensor with its content.
fn changes(store: &NativeStore, session: &Session<'_>, seed: u64) -> (WeightHash, Changes) {
    let bytes: Vec<u8> = (0..60_000_u64)
        .map(|i| ((i * i * (seed + 3)) >> 7) as u8)
        .collect();
    let shape = [bytes.len() as u64];
    let weight = WeightTensor::new("w", DType::U8, &shape, bytes).unwrap();
    let core = store.enter().unwrap();
    let mut changes = Changes::default();
    let leaves = leaf_digests(weight.bytes());
    let content = (DType::U8, weight.bytes(), None);
    let body = write_body(&core, session, &mut changes, content, &leaves).unwrap();
    let hash = weight.compute_hash();
    changes.add_object(NewObject {
        hash,
        record: ObjectRecord {
            dtype: DType::U8,
            shape: shape.to_vec(),
            alias: weight.compute_alias(),
            base: None,
            body,
        },
        hint: None,
        sketch: None,
    });
    (hash, changes)
}

/// Which of five tensors have headers after an import of them fails, on so many threads of as many as there are.
fn committed(threads: usize, there_are: usize) -> Vec<bool> {
    let store = store();
    let core = store.enter().unwrap();
    let session = Session::new(&core);
    let mut hashes = Vec::new();
    std::thread::scope(|scope| {
        let mut committer = with_threads(there_are, || Committer::start(scope, &session, threads));
        for seed in 0..5 {
            let (hash, changes) = changes(&store, &session, seed);
            hashes.push(hash);
            committer.commit(changes).unwrap();
        }
        committer.abandon(&session);
    });
    let catalog = core.catalog();
    hashes
        .iter()
        .map(|hash| catalog.object(hash).is_some())
        .collect()
}

#[test]
fn a_failed_import_has_committed_what_was_handed_over() {
    for (threads, there_are) in [(1, 9), (2, 9), (3, 2), (3, 1), (3, 0)] {
        assert_eq!(
            committed(threads, there_are),
            [true; 5],
            "{threads} of {there_are}"
        );
    }
}

fn record(index: usize) -> Changes {
    let mut changes = Changes::default();
    let key = Key::Journal(format!("{index}"));
    changes.add_record(key, vec![0; 1000], BodyId(1));
    changes
}

#[test]
fn headers_of_several_batches_are_committed_together() {
    let mut headers = Headers::default();
    for index in 0..CONTENTS_PER_COMMIT {
        assert!(headers.take(record(index), 1 << 20).is_none());
    }
    let full = headers.take(record(99), 1 << 20).unwrap();
    assert_eq!(full.records.len(), CONTENTS_PER_COMMIT);
    assert_eq!(headers.take_all().records.len(), 1);
    assert!(headers.take_all().is_empty());
}

#[test]
fn headers_that_fill_their_share_of_a_batch_are_committed() {
    let mut headers = Headers::default();
    let batch_bytes = HEADERS_SHARE * 2500;
    let full: Vec<usize> = (0..7)
        .filter_map(|index| headers.take(record(index), batch_bytes))
        .map(|full| full.records.len())
        .collect();
    assert_eq!(full, [2, 2, 2]);
    // One that is longer is committed all the same.
    let alone = headers.take(record(7), 0).unwrap();
    assert_eq!(
        (alone.records.len(), headers.take_all().records.len()),
        (1, 1)
    );
}
