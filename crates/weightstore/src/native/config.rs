//! How a native store is opened.

use tier_nvme::StorageConfig;

use crate::record::DEPTH_MAX;
use crate::{Codec, WeightError};

/// How a [`NativeStore`](crate::NativeStore) is opened.
///
/// ```
/// use weightstore::{Codec, NativeConfig};
///
/// let config = NativeConfig::default()
///     .with_codec(Codec::Lz4)
///     .with_create(false);
/// assert_eq!(config.codec(), Codec::Lz4);
/// ```
#[derive(Debug, Clone)]
pub struct NativeConfig {
    codec: Codec,
    batch_bytes: usize,
    threads: usize,
    chain_depth_max: u8,
    find_bases: bool,
    rebase: bool,
    interleaving_seed: Option<u64>,
    storage: StorageConfig,
}

impl Default for NativeConfig {
    /// Content encoded by its type, what is nearly the same as something stored as its difference from
    /// that, at most four such steps one below the other; batches of 16 MiB, a thread for each core and two at
    /// least, the storage's own defaults.
    fn default() -> Self {
        Self {
            codec: Codec::Auto,
            batch_bytes: 16 << 20,
            threads: crate::parallel::threads_for(usize::MAX).max(2),
            chain_depth_max: 4,
            find_bases: true,
            rebase: false,
            interleaving_seed: None,
            storage: StorageConfig::default(),
        }
    }
}

impl NativeConfig {
    /// Smallest batch in bytes: a chunk fits in it.
    pub const BATCH_BYTES_MIN: usize = 1 << 20;
    /// Largest batch in bytes.
    pub const BATCH_BYTES_MAX: usize = 128 << 20;
    /// Most threads.
    pub const THREADS_MAX: usize = 256;
    /// Most bases below a tensor.
    pub const CHAIN_DEPTH_MAX: u8 = DEPTH_MAX;

    /// The codec that new content is stored with.
    #[must_use]
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Bytes that are committed together. Up to five such batches are in memory during an import.
    #[must_use]
    pub fn with_batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// Threads that hash, encode and decode. With one, whatever is read from the storage and written to it is
    /// in an order that depends on nothing but the calls.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// With one thread, lets the steps in which an import commits follow each other in an order that depends on the seed
    /// and on nothing else: one of those that several threads come to. For simulations; several threads need no seed.
    #[must_use]
    pub fn with_interleaving_seed(mut self, seed: u64) -> Self {
        self.interleaving_seed = Some(seed);
        self
    }

    /// How many bases a new tensor may have one below the other: so many more chunks are read for each
    /// of its own. 0 stores every tensor alone.
    #[must_use]
    pub fn with_chain_depth_max(mut self, depth: u8) -> Self {
        self.chain_depth_max = depth;
        self
    }

    /// Whether tensors that are nearly the same as stored ones are found without being told; a base that
    /// an import names is used all the same.
    #[must_use]
    pub fn with_find_bases(mut self, find: bool) -> Self {
        self.find_bases = find;
        self
    }

    /// Whether deleting a tensor that others are stored against stores those otherwise first. If not,
    /// deleting it by its hash is refused, and a removed model leaves it behind for as long as it is needed.
    #[must_use]
    pub fn with_rebase(mut self, rebase: bool) -> Self {
        self.rebase = rebase;
        self
    }

    /// Whether to make a store where there is none.
    #[must_use]
    pub fn with_create(mut self, create: bool) -> Self {
        self.storage = self.storage.with_create(create);
        self
    }

    /// Whether to refuse changes.
    #[must_use]
    pub fn with_read_only(mut self, read_only: bool) -> Self {
        self.storage = self.storage.with_read_only(read_only);
        self
    }

    /// How the storage below is opened.
    #[must_use]
    pub fn with_storage(mut self, storage: StorageConfig) -> Self {
        self.storage = storage;
        self
    }

    /// The codec that new content is stored with.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Bytes that are committed together.
    pub fn batch_bytes(&self) -> usize {
        self.batch_bytes
    }

    /// Threads that hash, encode and decode.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// What the order of an import's commits depends on, with one thread.
    pub fn interleaving_seed(&self) -> Option<u64> {
        self.interleaving_seed
    }

    /// How many bases a new tensor may have one below the other.
    pub fn chain_depth_max(&self) -> u8 {
        self.chain_depth_max
    }

    /// Whether bases are looked for.
    pub fn find_bases(&self) -> bool {
        self.find_bases
    }

    /// Whether what is stored against a deleted tensor is stored otherwise first.
    pub fn rebase(&self) -> bool {
        self.rebase
    }

    /// How the storage below is opened.
    pub fn storage(&self) -> &StorageConfig {
        &self.storage
    }

    /// Checks every field.
    pub(super) fn check(&self) -> Result<(), WeightError> {
        self.codec.check()?;
        let refused = |field, reason| Err(WeightError::InvalidConfig { field, reason });
        if !(Self::BATCH_BYTES_MIN..=Self::BATCH_BYTES_MAX).contains(&self.batch_bytes) {
            let reason = format!(
                "{} is not {} to {}",
                self.batch_bytes,
                Self::BATCH_BYTES_MIN,
                Self::BATCH_BYTES_MAX
            );
            return refused("batch_bytes", reason);
        }
        if !(1..=Self::THREADS_MAX).contains(&self.threads) {
            let reason = format!("{} is not 1 to {}", self.threads, Self::THREADS_MAX);
            return refused("threads", reason);
        }
        if self.chain_depth_max > Self::CHAIN_DEPTH_MAX {
            let (found, max) = (self.chain_depth_max, Self::CHAIN_DEPTH_MAX);
            return refused("chain_depth_max", format!("{found} is not 0 to {max}"));
        }
        Ok(())
    }
}
