//! A store in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::metadata::Label;
use crate::{
    Codec, CoralAlias, Delta, DeltaStorageInfo, HashKey, StorageInfo, WeightError, WeightHash,
    WeightMetadata, WeightStore, WeightTensor,
};

/// Keeps tensors and deltas in memory, each content once; for tests and for staging.
///
/// ```
/// use core_view::DType;
/// use weightstore::{MemoryStore, WeightStore, WeightTensor};
///
/// let store = MemoryStore::new();
/// let hash = store.store(
///     &WeightTensor::new("w", DType::U8, &[3], vec![1_u8, 2, 3])?,
///     None,
/// )?;
/// assert_eq!(store.list_weights()?, [hash]);
/// # Ok::<(), weightstore::WeightError>(())
/// ```
#[derive(Debug)]
pub struct MemoryStore {
    /// `None` once closed.
    content: RwLock<Option<Content>>,
}

#[derive(Debug, Default)]
struct Content {
    weights: BTreeMap<WeightHash, Entry>,
    aliases: BTreeMap<CoralAlias, BTreeSet<WeightHash>>,
    deltas: BTreeMap<WeightHash, Delta>,
}

#[derive(Debug)]
struct Entry {
    weight: WeightTensor,
    alias: CoralAlias,
    /// Oldest first, never empty.
    uses: Vec<Label>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self {
            content: RwLock::new(Some(Content::default())),
        }
    }

    fn read(&self) -> Result<Reading<'_>, WeightError> {
        let guard = self.content.read().map_err(|_| poisoned())?;
        if guard.is_none() {
            return Err(WeightError::Closed);
        }
        Ok(Reading(guard))
    }

    fn write(&self) -> Result<RwLockWriteGuard<'_, Option<Content>>, WeightError> {
        self.content.write().map_err(|_| poisoned())
    }
}

fn poisoned() -> WeightError {
    WeightError::storage("lock the store", "a thread panicked while it changed it")
}

/// A read lock on content that is not closed.
struct Reading<'a>(RwLockReadGuard<'a, Option<Content>>);

impl Reading<'_> {
    fn content(&self) -> Result<&Content, WeightError> {
        self.0.as_ref().ok_or(WeightError::Closed)
    }
}

impl Content {
    fn resolve(&self, key: &HashKey) -> Result<Option<WeightHash>, WeightError> {
        match key {
            HashKey::Sha256(hash) => Ok(self.weights.contains_key(hash).then_some(*hash)),
            HashKey::Coral(alias) => {
                let candidates = self.aliases.get(alias);
                match candidates.map_or(0, BTreeSet::len) {
                    0 | 1 => Ok(candidates.and_then(|hashes| hashes.first().copied())),
                    candidates => Err(WeightError::AmbiguousAlias {
                        alias: *key,
                        candidates,
                    }),
                }
            }
        }
    }

    fn entry(&self, key: &HashKey) -> Result<Option<(WeightHash, &Entry)>, WeightError> {
        let hash = self.resolve(key)?;
        Ok(hash.and_then(|hash| self.weights.get(&hash).map(|entry| (hash, entry))))
    }

    fn delta_on(&self, hash: WeightHash, alias: CoralAlias) -> Option<WeightHash> {
        let needs = |delta: &Delta| {
            let reference = delta.reference_hash();
            reference == hash.into() || reference == alias.into()
        };
        let found = self.deltas.iter().find(|(_, delta)| needs(delta));
        found.map(|(id, _)| *id)
    }
}

impl Entry {
    fn metadata(&self, hash: WeightHash) -> impl Iterator<Item = WeightMetadata> {
        self.uses.iter().map(move |label| {
            label
                .clone()
                .describe(self.weight.dtype(), self.weight.shape().to_vec(), hash)
        })
    }
}

/// Checks a hash that was supplied with content.
pub(crate) fn check_supplied(
    name: &str,
    supplied: Option<&HashKey>,
    hash: WeightHash,
    alias: CoralAlias,
) -> Result<(), WeightError> {
    match supplied {
        Some(key) if *key != hash.into() && *key != alias.into() => {
            Err(WeightError::HashMismatch {
                name: name.into(),
                expected: *key,
                computed: hash,
            })
        }
        _ => Ok(()),
    }
}

impl WeightStore for MemoryStore {
    fn store(
        &self,
        weight: &WeightTensor,
        hash_key: Option<&HashKey>,
    ) -> Result<WeightHash, WeightError> {
        let hash = weight.compute_hash();
        let alias = weight.compute_alias();
        check_supplied(weight.name(), hash_key, hash, alias)?;
        let mut guard = self.write()?;
        let content = guard.as_mut().ok_or(WeightError::Closed)?;
        let entry = content.weights.entry(hash).or_insert_with(|| Entry {
            weight: weight.clone(),
            alias,
            uses: Vec::new(),
        });
        if !entry.uses.contains(weight.label()) {
            entry.uses.push(weight.label().clone());
        }
        content.aliases.entry(alias).or_default().insert(hash);
        Ok(hash)
    }

    fn load(&self, hash_key: &HashKey) -> Result<Option<WeightTensor>, WeightError> {
        let found = {
            let reading = self.read()?;
            reading
                .content()?
                .entry(hash_key)?
                .map(|(hash, entry)| (hash, entry.weight.clone()))
        };
        match found {
            Some((hash, weight)) if weight.compute_hash() != hash => Err(WeightError::corrupt(
                "tensor",
                hash.to_string(),
                "the bytes in memory changed",
            )),
            found => Ok(found.map(|(_, weight)| weight)),
        }
    }

    fn exists(&self, hash_key: &HashKey) -> Result<bool, WeightError> {
        Ok(self.read()?.content()?.resolve(hash_key)?.is_some())
    }

    fn delete(&self, hash_key: &HashKey) -> Result<bool, WeightError> {
        let mut guard = self.write()?;
        let content = guard.as_mut().ok_or(WeightError::Closed)?;
        let Some((hash, entry)) = content.entry(hash_key)? else {
            return Ok(false);
        };
        let alias = entry.alias;
        if let Some(delta) = content.delta_on(hash, alias) {
            return Err(WeightError::InUse {
                hash,
                user: format!("delta {delta}"),
            });
        }
        content.weights.remove(&hash);
        if let Some(hashes) = content.aliases.get_mut(&alias) {
            hashes.remove(&hash);
            if hashes.is_empty() {
                content.aliases.remove(&alias);
            }
        }
        Ok(true)
    }

    fn list_weights(&self) -> Result<Vec<WeightHash>, WeightError> {
        Ok(self.read()?.content()?.weights.keys().copied().collect())
    }

    fn get_metadata(&self, hash_key: &HashKey) -> Result<Option<WeightMetadata>, WeightError> {
        let reading = self.read()?;
        let entry = reading.content()?.entry(hash_key)?;
        Ok(entry.and_then(|(hash, entry)| entry.metadata(hash).next()))
    }

    fn uses(&self, hash_key: &HashKey) -> Result<Vec<WeightMetadata>, WeightError> {
        let reading = self.read()?;
        let entry = reading.content()?.entry(hash_key)?;
        Ok(entry.map_or_else(Vec::new, |(hash, entry)| entry.metadata(hash).collect()))
    }

    fn get_storage_info(&self) -> Result<StorageInfo, WeightError> {
        let reading = self.read()?;
        let content = reading.content()?;
        let bytes = content
            .weights
            .values()
            .map(|entry| entry.weight.bytes().len() as u64)
            .sum();
        let total_weights = content.weights.len() as u64;
        Ok(StorageInfo::new(total_weights, bytes, bytes, Codec::None))
    }

    fn store_delta(
        &self,
        delta: &Delta,
        delta_hash: Option<&WeightHash>,
    ) -> Result<WeightHash, WeightError> {
        let hash = delta.checked_hash(delta_hash)?;
        let mut guard = self.write()?;
        let content = guard.as_mut().ok_or(WeightError::Closed)?;
        content.deltas.insert(hash, delta.clone());
        Ok(hash)
    }

    fn load_delta(&self, delta_hash: &WeightHash) -> Result<Option<Delta>, WeightError> {
        let delta = self.read()?.content()?.deltas.get(delta_hash).cloned();
        match delta {
            Some(delta) if delta.compute_hash() != *delta_hash => Err(WeightError::corrupt(
                "delta",
                delta_hash.to_string(),
                "the bytes in memory changed",
            )),
            delta => Ok(delta),
        }
    }

    fn delta_exists(&self, delta_hash: &WeightHash) -> Result<bool, WeightError> {
        Ok(self.read()?.content()?.deltas.contains_key(delta_hash))
    }

    fn delete_delta(&self, delta_hash: &WeightHash) -> Result<bool, WeightError> {
        let mut guard = self.write()?;
        let content = guard.as_mut().ok_or(WeightError::Closed)?;
        Ok(content.deltas.remove(delta_hash).is_some())
    }

    fn list_deltas(&self) -> Result<Vec<WeightHash>, WeightError> {
        Ok(self.read()?.content()?.deltas.keys().copied().collect())
    }

    fn get_delta_storage_info(&self) -> Result<DeltaStorageInfo, WeightError> {
        let reading = self.read()?;
        let deltas = &reading.content()?.deltas;
        let bytes = deltas
            .values()
            .map(|delta| delta.payload().len() as u64)
            .sum();
        Ok(DeltaStorageInfo::new(deltas.len() as u64, bytes, bytes))
    }

    fn close(&self) -> Result<(), WeightError> {
        *self.write()? = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use core_view::DType;

    use super::*;

    #[test]
    fn an_alias_of_several_tensors_is_refused() {
        let store = MemoryStore::new();
        let weight = WeightTensor::new("w", DType::U8, &[2], vec![1_u8, 2]).unwrap();
        let hash = store.store(&weight, None).unwrap();
        let alias = weight.compute_alias();
        let other = WeightHash::from_bytes([9; 32]);
        if let Some(content) = store.content.write().unwrap().as_mut() {
            content.aliases.get_mut(&alias).unwrap().insert(other);
        }
        for refused in [
            store.exists(&alias.into()).map(|_| ()),
            store.load(&alias.into()).map(|_| ()),
            store.delete(&alias.into()).map(|_| ()),
        ] {
            assert!(matches!(
                refused,
                Err(WeightError::AmbiguousAlias { candidates: 2, .. })
            ));
        }
        assert!(store.exists(&hash.into()).unwrap());
    }
}
