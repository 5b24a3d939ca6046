//! Where a mock store keeps its blocks.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::contract::{
    BlockCapabilities, BlockEntry, BlockKey, BlockMeta, BlockUsage, ContractError, ErrorKind,
};

/// What a [`MockBlockStore`](super::MockBlockStore) keeps its blocks on; it outlives the store, so that
/// another store can be opened on it.
#[derive(Debug, Clone, Default)]
pub struct MockMedia(Arc<Mutex<Blocks>>);

#[derive(Debug, Default)]
struct Blocks {
    stored: BTreeMap<BlockKey, Stored>,
    usage: BlockUsage,
}

#[derive(Debug)]
struct Stored {
    meta: BlockMeta,
    payload: Vec<u8>,
    checksum: u64,
}

/// FNV-1a (Fowler, Noll, Vo): each step is a bijection of the state, so that one changed byte always
/// changes the result.
fn checksum(meta: &BlockMeta, payload: &[u8]) -> u64 {
    let bytes = meta.as_slice().iter().chain(payload);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl MockMedia {
    fn lock(&self) -> MutexGuard<'_, Blocks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Flips one bit of a stored payload, counted on from its start after its end; `false` if nothing is stored under the key. The next fetch is
    /// [`ErrorKind::Corrupt`].
    pub fn flip_bit(&self, key: BlockKey, bit: u64) -> bool {
        let mut blocks = self.lock();
        let Some(stored) = blocks.stored.get_mut(&key) else {
            return false;
        };
        let len = stored.payload.len() as u64;
        let at = usize::try_from((bit / 8).checked_rem(len).unwrap_or(0)).unwrap_or(0);
        if let Some(byte) = stored.payload.get_mut(at) {
            *byte ^= 1 << (bit % 8);
        }
        true
    }

    /// As [`MockMedia::flip_bit`], with a checksum that fits: the store can't notice, only whoever knows the block.
    pub fn rot_bit(&self, key: BlockKey, bit: u64) -> bool {
        let flipped = self.flip_bit(key, bit);
        if let Some(stored) = self.lock().stored.get_mut(&key) {
            stored.checksum = checksum(&stored.meta, &stored.payload);
        }
        flipped
    }

    /// Exchanges what is stored under two keys, as a store does that has lost its way; `false` unless something is
    /// stored under both.
    pub fn swap(&self, one: BlockKey, other: BlockKey) -> bool {
        let mut blocks = self.lock();
        if one == other || !blocks.stored.contains_key(&other) {
            return false;
        }
        let Some(first) = blocks.stored.remove(&one) else {
            return false;
        };
        if let Some(second) = blocks.stored.insert(other, first) {
            blocks.stored.insert(one, second);
        }
        true
    }

    pub(super) fn usage(&self) -> BlockUsage {
        self.lock().usage
    }

    pub(super) fn put(
        &self,
        key: BlockKey,
        meta: BlockMeta,
        payload: &[u8],
        capabilities: &BlockCapabilities,
    ) -> Result<(), ContractError> {
        let mut blocks = self.lock();
        let before = blocks.stored.get(&key);
        let freed = before.map_or(0, |stored| stored.payload.len() as u64);
        let used = blocks.usage.payload_bytes - freed;
        let requested = payload.len() as u64;
        let capacity = capabilities.capacity_bytes.unwrap_or(u64::MAX);
        if used.saturating_add(requested) > capacity {
            return Err(
                ContractError::new(ErrorKind::NoSpace, "put block").detail(format!(
                    "{requested} bytes requested, {} available of {capacity}; remove blocks",
                    capacity.saturating_sub(used)
                )),
            );
        }
        let stored = Stored {
            meta,
            payload: payload.to_vec(),
            checksum: checksum(&meta, payload),
        };
        blocks.stored.insert(key, stored);
        blocks.usage = BlockUsage {
            blocks: blocks.stored.len() as u64,
            payload_bytes: used + requested,
        };
        Ok(())
    }

    /// Metadata and length of the payload, which is copied to the start of `target`.
    pub(super) fn get(
        &self,
        key: BlockKey,
        target: &mut [u8],
        alignment_bytes: usize,
    ) -> Result<(BlockMeta, usize), ContractError> {
        const OPERATION: &str = "get block";
        let blocks = self.lock();
        let stored = blocks.stored.get(&key).ok_or_else(|| {
            ContractError::new(ErrorKind::NotFound, OPERATION).detail(format!("key {key}"))
        })?;
        let payload_bytes = stored.payload.len();
        let needed_bytes = payload_bytes.next_multiple_of(alignment_bytes.max(1));
        let given_bytes = target.len();
        let head = target.get_mut(..payload_bytes);
        let Some(head) = head.filter(|_| given_bytes >= needed_bytes) else {
            return Err(
                ContractError::new(ErrorKind::InvalidInput, OPERATION).detail(format!(
                    "the target has {given_bytes} bytes, key {key} needs {needed_bytes}"
                )),
            );
        };
        if checksum(&stored.meta, &stored.payload) != stored.checksum {
            return Err(
                ContractError::new(ErrorKind::Corrupt, OPERATION).detail(format!(
                    "key {key}: the bytes read are not those written; store it again"
                )),
            );
        }
        head.copy_from_slice(&stored.payload);
        Ok((stored.meta, payload_bytes))
    }

    pub(super) fn contains(&self, key: BlockKey) -> bool {
        self.lock().stored.contains_key(&key)
    }

    pub(super) fn remove(&self, key: BlockKey) -> bool {
        let mut blocks = self.lock();
        let Some(stored) = blocks.stored.remove(&key) else {
            return false;
        };
        blocks.usage.blocks -= 1;
        blocks.usage.payload_bytes -= stored.payload.len() as u64;
        true
    }

    pub(super) fn list(&self, after: Option<BlockKey>, count_max: usize) -> Vec<BlockEntry> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let blocks = self.lock();
        let listed = blocks.stored.range((start, Bound::Unbounded));
        let entry = |(&key, stored): (&BlockKey, &Stored)| BlockEntry {
            key,
            meta: stored.meta,
            payload_bytes: stored.payload.len() as u64,
        };
        listed.take(count_max).map(entry).collect()
    }
}
