//! redb: a copy-on-write B-tree.

use std::path::Path;

use redb::{Database, ReadableDatabase, TableDefinition};
use tier_nvme::bench::BenchError;

use crate::contender::{Peer, check};

const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");

/// Bytes of its cache: what is measured is the device.
const CACHE_BYTES: usize = 16 << 20;

/// A redb database with one table.
pub struct RedbStore {
    database: Database,
}

impl Peer for RedbStore {
    const NAME: &'static str = "redb";
    const IS_DURABLE: bool = true;

    fn create(path: &Path, _value_bytes: usize) -> Result<Self, BenchError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path.join("values.redb"))?;
        Ok(Self { database })
    }

    fn put(&self, batch: Vec<(String, Vec<u8>)>) -> Result<(), BenchError> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(VALUES)?;
            for (key, value) in &batch {
                table.insert(key.as_str(), value.as_slice())?;
            }
        }
        // Durable when it returns, which is its default.
        Ok(transaction.commit()?)
    }

    fn get_one(&self, key: &str, number: u64) -> Result<(), BenchError> {
        let table = self.database.begin_read()?.open_table(VALUES)?;
        let value = table.get(key)?;
        check(value.as_ref().map(|value| value.value()), number)
    }

    fn settle(&self) -> Result<(), BenchError> {
        Ok(())
    }
}
