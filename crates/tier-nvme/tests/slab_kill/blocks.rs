//! Batches that both processes know from their numbers.

use core_view::BufferMut;
use core_view::contract::{BlockKey, BlockMeta, BlockPut};
use tier_nvme::SlabConfig;
use tier_nvme::sim::Random;

pub(crate) const BLOCK_BYTES: usize = 8 << 10;
/// Header, log, 48 slots.
const SEGMENT_BYTES: u64 = (4 << 10) + (32 << 10) + 48 * BLOCK_BYTES as u64;

/// Threads of the child; each has keys of its own, and one batch under way.
pub(crate) const WRITERS: u64 = 4;
/// Keys of a writer.
const KEYS: u64 = 48;

/// How both processes open the slab. It has room for all keys and little more, so that slots are used again.
pub(crate) fn config() -> SlabConfig {
    SlabConfig::default()
        .with_block_bytes(BLOCK_BYTES as u64)
        .with_segment_bytes(SEGMENT_BYTES)
        .with_capacity_bytes(6 * SEGMENT_BYTES)
        .with_log_bytes(32 << 10)
}

/// What a batch does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Batch {
    Put(Vec<u128>),
    Remove(Vec<u128>),
}

impl Batch {
    /// The batch of this number; its writer follows from it.
    pub(crate) fn of(number: u64) -> Self {
        let mut random = Random::new(number);
        let count = match random.below(8) {
            0 => 24,
            _ => 1 + random.below(6),
        };
        let first = random.below(KEYS);
        let writer = number % WRITERS;
        let keys = (0..count).map(|i| u128::from(writer << 32 | ((first + i) % KEYS)));
        match random.below(4) {
            0 => Self::Remove(keys.collect()),
            _ => Self::Put(keys.collect()),
        }
    }

    pub(crate) fn keys(&self) -> &[u128] {
        match self {
            Self::Put(keys) | Self::Remove(keys) => keys,
        }
    }
}

/// The bytes of the block that a batch puts under a key.
pub(crate) fn payload(number: u64, key: u128) -> Vec<u8> {
    let mut random = Random::new(number ^ (key as u64) << 20);
    let len = match random.below(3) {
        0 => BLOCK_BYTES,
        1 => 4096,
        _ => 1 + random.below(BLOCK_BYTES as u64) as usize,
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8))
        .flat_map(|_| random.next_u64().to_le_bytes())
        .collect();
    bytes.truncate(len);
    bytes
}

pub(crate) fn put(number: u64, key: u128) -> BlockPut {
    let bytes = payload(number, key);
    let mut payload = BufferMut::zeroed(bytes.len(), 4096).unwrap();
    payload.copy_from_slice(&bytes);
    BlockPut {
        key: BlockKey(key),
        meta: BlockMeta::new(&number.to_le_bytes()).unwrap(),
        payload,
    }
}
