//! fjall: a log-structured merge tree with values of their own files.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use tier_nvme::bench::BenchError;

use crate::contender::{Peer, check};

/// Bytes of its cache: what is measured is the device.
const CACHE_BYTES: u64 = 16 << 20;

/// A fjall database with one keyspace whose values are kept apart.
pub struct FjallStore {
    database: Database,
    values: Keyspace,
}

impl Peer for FjallStore {
    const NAME: &'static str = "fjall";
    const IS_DURABLE: bool = true;

    fn create(path: &Path, _value_bytes: usize) -> Result<Self, BenchError> {
        let database = Database::builder(path).cache_size(CACHE_BYTES).open()?;
        let values = database.keyspace("values", || {
            KeyspaceCreateOptions::default()
                .with_kv_separation(Some(KvSeparationOptions::default()))
        })?;
        Ok(Self { database, values })
    }

    fn put(&self, batch: Vec<(String, Vec<u8>)>) -> Result<(), BenchError> {
        let mut changes = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        for (key, value) in batch {
            changes.insert(&self.values, key, value);
        }
        Ok(changes.commit()?)
    }

    fn get_one(&self, key: &str, number: u64) -> Result<(), BenchError> {
        check(self.values.get(key)?.as_deref(), number)
    }

    fn settle(&self) -> Result<(), BenchError> {
        Ok(self.values.rotate_memtable_and_wait()?)
    }
}
