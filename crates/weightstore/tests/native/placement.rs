//! Tensors and ranges of them, straight to where they are needed.

use std::time::Duration;

use core_alloc::{StorageAllocator, SystemAllocator};
use core_view::BufferMut;
use core_view::contract::mock::{MockDevice, MockTier, Schedule};
use core_view::contract::{HostTier, MemoryTier, SlotId, SlotRead};
use tier_nvme::sim::SimVolume;
use weightstore::{CHUNK_LEN_BYTES, Codec, NativeStore, SlotTarget, WeightError};

use crate::fixture::{add, bf16, bytes, config, noise, safetensors, weights};

const LEN: usize = 5 * CHUNK_LEN_BYTES / 2 + 7;

fn host(slots: usize, slot_bytes: usize) -> HostTier {
    let storage = SystemAllocator::default()
        .allocate(slots * slot_bytes)
        .unwrap();
    HostTier::new(storage, slot_bytes).unwrap()
}

fn store_of(content: &[u8]) -> NativeStore {
    let config = config().with_codec(Codec::Auto);
    let store = NativeStore::on_volume(SimVolume::new(1).handle(), config).unwrap();
    let file = safetensors(&[bytes("w", content.to_vec()), bytes("none", Vec::new())]);
    add(&store, "m", &file).unwrap();
    store
}

fn content_of(tier: &dyn MemoryTier, slot: SlotId, offset_bytes: usize, len: usize) -> Vec<u8> {
    let read = SlotRead {
        slot,
        offset_bytes,
        target: BufferMut::from_vec(vec![0; len]),
    };
    tier.read(vec![read]).wait().unwrap()[0].to_vec()
}

fn buffers(lens: &[usize]) -> Vec<BufferMut> {
    lens.iter()
        .map(|len| BufferMut::from_vec(vec![0; *len]))
        .collect()
}

#[test]
fn host_memory_is_decoded_into_in_place() {
    let content = noise(1, LEN);
    let store = store_of(&content);
    let tier = host(2, LEN + 100);
    let target = SlotTarget {
        tier: &tier,
        slot: SlotId(1),
        offset_bytes: 33,
    };
    let placed = store.load_tensor_to_slot("m", "w", target, &mut Vec::new());
    assert_eq!(placed.unwrap(), LEN as u64);
    assert!(content_of(&tier, SlotId(1), 33, LEN) == content);
    assert_eq!(
        store
            .load_tensor_to_slot("m", "none", target, &mut Vec::new())
            .unwrap(),
        0
    );
    let short = SlotTarget {
        offset_bytes: 101,
        ..target
    };
    assert!(matches!(
        store.load_tensor_to_slot("m", "w", short, &mut Vec::new()),
        Err(WeightError::OutOfRange { .. })
    ));
}

#[test]
fn device_memory_is_reached_through_staging_buffers() {
    let content = noise(2, LEN);
    let store = store_of(&content);
    for lens in [
        &[CHUNK_LEN_BYTES][..],
        &[CHUNK_LEN_BYTES + 5, CHUNK_LEN_BYTES],
        &[2 * CHUNK_LEN_BYTES + 1, 3 * CHUNK_LEN_BYTES],
    ] {
        let tier = MockTier::new(
            MockDevice::new(host(1, LEN + 9)),
            Schedule::delayed(Duration::from_millis(2)),
        );
        let target = SlotTarget {
            tier: &tier,
            slot: SlotId(0),
            offset_bytes: 9,
        };
        let mut staging = buffers(lens);
        store
            .load_tensor_to_slot("m", "w", target, &mut staging)
            .unwrap();
        let mut back: Vec<usize> = staging.iter().map(|buffer| buffer.len()).collect();
        let mut given = lens.to_vec();
        back.sort_unstable();
        given.sort_unstable();
        assert_eq!(back, given, "the buffers come back whole");
        assert!(content_of(&tier, SlotId(0), 9, LEN) == content);
    }
}

#[test]
fn a_failing_device_gives_the_buffers_back() {
    let content = noise(3, LEN);
    let store = store_of(&content);
    let (mut failed, mut done) = (0, 0);
    for seed in 0..40 {
        let tier = MockTier::new(MockDevice::new(host(1, LEN)), Schedule::failing(seed, 0.3));
        let target = SlotTarget {
            tier: &tier,
            slot: SlotId(0),
            offset_bytes: 0,
        };
        let mut staging = buffers(&[CHUNK_LEN_BYTES, CHUNK_LEN_BYTES]);
        match store.load_tensor_to_slot("m", "w", target, &mut staging) {
            Ok(_) => done += 1,
            Err(WeightError::Storage { .. }) => failed += 1,
            Err(error) => panic!("{error}"),
        }
        assert_eq!(staging.len(), 2, "seed {seed}");
        assert!(staging.iter().all(|buffer| buffer.len() == CHUNK_LEN_BYTES));
    }
    assert!(failed > 5 && done > 5, "{failed} failed, {done} done");
    let tier = MockDevice::new(host(1, LEN));
    let target = SlotTarget {
        tier: &tier,
        slot: SlotId(0),
        offset_bytes: 0,
    };
    for staging in [&mut Vec::new(), &mut buffers(&[CHUNK_LEN_BYTES - 1])] {
        assert!(matches!(
            store.load_tensor_to_slot("m", "w", target, staging),
            Err(WeightError::InvalidConfig {
                field: "staging",
                ..
            })
        ));
    }
}

#[test]
fn a_range_costs_the_chunks_that_it_touches() {
    let numbers = weights(4, 8 << 19);
    let tensor = bf16("w", 1 << 10, &numbers);
    let config = config().with_codec(Codec::Auto);
    let store = NativeStore::on_volume(SimVolume::new(1).handle(), config).unwrap();
    let whole = tensor.bytes.clone();
    add(&store, "m", &safetensors(&[tensor])).unwrap();
    let chunks = whole.len() / CHUNK_LEN_BYTES;
    assert!(chunks >= 8);
    let cost = |start: usize, len: usize| {
        let before = store.blobs().stats();
        let mut target = vec![0; len];
        store
            .read_tensor_range("m", "w", start as u64, &mut target)
            .unwrap();
        assert!(target == whole[start..start + len]);
        let after = store.blobs().stats();
        (
            after.reads - before.reads,
            after.bytes_read - before.bytes_read,
        )
    };
    // The manifest, the header, and the chunks; the manifest once.
    let first = cost(17, 1);
    let (base_reads, base_bytes) = cost(17, 1);
    assert_eq!((first.0, base_reads), (3, 2));
    let one_chunk = base_bytes;
    for (start, len, touched) in [
        (0, 100, 1),
        (CHUNK_LEN_BYTES - 1, 2, 2),
        (3 * CHUNK_LEN_BYTES, CHUNK_LEN_BYTES, 1),
        (3 * CHUNK_LEN_BYTES + 5, CHUNK_LEN_BYTES, 2),
        (CHUNK_LEN_BYTES, 4 * CHUNK_LEN_BYTES, 4),
    ] {
        let (reads, bytes) = cost(start, len);
        assert_eq!(reads, base_reads + touched - 1, "{len} at {start}");
        assert!(
            bytes < one_chunk * (touched + 1),
            "{len} at {start}: {bytes}"
        );
    }
    // Less than a quarter of what is stored, for a byte.
    assert!(one_chunk * 4 < store.stats().unwrap().stored_bytes);
}
