//! foyer: a cache over memory and a device. Nothing in it is durable: it may drop a value at any time.

use std::path::Path;

use foyer::{
    BlockEngineConfig, Compression, DeviceBuilder, FsDeviceBuilder, HybridCache,
    HybridCacheBuilder, HybridCachePolicy, RecoverMode,
};
use tier_nvme::bench::BenchError;
use tokio::runtime::Runtime;

use crate::contender::{Peer, check};

/// Bytes on the device.
const DEVICE_BYTES: usize = 3 << 30;
/// Bytes of the part that a value has to fit into.
const BLOCK_BYTES: usize = 64 << 20;
/// Bytes in memory: what is measured is the device.
const MEMORY_BYTES: usize = 1 << 20;
/// Bytes that wait to be written; a whole batch, or it would be dropped.
const BUFFER_BYTES: usize = 256 << 20;

/// A foyer cache that writes each value to the device when it is inserted.
pub struct FoyerCache {
    runtime: Runtime,
    cache: HybridCache<String, Vec<u8>>,
}

impl Peer for FoyerCache {
    const NAME: &'static str = "foyer (not durable)";
    const IS_DURABLE: bool = false;

    fn create(path: &Path, _value_bytes: usize) -> Result<Self, BenchError> {
        let runtime = Runtime::new()?;
        let device = FsDeviceBuilder::new(path)
            .with_capacity(DEVICE_BYTES)
            .with_direct(true)
            .build()?;
        let engine = BlockEngineConfig::new(device)
            .with_block_size(BLOCK_BYTES)
            .with_flushers(2)
            .with_buffer_pool_size(BUFFER_BYTES)
            .with_submit_queue_size_threshold(BUFFER_BYTES);
        let built = HybridCacheBuilder::new()
            .with_policy(HybridCachePolicy::WriteOnInsertion)
            .memory(MEMORY_BYTES)
            .with_weighter(|key: &String, value: &Vec<u8>| key.len() + value.len())
            .storage()
            .with_engine_config(engine)
            .with_compression(Compression::None)
            .with_recover_mode(RecoverMode::None)
            .build();
        let cache = runtime.block_on(built)?;
        Ok(Self { runtime, cache })
    }

    fn put(&self, batch: Vec<(String, Vec<u8>)>) -> Result<(), BenchError> {
        self.runtime.block_on(async {
            for (key, value) in batch {
                self.cache.storage_writer(key).force().insert(value);
            }
            self.cache.storage().wait().await;
        });
        Ok(())
    }

    fn get_one(&self, key: &str, number: u64) -> Result<(), BenchError> {
        let entry = self.runtime.block_on(self.cache.get(key))?;
        check(entry.as_ref().map(|entry| entry.value().as_slice()), number)
    }

    fn get(&self, keys: &[(String, u64)], depth: usize) -> Result<(), BenchError> {
        let share = keys.len().div_ceil(depth);
        self.runtime.block_on(async {
            let tasks: Vec<_> = keys
                .chunks(share)
                .map(|keys| {
                    let cache = self.cache.clone();
                    let keys = keys.to_vec();
                    self.runtime.spawn(async move {
                        for (key, number) in keys {
                            let entry = cache.get(&key).await?;
                            check(entry.as_ref().map(|entry| entry.value().as_slice()), number)?;
                        }
                        Ok::<(), BenchError>(())
                    })
                })
                .collect();
            for task in tasks {
                task.await??;
            }
            Ok(())
        })
    }

    fn settle(&self) -> Result<(), BenchError> {
        self.runtime.block_on(self.cache.storage().wait());
        self.cache.memory().clear();
        Ok(())
    }
}
