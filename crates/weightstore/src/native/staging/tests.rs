//! Transfers that others get in the way of.

use std::sync::Barrier;
use std::thread::sleep;
use std::time::Duration;

use core_view::{BufferMut, DType};
use tier_nvme::sim::SimVolume;

use crate::{
    EncodedObject, EncodedSink, EncodedSource, GcOptions, HashKey, NativeConfig, NativeStore,
    WeightError, WeightHash, WeightStore, WeightTensor,
};

fn store() -> NativeStore {
    NativeStore::on_volume(SimVolume::new(1).handle(), NativeConfig::default()).unwrap()
}

/// Stores a tensor that does not compress.
fn encoded(source: &NativeStore, seed: u64, len: usize) -> EncodedObject {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes = std::iter::repeat_with(|| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 56) as u8
    });
    let bytes: Vec<u8> = bytes.take(len).collect();
    let weight = WeightTensor::new("w", DType::U8, &[len as u64], bytes).unwrap();
    let hash = source.store(&weight, None).unwrap();
    source.encoded(&hash).unwrap().unwrap()
}

fn send(source: &NativeStore, sink: &NativeStore, object: &EncodedObject) {
    for index in 0..object.chunk_count() {
        let range = object.chunk_range(index).unwrap();
        let mut bytes = vec![0; (range.end - range.start) as usize];
        source
            .read_encoded(object, range.start, &mut bytes)
            .unwrap();
        let chunk = (index, BufferMut::from_vec(bytes));
        sink.stage_chunks(object, vec![chunk]).unwrap();
    }
}

fn is_whole(store: &NativeStore, hash: WeightHash) -> bool {
    store.load(&HashKey::from(hash)).unwrap().is_some()
}

#[test]
fn of_two_who_publish_a_tensor_at_once_none_takes_away_what_the_other_names() {
    let (source, sink) = (store(), store());
    for seed in 1..6 {
        let object = encoded(&source, seed, 3 << 20);
        sink.stage(&object).unwrap();
        send(&source, &sink, &object);
        let together = Barrier::new(2);
        std::thread::scope(|scope| {
            let publish = || {
                together.wait();
                sink.publish(&object).unwrap();
            };
            scope.spawn(publish);
            scope.spawn(publish);
        });
        assert!(is_whole(&sink, object.hash()), "seed {seed}");
        assert!(sink.staged().unwrap().is_empty());
    }
}

#[test]
fn what_is_discarded_while_it_is_published_is_one_or_the_other() {
    let (source, sink) = (store(), store());
    let (mut published_ones, mut discarded_ones) = (0, 0);
    for seed in 0..60 {
        let object = encoded(&source, 100 + seed, 2 << 20);
        sink.stage(&object).unwrap();
        send(&source, &sink, &object);
        let (published, discarded) = std::thread::scope(|scope| {
            let discard = scope.spawn(|| {
                sleep(Duration::from_micros(100 * seed));
                sink.discard(&object.hash()).unwrap()
            });
            let published = sink.publish(&object);
            (published, discard.join().unwrap())
        });
        match published {
            Ok(()) => assert!(!discarded && is_whole(&sink, object.hash()), "seed {seed}"),
            Err(WeightError::NotStaged { .. }) => assert!(discarded, "seed {seed}"),
            Err(error) => panic!("seed {seed}: {error:?}"),
        }
        published_ones += usize::from(!discarded);
        discarded_ones += usize::from(discarded);
        assert!(sink.staged().unwrap().is_empty());
    }
    println!("{published_ones} published, {discarded_ones} discarded");
}

#[test]
fn a_transfer_that_begins_beside_a_collection_keeps_its_chunks() {
    let (source, sink) = (store(), store());
    for seed in 1..5 {
        let object = encoded(&source, seed, 2 << 20);
        std::thread::scope(|scope| {
            // As if others committed: the transfer has its number, and its record is not there yet.
            let ledger = sink.core.ledger();
            let stage = scope.spawn(|| sink.stage(&object).unwrap());
            sleep(Duration::from_millis(30));
            let mut collection = sink.begin_gc(GcOptions::default());
            drop(ledger);
            assert!(!collection.step().unwrap());
            stage.join().unwrap();
            send(&source, &sink, &object);
            for _ in 0..3 {
                collection.step().unwrap();
            }
            sink.publish(&object).unwrap();
            while !collection.step().unwrap() {}
        });
        assert!(is_whole(&sink, object.hash()), "seed {seed}");
    }
}
