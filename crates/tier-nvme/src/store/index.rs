//! Where the newest value of each key is.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::key::Key;
use super::shard::Shard;
use crate::format::{Encoding, Entry, IndexRecord, ValuePlace, crc32c, value_alignment};

/// A value's place and checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) segment_id: u64,
    /// From the start of the segment.
    pub(super) offset_bytes: u64,
    pub(super) stored_bytes: u64,
    pub(super) raw_bytes: u64,
    pub(super) sequence: u64,
    pub(super) checksum: u32,
    pub(super) encoding: Encoding,
}

impl Slot {
    pub(super) fn place(&self) -> ValuePlace {
        ValuePlace {
            segment_id: self.segment_id,
            offset_bytes: self.offset_bytes,
        }
    }

    /// Bytes of the log that the value takes with its entry, where batches are full.
    pub(super) fn log_bytes(&self, key_bytes: usize) -> u64 {
        let value_bytes = self
            .stored_bytes
            .next_multiple_of(value_alignment(self.stored_bytes));
        value_bytes + Entry::encoded_bytes(key_bytes) as u64
    }
}

/// Keys that were filled in and are not counted yet, modulo 2^64.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Growth {
    keys: u64,
    record_bytes: u64,
}

/// Most bytes of memory that a key takes beside what its record in a checkpoint has. The record is longer than what a
/// long key takes of its own.
pub(super) const KEY_OVERHEAD_BYTES: u64 = Shard::KEY_BYTES_MAX;

/// Enough that one shard is a small piece of work: a checkpoint writes them one by one.
pub(super) const SHARD_COUNT: usize = 256;

/// A hash map in shards, so that readers and the committing thread seldom meet.
#[derive(Debug)]
pub(super) struct Index {
    shards: Box<[RwLock<Shard>]>,
    /// Keys may be anybody's: the hash is seeded.
    hashes: foldhash::quality::RandomState,
    keys: AtomicU64,
    /// Bytes of all records in a checkpoint.
    record_bytes: AtomicU64,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARD_COUNT)
                .map(|_| RwLock::new(Shard::default()))
                .collect(),
            hashes: foldhash::quality::RandomState::default(),
            keys: AtomicU64::new(0),
            record_bytes: AtomicU64::new(0),
        }
    }

    /// The shard follows from the key alone, so that a simulation finds the same state at the same step.
    fn shard(&self, key: &[u8]) -> &RwLock<Shard> {
        &self.shards[self.shard_of(key)]
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Slot> {
        let hash = self.hash(key);
        read(self.shard(key)).get(hash, key)
    }

    /// The number of a key's shard.
    pub(super) fn shard_of(&self, key: &[u8]) -> usize {
        crc32c(key) as usize % SHARD_COUNT
    }

    /// What tells a key from most others of its shard.
    fn hash(&self, key: &[u8]) -> u64 {
        self.hashes.hash_one(key)
    }

    /// A shard, to be changed by one thread for a while; see [`grow`](Self::grow).
    pub(super) fn filling(&self, shard: usize) -> Filling<'_> {
        Filling {
            shard: write(&self.shards[shard]),
            index: self,
            growth: Growth::default(),
        }
    }

    /// Forgets every key.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            *write(shard) = Shard::default();
        }
        self.keys.store(0, Ordering::Release);
        self.record_bytes.store(0, Ordering::Release);
    }

    /// Counts what was filled in.
    pub(super) fn grow(&self, growth: Growth) {
        // Less of one is more in the other direction: both wrap around.
        self.keys.fetch_add(growth.keys, Ordering::AcqRel);
        self.record_bytes
            .fetch_add(growth.record_bytes, Ordering::AcqRel);
    }

    /// Sets a key's place and returns the one before.
    pub(super) fn insert(&self, key: Box<[u8]>, slot: Slot) -> Option<Slot> {
        let record_bytes = IndexRecord::encoded_bytes(key.len());
        let hash = self.hash(&key);
        let before = write(self.shard(&key)).insert(hash, Key::from(key), slot);
        if before.is_none() {
            self.keys.fetch_add(1, Ordering::AcqRel);
            self.record_bytes.fetch_add(record_bytes, Ordering::AcqRel);
        }
        before
    }

    /// Sets a key's place if it is still `from`, and returns the one before.
    pub(super) fn replace(&self, key: &[u8], from: ValuePlace, slot: Slot) -> Option<Slot> {
        let hash = self.hash(key);
        write(self.shard(key)).replace(hash, key, from, slot)
    }

    /// Removes a key and returns its place.
    pub(super) fn remove(&self, key: &[u8]) -> Option<Slot> {
        let hash = self.hash(key);
        let before = write(self.shard(key)).remove(hash, key, |key| self.hash(key));
        if before.is_some() {
            self.keys.fetch_sub(1, Ordering::AcqRel);
            let record_bytes = IndexRecord::encoded_bytes(key.len());
            self.record_bytes.fetch_sub(record_bytes, Ordering::AcqRel);
        }
        before
    }

    pub(super) fn len(&self) -> u64 {
        self.keys.load(Ordering::Acquire)
    }

    /// Most bytes of memory that the keys and places take.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.len() * KEY_OVERHEAD_BYTES + self.record_bytes()
    }

    /// Bytes that the records of all keys take in a checkpoint.
    pub(super) fn record_bytes(&self) -> u64 {
        self.record_bytes.load(Ordering::Acquire)
    }

    pub(super) fn keys_with_prefix(&self, prefix: &[u8]) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        self.for_each(|key, _| {
            if key.starts_with(prefix) {
                keys.push(key.to_vec());
            }
        });
        keys.sort_unstable();
        keys
    }

    /// Calls `visit` for every key, in no particular order.
    pub(super) fn for_each(&self, mut visit: impl FnMut(&[u8], &Slot)) {
        for shard in 0..SHARD_COUNT {
            self.for_each_in(shard, &mut visit);
        }
    }

    /// Calls `visit` for every key of a shard, in no particular order; nothing of it changes meanwhile.
    pub(super) fn for_each_in(&self, shard: usize, mut visit: impl FnMut(&[u8], &Slot)) {
        for (key, slot) in read(&self.shards[shard]).entries() {
            visit(key.as_slice(), slot);
        }
    }
}

/// A shard that is being changed; nobody else sees it meanwhile.
pub(super) struct Filling<'a> {
    shard: RwLockWriteGuard<'a, Shard>,
    index: &'a Index,
    growth: Growth,
}

impl Filling<'_> {
    /// Makes room for so many keys, if there are none yet.
    pub(super) fn make_room(&mut self, keys: usize) {
        if self.shard.entries().is_empty() {
            self.shard.reserve(keys);
        }
    }

    /// Sets a key's place; `true` if the key had none before.
    pub(super) fn put(&mut self, key: &[u8], slot: Slot) -> bool {
        let hash = self.index.hash(key);
        let is_new = self.shard.insert(hash, Key::from(key), slot).is_none();
        if is_new {
            let record_bytes = IndexRecord::encoded_bytes(key.len());
            self.growth.keys = self.growth.keys.wrapping_add(1);
            self.growth.record_bytes = self.growth.record_bytes.wrapping_add(record_bytes);
        }
        is_new
    }

    pub(super) fn delete(&mut self, key: &[u8]) {
        let hash = self.index.hash(key);
        let removed = self.shard.remove(hash, key, |key| self.index.hash(key));
        if removed.is_some() {
            let record_bytes = IndexRecord::encoded_bytes(key.len());
            self.growth.keys = self.growth.keys.wrapping_sub(1);
            self.growth.record_bytes = self.growth.record_bytes.wrapping_sub(record_bytes);
        }
    }

    /// As [`Index::replace`].
    pub(super) fn replace(&mut self, key: &[u8], from: ValuePlace, slot: Slot) {
        let hash = self.index.hash(key);
        self.shard.replace(hash, key, from, slot);
    }

    /// What was added, or taken away.
    pub(super) fn end(self) -> Growth {
        self.growth
    }
}

fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shard: &RwLock<Shard>) -> RwLockWriteGuard<'_, Shard> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}
