//! Where each block is, in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use core_view::contract::{BlockKey, BlockUsage};

use crate::format::slab::BlockPlace;

const SHARDS: usize = 32;

type Shard = BTreeMap<BlockKey, BlockPlace>;

/// Blocks by key, in shards, so that readers of one do not wait for a change of another.
#[derive(Debug)]
pub(super) struct BlockTable {
    shards: [RwLock<Shard>; SHARDS],
    blocks: AtomicU64,
    payload_bytes: AtomicU64,
}

impl BlockTable {
    pub(super) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| RwLock::default()),
            blocks: AtomicU64::new(0),
            payload_bytes: AtomicU64::new(0),
        }
    }

    fn shard(&self, key: BlockKey) -> &RwLock<Shard> {
        // The factor spreads keys that count up; the top bits of a product depend on all bits of the key.
        let mixed = (key.0 ^ (key.0 >> 64)).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        &self.shards[(mixed >> 123) as usize % SHARDS]
    }

    fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
        shard.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(shard: &RwLock<Shard>) -> RwLockWriteGuard<'_, Shard> {
        shard.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `look` with a block's place, which does not change before `look` returns.
    pub(super) fn with<T>(&self, key: BlockKey, look: impl FnOnce(&BlockPlace) -> T) -> Option<T> {
        Self::read(self.shard(key)).get(&key).map(look)
    }

    pub(super) fn contains(&self, key: BlockKey) -> bool {
        Self::read(self.shard(key)).contains_key(&key)
    }

    /// Puts a block in; the place that it had before comes back.
    pub(super) fn insert(&self, key: BlockKey, place: BlockPlace) -> Option<BlockPlace> {
        let added_bytes = u64::from(place.payload_bytes);
        let before = Self::write(self.shard(key)).insert(key, place);
        self.payload_bytes.fetch_add(added_bytes, Ordering::Relaxed);
        match &before {
            Some(before) => self.forget_bytes(before),
            None => {
                self.blocks.fetch_add(1, Ordering::Relaxed);
            }
        }
        before
    }

    pub(super) fn remove(&self, key: BlockKey) -> Option<BlockPlace> {
        let before = Self::write(self.shard(key)).remove(&key)?;
        self.blocks.fetch_sub(1, Ordering::Relaxed);
        self.forget_bytes(&before);
        Some(before)
    }

    fn forget_bytes(&self, before: &BlockPlace) {
        self.payload_bytes
            .fetch_sub(u64::from(before.payload_bytes), Ordering::Relaxed);
    }

    pub(super) fn usage(&self) -> BlockUsage {
        BlockUsage {
            blocks: self.blocks.load(Ordering::Relaxed),
            payload_bytes: self.payload_bytes.load(Ordering::Relaxed),
        }
    }

    /// At most `count_max` blocks in order of their keys, beginning after `after`.
    pub(super) fn page(
        &self,
        after: Option<BlockKey>,
        count_max: usize,
    ) -> Vec<(BlockKey, BlockPlace)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut page: Vec<(BlockKey, BlockPlace)> = Vec::new();
        for shard in &self.shards {
            // Only what comes before the last of a full page can still be on it.
            let end = match page.get(count_max.wrapping_sub(1)) {
                Some((last, _)) => Bound::Excluded(*last),
                None => Bound::Unbounded,
            };
            let crossed = matches!((start, end), (Bound::Excluded(start), Bound::Excluded(end)) if start >= end);
            if count_max == 0 || crossed {
                continue;
            }
            let shard = Self::read(shard);
            let found = shard.range((start, end)).take(count_max);
            page.extend(found.map(|(key, place)| (*key, place.clone())));
            drop(shard);
            page.sort_unstable_by_key(|(key, _)| *key);
            page.truncate(count_max);
        }
        page
    }

    /// Calls `visit` with every block, shard by shard; it must change no block.
    pub(super) fn for_each<E>(
        &self,
        mut visit: impl FnMut(BlockKey, &BlockPlace) -> Result<(), E>,
    ) -> Result<(), E> {
        for shard in &self.shards {
            for (key, place) in &*Self::read(shard) {
                visit(*key, place)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(payload_bytes: u32) -> BlockPlace {
        BlockPlace {
            segment_id: 0,
            slot: 0,
            payload_bytes,
            checksum: 0,
            meta: Box::default(),
        }
    }

    #[test]
    fn pages_are_in_order_whatever_shard_a_key_is_in() {
        let table = BlockTable::new();
        let keys: Vec<_> = (0..1000_u128)
            .map(|i| BlockKey((i * i * 7919) << (i % 60)))
            .collect();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        sorted.dedup();
        for key in keys {
            table.insert(key, place(3));
        }
        assert_eq!(table.usage().blocks, sorted.len() as u64);
        assert_eq!(table.usage().payload_bytes, 3 * sorted.len() as u64);
        for count_max in [1, 7, 999, usize::MAX] {
            let mut found = Vec::new();
            loop {
                let page = table.page(found.last().copied(), count_max);
                if page.is_empty() {
                    break;
                }
                assert!(page.len() <= count_max);
                found.extend(page.into_iter().map(|(key, _)| key));
            }
            assert_eq!(found, sorted, "pages of {count_max}");
        }
        assert!(table.page(None, 0).is_empty());
        assert!(table.page(sorted.last().copied(), 5).is_empty());
        let used = table
            .shards
            .iter()
            .filter(|shard| !BlockTable::read(shard).is_empty());
        assert!(used.count() > SHARDS / 2, "keys crowd together");
    }

    #[test]
    fn the_size_of_a_block_in_memory_is_small() {
        assert!(size_of::<(BlockKey, BlockPlace)>() <= 16 + 32);
    }
}
