//! RocksDB with blob files and direct reads.

use std::path::Path;

use rocksdb::{DB, DBCompressionType, Options, WriteBatch, WriteOptions};
use tier_nvme::bench::BenchError;

use crate::contender::{Peer, check};

/// A RocksDB whose values of a kilobyte and more go to blob files.
pub struct RocksdbStore {
    database: DB,
}

impl Peer for RocksdbStore {
    const NAME: &'static str = "RocksDB (BlobDB, direct)";
    const IS_DURABLE: bool = true;

    fn create(path: &Path, _value_bytes: usize) -> Result<Self, BenchError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_compression_type(DBCompressionType::None);
        options.set_enable_blob_files(true);
        options.set_min_blob_size(1 << 10);
        options.set_blob_compression_type(DBCompressionType::None);
        options.set_enable_blob_gc(true);
        options.set_use_direct_reads(true);
        options.set_use_direct_io_for_flush_and_compaction(true);
        options.set_write_buffer_size(256 << 20);
        Ok(Self {
            database: DB::open(&options, path)?,
        })
    }

    fn put(&self, batch: Vec<(String, Vec<u8>)>) -> Result<(), BenchError> {
        let mut changes = WriteBatch::default();
        for (key, value) in &batch {
            changes.put(key, value);
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        Ok(self.database.write_opt(changes, &options)?)
    }

    fn get_one(&self, key: &str, number: u64) -> Result<(), BenchError> {
        check(self.database.get_pinned(key)?.as_deref(), number)
    }

    fn settle(&self) -> Result<(), BenchError> {
        Ok(self.database.flush()?)
    }
}
