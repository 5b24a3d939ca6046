//! Each way to read gives the same bytes, or says that they are damaged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use core_view::BufferMut;
use core_view::contract::ErrorKind;
use proptest::prelude::*;
use tier_nvme::sim::SimVolume;
use tier_nvme::{
    CompressionType, EngineChoice, NvmeError, NvmeStore, RealVolume, Volume, VolumeOptions,
    WriteBatch,
};

use super::config;

const SIZES: [usize; 14] = [
    0,
    1,
    100,
    4095,
    4096,
    4097,
    10_000,
    16_384,
    20_000,
    65_536,
    100_000,
    600_000,
    1 << 20,
    5_000_001,
];

fn key(number: usize) -> String {
    format!("key {number}")
}

fn value(number: usize) -> Vec<u8> {
    let len = SIZES[number % SIZES.len()];
    // Every third can be compressed.
    let step = if number.is_multiple_of(3) { 64 } else { 1 };
    let mut state = number as u64 + 1;
    (0..len)
        .map(|i| {
            if i % step == 0 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(99);
            }
            (state >> 40) as u8
        })
        .collect()
}

fn filled(volume: Arc<dyn Volume>, count: usize) -> NvmeStore {
    let config = config()
        .with_segment_bytes(8 << 20)
        .with_compression(CompressionType::LZ4);
    let store = NvmeStore::on_volume(volume, config).unwrap();
    for first in (0..count).step_by(SIZES.len()) {
        let numbers = first..count.min(first + SIZES.len());
        let batch = numbers.fold(WriteBatch::new(), |batch, number| {
            batch.put(key(number), value(number))
        });
        store.write_batch(batch).unwrap();
    }
    store
}

fn buffer(len: usize) -> BufferMut {
    BufferMut::zeroed(len.next_multiple_of(4096).max(4096), 4096).unwrap()
}

fn check_all_ways(store: &NvmeStore, count: usize) {
    // In no order, some twice, some absent.
    let numbers: Vec<usize> = (0..count + 20).map(|i| i * 37 % (count + 7)).collect();
    let keys: Vec<String> = numbers.iter().map(|&number| key(number)).collect();
    let outcomes = store.read_many(&keys);
    assert_eq!(outcomes.len(), keys.len());
    for (&number, outcome) in numbers.iter().zip(outcomes) {
        let expected = (number < count).then(|| value(number));
        assert_eq!(outcome.unwrap().as_deref(), expected.as_deref(), "{number}");
    }
    let transfers: Vec<_> = (0..count)
        .map(|number| store.read_async(key(number)))
        .collect();
    for (number, transfer) in transfers.into_iter().enumerate() {
        let expected = value(number);
        assert_eq!(
            transfer.wait().unwrap().as_deref(),
            Some(&expected[..]),
            "{number}"
        );
        let shared = store.read_shared(key(number)).unwrap().unwrap();
        assert_eq!(shared.as_slice(), expected);
        let (target, len) = store
            .read_into(key(number), buffer(expected.len()))
            .unwrap();
        assert_eq!(&target[..len.unwrap()], expected, "{number}");
        // Memory that direct input can't use, and that has no room for whole pages.
        let odd = BufferMut::from_vec(vec![7; expected.len()]);
        let (target, len) = store.read_into(key(number), odd).unwrap();
        assert_eq!((&target[..], len), (&expected[..], Some(expected.len())));
    }
    assert!(store.read_async("absent").wait().unwrap().is_none());
    let (target, len) = store.read_into("absent", buffer(100)).unwrap();
    assert_eq!((target.len(), len), (4096, None));
    let failure = store
        .read_into(key(3), buffer(100).split_off(3000))
        .unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::InvalidInput);
    assert_eq!(failure.into_parts().1.len(), 1);
    assert!(store.read_many::<&str>(&[]).is_empty());
}

#[test]
fn all_ways_agree_on_a_simulated_volume() {
    check_all_ways(&filled(SimVolume::new(1).handle(), 60), 60);
}

#[test]
fn all_ways_agree_on_a_real_volume_with_either_engine() {
    for engine in [EngineChoice::Auto, EngineChoice::ThreadPool] {
        for io_depth in [1, 64] {
            let directory = tempfile::tempdir().unwrap();
            let options = VolumeOptions::default()
                .with_engine(engine)
                .with_io_depth(io_depth);
            let volume = RealVolume::open(directory.path(), options).unwrap();
            check_all_ways(&filled(Arc::new(volume), 28), 28);
        }
    }
}

#[test]
fn damage_is_told_of_the_key_that_has_it_and_of_no_other() {
    let volume = SimVolume::new(1);
    let store = NvmeStore::on_volume(volume.handle(), config()).unwrap();
    let batch = (0..32_u8).fold(WriteBatch::new(), |batch, number| {
        batch.put([number], vec![number; 3000])
    });
    store.write_batch(batch).unwrap();
    // The values follow one header page, 3000 bytes each.
    assert!(volume.flip_bit("SEGMENT-0000000000000001", 8 * (8192 + 5 * 3000 + 17)));
    let keys: Vec<[u8; 1]> = (0..32).map(|number| [number]).collect();
    for (number, outcome) in store.read_many(&keys).into_iter().enumerate() {
        if number == 5 {
            assert!(
                matches!(outcome, Err(NvmeError::Corrupt { .. })),
                "{outcome:?}"
            );
        } else {
            assert_eq!(outcome.unwrap().as_deref(), Some(&[number as u8; 3000][..]));
        }
    }
    let failure = store.read_async([5]).wait().unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Corrupt);
    let failure = store.read_into([5], buffer(3000)).unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Corrupt);
    assert_eq!(failure.into_parts().1.len(), 1);
    store.close().unwrap();
    let is_closed = |outcome: &Result<_, NvmeError>| matches!(outcome, Err(NvmeError::Closed));
    assert!(store.read_many(&keys).iter().all(is_closed));
    assert!(store.read_async([1]).wait().is_err());
}

#[test]
fn reads_beside_a_writer_see_whole_values() {
    let directory = tempfile::tempdir().unwrap();
    let volume = RealVolume::open(directory.path(), VolumeOptions::default()).unwrap();
    let small = config().with_segment_bytes(1 << 20);
    let store = NvmeStore::on_volume(Arc::new(volume), small).unwrap();
    let write = |round: u8| {
        let batch = (0..8_u8).fold(WriteBatch::new(), |batch, number| {
            let len = [50, 4096, 9000, 70_000][number as usize % 4];
            batch.put([number], vec![round; len])
        });
        store.write_batch(batch).unwrap();
    };
    write(0);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..120_u8 {
                write(round);
                if round.is_multiple_of(8) {
                    store.checkpoint().unwrap();
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
        let keys: Vec<[u8; 1]> = (0..8).map(|number| [number]).collect();
        while !is_over.load(Ordering::Relaxed) {
            let transfers: Vec<_> = keys.iter().map(|key| store.read_async(key)).collect();
            let read = store.read_many(&keys).into_iter().map(Result::unwrap);
            let awaited = transfers
                .into_iter()
                .map(|transfer| transfer.wait().unwrap());
            for value in read.chain(awaited) {
                let value = value.unwrap();
                assert!(value.iter().all(|&byte| byte == value[0]));
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_selection_of_keys_is_read_right(
        lens in proptest::collection::vec(0_usize..20_000, 1..40),
        picks in proptest::collection::vec(0_usize..60, 0..80),
        io_depth in 1_u32..9,
    ) {
        let config = config().with_io_depth(io_depth).with_segment_bytes(1 << 20);
        let store = NvmeStore::on_volume(SimVolume::new(3).handle(), config).unwrap();
        let value = |number: usize| vec![number as u8 + 1; lens[number]];
        let batch = (0..lens.len()).fold(WriteBatch::new(), |batch, number| {
            batch.put(key(number), value(number))
        });
        store.write_batch(batch).unwrap();
        let keys: Vec<String> = picks.iter().map(|&number| key(number)).collect();
        for (&number, outcome) in picks.iter().zip(store.read_many(&keys)) {
            let expected = (number < lens.len()).then(|| value(number));
            let read = outcome.unwrap();
            prop_assert_eq!(read.as_deref(), expected.as_deref());
        }
    }
}
