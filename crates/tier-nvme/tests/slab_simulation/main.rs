//! Seeded simulation of the slab on a disk that fails: at least 200 operations and one power loss a seed,
//! compared with what each block may be.
//!
//! `STEPWELL_SEEDS` sets how many seeds run (100 if unset), `STEPWELL_SEED` runs one alone.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what is wrong by panicking"
)]

mod damage;
mod discarded;
mod lies;
mod life;
mod points;
mod prefix;
mod refused;

use std::collections::BTreeMap;

use core_view::BufferMut;
use core_view::contract::{BlockGet, BlockKey, BlockMeta, BlockPut, BlockStore, ErrorKind};
use tier_nvme::SlabConfig;
use tier_nvme::sim::Random;

const BLOCK_BYTES: u64 = 8 << 10;
/// Header, log, ten slots.
const SEGMENT_BYTES: u64 = 4096 + (32 << 10) + 10 * BLOCK_BYTES;

/// Blocks that lives change.
const KEYS: u64 = 26;

const COMMAND: &str = "cargo test -p tier-nvme --features sim --test slab_simulation";

/// A block as it was put: its bytes follow from the tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Value {
    tag: u64,
    len: usize,
}

impl Value {
    fn any(random: &mut Random) -> Self {
        let len = match random.below(4) {
            0 => BLOCK_BYTES,
            1 => 4096,
            _ => 1 + random.below(BLOCK_BYTES),
        };
        Self {
            tag: random.next_u64(),
            len: len as usize,
        }
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = self.tag.to_le_bytes().repeat(self.len.div_ceil(8));
        bytes.truncate(self.len);
        // A sector that is elsewhere in the block shows.
        for (i, sector) in bytes.chunks_mut(512).enumerate() {
            sector[0] ^= i as u8;
        }
        bytes
    }

    fn meta(self) -> BlockMeta {
        let meta = self.tag.to_le_bytes().repeat(16);
        BlockMeta::new(&meta[..(self.tag % 129) as usize]).unwrap()
    }

    fn put(self, key: u128, aligned: bool) -> BlockPut {
        let payload = if aligned {
            let mut payload = BufferMut::zeroed(self.len, 4096).unwrap();
            payload.copy_from_slice(&self.bytes());
            payload
        } else {
            let mut payload = BufferMut::zeroed(self.len + 8, 4096).unwrap().split_off(8);
            payload.copy_from_slice(&self.bytes());
            payload
        };
        BlockPut {
            key: BlockKey(key),
            meta: self.meta(),
            payload,
        }
    }
}

type Model = BTreeMap<u128, Value>;

/// Metadata and payload.
type Found = (Vec<u8>, Vec<u8>);

fn config() -> SlabConfig {
    SlabConfig::default()
        .with_block_bytes(BLOCK_BYTES)
        .with_segment_bytes(SEGMENT_BYTES)
        .with_capacity_bytes(3 * SEGMENT_BYTES)
        .with_log_bytes(32 << 10)
        .with_own_thread(false)
}

/// What is stored under a key: metadata and payload, nothing, or an error's kind.
fn fetch(slab: &dyn BlockStore, key: u128) -> Result<Option<Found>, ErrorKind> {
    let target = BufferMut::zeroed(BLOCK_BYTES as usize, 4096).unwrap();
    let get = BlockGet {
        key: BlockKey(key),
        target,
    };
    // One way or the other, as the key has it.
    let items = match key % 2 {
        0 => slab.get(vec![get]).wait(),
        _ => slab.get_blocking(vec![get]),
    };
    let mut items = match items {
        Ok(items) => items,
        Err(failure) => return Err(failure.kind()),
    };
    match items.pop().unwrap() {
        Ok(block) => Ok(Some((
            block.meta.as_slice().to_vec(),
            block.payload().to_vec(),
        ))),
        Err(failure) if failure.kind() == ErrorKind::NotFound => Ok(None),
        Err(failure) => Err(failure.kind()),
    }
}

/// As [`fetch`], again after input errors, which the simulation injects.
fn fetch_surely(slab: &dyn BlockStore, key: u128) -> Option<Found> {
    loop {
        match fetch(slab, key) {
            Ok(found) => return found,
            Err(kind) => assert_eq!(kind, ErrorKind::Io, "block {key}"),
        }
    }
}

fn is_value(found: &Found, value: Value) -> bool {
    found.0 == value.meta().as_slice() && found.1 == value.bytes()
}

/// Demands that the slab holds exactly the model.
fn check_contents(slab: &dyn BlockStore, model: &Model, what: &str) {
    let listed: Vec<u128> = slab
        .list(None, usize::MAX)
        .unwrap()
        .iter()
        .map(|entry| entry.key.0)
        .collect();
    let expected: Vec<u128> = model.keys().copied().collect();
    assert_eq!(listed, expected, "{what}: the blocks there are");
    for (&key, &value) in model {
        let found = fetch_surely(slab, key).unwrap();
        assert!(is_value(&found, value), "{what}: block {key} is another");
    }
    let payload_bytes: u64 = model.values().map(|value| value.len as u64).sum();
    assert_eq!(slab.usage().payload_bytes, payload_bytes, "{what}: usage");
}
