//! Values that lie side by side in one buffer.

use std::sync::Arc;

use core_view::BufferMut;
use tier_nvme::sim::SimVolume;
use tier_nvme::{NvmeError, NvmeStore, StorageConfig, Volume, WriteBatch};

/// Lengths of neighbours: runs of whole pages, which are joined, cut by what is not.
const LENGTHS: [usize; 8] = [4096, 8192, 4096, 65_536, 5000, 4096, 100, 300_000];

fn config() -> StorageConfig {
    StorageConfig::default().with_segment_bytes(16 << 20)
}

/// Bytes by place, so that a value from elsewhere is not taken for the right one.
fn pattern(target: &mut [u8]) {
    for (place, word) in target.chunks_mut(4).enumerate() {
        let bytes = (place as u32).wrapping_mul(0x9E37_79B1).to_le_bytes();
        word.copy_from_slice(&bytes[..word.len()]);
    }
}

fn cut(mut memory: BufferMut) -> Vec<BufferMut> {
    let mut parts: Vec<_> = LENGTHS.map(|length| memory.split_to(length)).into();
    parts.extend(memory.split_into(4096));
    parts
}

fn check(store: &NvmeStore, expected: &[Vec<u8>]) {
    for (number, expected) in expected.iter().enumerate() {
        let value = store.read_direct(number.to_string()).unwrap().unwrap();
        assert!(value[..] == expected[..], "value {number}");
    }
}

fn round_trip(open: impl Fn() -> Result<NvmeStore, NvmeError>) {
    let store = open().unwrap();
    let mut memory = store.buffer(3 << 20).unwrap();
    pattern(&mut memory);
    let parts = cut(memory);
    let expected: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
    let batch = WriteBatch::with_capacity(parts.len());
    let batch = parts
        .into_iter()
        .enumerate()
        .fold(batch, |batch, (number, part)| {
            batch.put(number.to_string(), part)
        });
    store.write_batch(batch).unwrap();
    check(&store, &expected);
    store.close().unwrap();
    check(&open().unwrap(), &expected);
}

#[test]
fn neighbours_are_written_in_their_order_on_a_simulated_volume() {
    let volume: Arc<dyn Volume> = SimVolume::new(1).handle();
    round_trip(|| NvmeStore::on_volume(Arc::clone(&volume), config()));
}

#[test]
fn neighbours_are_written_in_their_order_on_a_real_directory() {
    let directory = tempfile::tempdir().unwrap();
    round_trip(|| NvmeStore::new(directory.path(), config()));
}

#[test]
fn each_neighbour_is_found_after_it_is_put_again_alone() {
    let volume: Arc<dyn Volume> = SimVolume::new(2).handle();
    let store = NvmeStore::on_volume(volume, config()).unwrap();
    let put = |first: usize| {
        let mut memory = store.buffer(64 * 4096).unwrap();
        pattern(&mut memory);
        let parts = memory.split_into(4096).into_iter().enumerate().skip(first);
        parts.fold(WriteBatch::new(), |batch, (number, part)| {
            batch.put(number.to_string(), part)
        })
    };
    store.write_batch(put(0)).unwrap();
    let live = store.stats().live_bytes;
    // The same key twice in a batch: the first of them is dead at once.
    let twice = put(32).put("63", vec![7; 5000]);
    store.write_batch(twice).unwrap();
    assert_eq!(store.stats().live_bytes, live + 5000 - 4096);
    assert_eq!(&store.read_direct("63").unwrap().unwrap()[..], [7; 5000]);
    assert_eq!(store.len(), 64);
}
