//! The contract of all weight stores.

use std::collections::BTreeMap;

use crate::{
    Delta, DeltaStorageInfo, HashKey, StorageInfo, WeightError, WeightHash, WeightMetadata,
    WeightTensor,
};

/// A store of tensors by their content.
///
/// Implementations are shared between threads. Every load verifies the content against its hash. The
/// suite in the `testing` module (feature `testing`) checks an implementation against these rules.
///
/// After [`close`](WeightStore::close), every other call answers [`WeightError::Closed`].
///
/// ```
/// use core_view::DType;
/// use weightstore::{MemoryStore, WeightStore, WeightTensor};
///
/// let store: Box<dyn WeightStore> = Box::new(MemoryStore::new());
/// let weight = WeightTensor::new("bias", DType::F32, &[2], vec![1.0_f32, -1.0])?;
/// let hash = store.store(&weight, None)?;
/// let loaded = store.load(&hash.into())?.ok_or("absent")?;
/// assert_eq!(loaded.bytes(), weight.bytes());
/// store.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait WeightStore: Send + Sync {
    /// Stores a tensor and returns its hash; content that is there already gains a use.
    ///
    /// # Errors
    /// [`WeightError::HashMismatch`] if `hash_key`, SHA-256 or alias, is not that of the content.
    fn store(
        &self,
        weight: &WeightTensor,
        hash_key: Option<&HashKey>,
    ) -> Result<WeightHash, WeightError>;

    /// The tensor of that hash under the name of its first use, or `None`.
    ///
    /// # Errors
    /// [`WeightError::AmbiguousAlias`]; [`WeightError::Corrupt`] rather than other bytes.
    fn load(&self, hash_key: &HashKey) -> Result<Option<WeightTensor>, WeightError>;

    /// Whether there is a tensor of that hash.
    ///
    /// # Errors
    /// [`WeightError::AmbiguousAlias`].
    fn exists(&self, hash_key: &HashKey) -> Result<bool, WeightError>;

    /// Deletes a tensor with all its uses; `false` if there is none.
    ///
    /// # Errors
    /// [`WeightError::AmbiguousAlias`]; [`WeightError::InUse`] if a model or a delta needs it.
    fn delete(&self, hash_key: &HashKey) -> Result<bool, WeightError>;

    /// The SHA-256 hashes of all tensors, sorted.
    ///
    /// # Errors
    /// As the storage.
    fn list_weights(&self) -> Result<Vec<WeightHash>, WeightError>;

    /// The description of a tensor by its first use, without its bytes, or `None`.
    ///
    /// # Errors
    /// [`WeightError::AmbiguousAlias`], [`WeightError::Corrupt`].
    fn get_metadata(&self, hash_key: &HashKey) -> Result<Option<WeightMetadata>, WeightError>;

    /// Every name under which a tensor was stored, oldest first; none if it is absent.
    ///
    /// The provided method knows the one use of [`get_metadata`](WeightStore::get_metadata).
    ///
    /// # Errors
    /// As [`get_metadata`](WeightStore::get_metadata).
    fn uses(&self, hash_key: &HashKey) -> Result<Vec<WeightMetadata>, WeightError> {
        Ok(self.get_metadata(hash_key)?.into_iter().collect())
    }

    /// Stores several tensors and returns the hash of each under the key it came with.
    ///
    /// # Errors
    /// As [`store`](WeightStore::store); tensors before the one at fault may have been stored.
    fn store_batch(
        &self,
        weights: &BTreeMap<String, WeightTensor>,
    ) -> Result<BTreeMap<String, WeightHash>, WeightError> {
        weights
            .iter()
            .map(|(key, weight)| Ok((key.clone(), self.store(weight, None)?)))
            .collect()
    }

    /// Loads several tensors; absent ones are left out.
    ///
    /// # Errors
    /// As [`load`](WeightStore::load).
    fn load_batch(
        &self,
        hash_keys: &[HashKey],
    ) -> Result<BTreeMap<HashKey, WeightTensor>, WeightError> {
        let mut loaded = BTreeMap::new();
        for key in hash_keys {
            if let Some(weight) = self.load(key)? {
                loaded.insert(*key, weight);
            }
        }
        Ok(loaded)
    }

    /// How much the store holds.
    ///
    /// # Errors
    /// As the storage.
    fn get_storage_info(&self) -> Result<StorageInfo, WeightError>;

    /// Stores a delta and returns its hash.
    ///
    /// # Errors
    /// [`WeightError::HashMismatch`] if `delta_hash` is not that of the delta.
    fn store_delta(
        &self,
        delta: &Delta,
        delta_hash: Option<&WeightHash>,
    ) -> Result<WeightHash, WeightError>;

    /// The delta of that hash, or `None`.
    ///
    /// # Errors
    /// [`WeightError::Corrupt`] rather than other bytes.
    fn load_delta(&self, delta_hash: &WeightHash) -> Result<Option<Delta>, WeightError>;

    /// Whether there is a delta of that hash.
    ///
    /// # Errors
    /// As the storage.
    fn delta_exists(&self, delta_hash: &WeightHash) -> Result<bool, WeightError>;

    /// Deletes a delta; `false` if there is none.
    ///
    /// # Errors
    /// As the storage.
    fn delete_delta(&self, delta_hash: &WeightHash) -> Result<bool, WeightError>;

    /// The hashes of all deltas, sorted.
    ///
    /// # Errors
    /// As the storage.
    fn list_deltas(&self) -> Result<Vec<WeightHash>, WeightError>;

    /// How much the deltas take.
    ///
    /// # Errors
    /// As the storage.
    fn get_delta_storage_info(&self) -> Result<DeltaStorageInfo, WeightError>;

    /// Ends the use of the store once running calls are done. Closing twice is not an error.
    ///
    /// # Errors
    /// As the storage; the store is closed all the same.
    fn close(&self) -> Result<(), WeightError>;
}
