//! Values that were read, for the next one who asks.

mod shard;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use core_view::TensorStorage;

use super::buffers::small_bytes;
use super::index::Slot;
use super::memory::{Budget, MemoryKind, Reservation};
use crate::format::{PAGE_BYTES, ValuePlace};
use shard::{Insertion, Shard};

/// Bytes that an entry takes beside its value.
const ENTRY_BYTES: usize = 256;
/// Bytes of a shard, unless there would be too many: a value may take half of one.
const SHARD_BYTES: usize = 64 << 20;
const SHARDS_MAX: usize = 16;

/// A value in memory that whoever asks for it shares.
#[derive(Debug, Clone)]
struct Cached {
    storage: TensorStorage,
    _share: Arc<Reservation>,
}

/// A cache of values under their places.
///
/// A place is written once and its segment's number is not used again, so that an entry is never wrong, at
/// most dead: the index says where a key's value is, and nobody asks for another place. What a change of
/// a key makes dead is taken out at once.
#[derive(Debug)]
pub(super) struct Cache {
    hasher: RandomState,
    shards: Vec<RwLock<Shard<Key, Cached>>>,
    budget: Arc<Budget>,
    counters: Counters,
}

type Key = (u64, u64);

#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
    refusals: AtomicU64,
}

/// What the cache has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Bytes of the values that it holds, with what it takes to hold them.
    pub used_bytes: u64,
    /// Reads that it answered.
    pub hits: u64,
    /// Reads that it did not.
    pub misses: u64,
    /// Values that went for others, or for want of memory.
    pub evictions: u64,
    /// Values that it did not take: too large, or no memory left.
    pub refusals: u64,
}

/// Bytes that an entry takes with a value of so many.
fn entry_bytes(value_bytes: usize) -> usize {
    let value_bytes = match value_bytes < PAGE_BYTES {
        true => small_bytes(value_bytes) as usize,
        false => value_bytes.next_multiple_of(PAGE_BYTES),
    };
    value_bytes + ENTRY_BYTES
}

fn key_of(place: ValuePlace) -> Key {
    (place.segment_id, place.offset_bytes)
}

impl Cache {
    /// A cache of at most `capacity_bytes`; of none if that is zero.
    pub(super) fn new(capacity_bytes: u64, budget: Arc<Budget>) -> Self {
        let capacity_bytes = usize::try_from(capacity_bytes).unwrap_or(usize::MAX);
        let shard_count = match capacity_bytes {
            0 => 0,
            bytes => (bytes / SHARD_BYTES).clamp(1, SHARDS_MAX),
        };
        Self {
            hasher: RandomState::new(),
            shards: (0..shard_count)
                .map(|_| RwLock::new(Shard::new(capacity_bytes / shard_count)))
                .collect(),
            budget,
            counters: Counters::default(),
        }
    }

    fn shard(&self, key: Key) -> Option<&RwLock<Shard<Key, Cached>>> {
        match self.shards.len() {
            0 => None,
            1 => self.shards.first(),
            count => self.shards.get(self.hasher.hash_one(key) as usize % count),
        }
    }

    /// Whether it can keep anything.
    pub(super) fn is_on(&self) -> bool {
        !self.shards.is_empty()
    }

    pub(super) fn get(&self, slot: &Slot) -> Option<TensorStorage> {
        // Without stored bytes a value shares its place with the next.
        let shard = self
            .shard(key_of(slot.place()))
            .filter(|_| slot.stored_bytes > 0)?;
        let found = {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            shard.get(&key_of(slot.place()))
        };
        let counter = match found {
            Some(_) => &self.counters.hits,
            None => &self.counters.misses,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        found.map(|cached| cached.storage)
    }

    /// Whether a value of so many bytes would be kept. One that is too long counts as refused.
    pub(super) fn wants(&self, slot: &Slot, value_bytes: usize) -> bool {
        let key = key_of(slot.place());
        let Some(shard) = self.shard(key).filter(|_| slot.stored_bytes > 0) else {
            return false;
        };
        let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
        let fits = shard.fits(entry_bytes(value_bytes));
        if !fits {
            self.count_refusal();
        }
        fits && !shard.contains(&key)
    }

    /// A value was not kept.
    pub(super) fn count_refusal(&self) {
        self.counters.refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps a value that was read, checked, from its place, in memory that counts as the cache's for as long as
    /// anybody has it.
    pub(super) fn insert(&self, slot: &Slot, storage: &TensorStorage) {
        let key = key_of(slot.place());
        let Some(shard) = self.shard(key).filter(|_| slot.stored_bytes > 0) else {
            return;
        };
        let Some(share) = self.reserve(shard, ENTRY_BYTES) else {
            return self.count_refusal();
        };
        let cached = Cached {
            storage: storage.clone(),
            _share: Arc::new(share),
        };
        let insertion = {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            shard.insert(key, cached, entry_bytes(storage.len()))
        };
        match insertion {
            Insertion::Kept { evicted } => self.count_evictions(evicted),
            Insertion::Present => {}
            Insertion::Refused => self.count_refusal(),
        }
    }

    /// Memory for an entry, of what others leave, or else of what older entries have.
    fn reserve(&self, shard: &RwLock<Shard<Key, Cached>>, len_bytes: usize) -> Option<Reservation> {
        let reserve = || {
            self.budget
                .try_reserve(MemoryKind::Cache, len_bytes as u64)
                .ok()
        };
        reserve().or_else(|| {
            let (_, evicted) = {
                let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
                shard.give_back(len_bytes)
            };
            self.count_evictions(evicted);
            reserve()
        })
    }

    /// Takes out what a change of its key has made dead.
    pub(super) fn remove(&self, slot: &Slot) {
        let key = key_of(slot.place());
        if let Some(shard) = self.shard(key).filter(|_| slot.stored_bytes > 0) {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            shard.remove(&key);
        }
    }

    /// Gives at least `len_bytes` back, if it has so many; tells whether it gave anything.
    pub(super) fn give_back(&self, len_bytes: usize) -> bool {
        let mut given = 0;
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let (bytes, evicted) = shard.give_back(len_bytes - given);
            drop(shard);
            self.count_evictions(evicted);
            given += bytes.min(len_bytes - given);
            if given == len_bytes {
                break;
            }
        }
        given > 0
    }

    fn count_evictions(&self, evicted: u64) {
        self.counters
            .evictions
            .fetch_add(evicted, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> CacheStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shard_bytes = |shard: &RwLock<Shard<Key, Cached>>| {
            shard
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .len_bytes() as u64
        };
        CacheStats {
            used_bytes: self.shards.iter().map(shard_bytes).sum(),
            hits: load(&self.counters.hits),
            misses: load(&self.counters.misses),
            evictions: load(&self.counters.evictions),
            refusals: load(&self.counters.refusals),
        }
    }
}
