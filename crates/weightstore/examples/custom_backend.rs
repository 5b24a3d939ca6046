//! A back-end of one's own: weights as byte strings in a map, checked by the conformance suite.
//!
//! `cargo run -p weightstore --example custom_backend --features testing`

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use weightstore::{
    Codec, Delta, DeltaStorageInfo, HashKey, StorageInfo, WeightError, WeightHash, WeightMetadata,
    WeightStore, WeightTensor, testing,
};

/// What stands for a database, a bucket or a file format of your own.
#[derive(Default)]
struct MapStore {
    tables: Mutex<Option<Tables>>,
}

#[derive(Default)]
struct Tables {
    weights: BTreeMap<WeightHash, WeightTensor>,
    deltas: BTreeMap<WeightHash, Delta>,
}

impl MapStore {
    fn new() -> Self {
        Self {
            tables: Mutex::new(Some(Tables::default())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Tables>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on the tables, unless the store is closed.
    fn with<T>(
        &self,
        work: impl FnOnce(&mut Tables) -> Result<T, WeightError>,
    ) -> Result<T, WeightError> {
        work(self.lock().as_mut().ok_or(WeightError::Closed)?)
    }
}

impl Tables {
    /// The one weight that a hash or an alias leads to.
    fn find(&self, key: &HashKey) -> Result<Option<(WeightHash, &WeightTensor)>, WeightError> {
        let matches = |(hash, weight): &(&WeightHash, &WeightTensor)| match key {
            HashKey::Sha256(wanted) => *hash == wanted,
            HashKey::Coral(alias) => weight.compute_alias() == *alias,
        };
        let found: Vec<_> = self.weights.iter().filter(matches).collect();
        match found.as_slice() {
            [] => Ok(None),
            [(hash, weight)] => Ok(Some((**hash, weight))),
            several => Err(WeightError::AmbiguousAlias {
                alias: *key,
                candidates: several.len(),
            }),
        }
    }
}

impl WeightStore for MapStore {
    fn store(
        &self,
        weight: &WeightTensor,
        hash_key: Option<&HashKey>,
    ) -> Result<WeightHash, WeightError> {
        let computed = weight.compute_hash();
        let own = [HashKey::from(computed), weight.compute_alias().into()];
        if let Some(expected) = hash_key.filter(|key| !own.contains(key)) {
            return Err(WeightError::HashMismatch {
                name: weight.name().into(),
                expected: *expected,
                computed,
            });
        }
        self.with(|tables| {
            let first = || weight.clone();
            tables.weights.entry(computed).or_insert_with(first);
            Ok(computed)
        })
    }

    fn load(&self, hash_key: &HashKey) -> Result<Option<WeightTensor>, WeightError> {
        self.with(|tables| Ok(tables.find(hash_key)?.map(|(_, weight)| weight.clone())))
    }

    fn exists(&self, hash_key: &HashKey) -> Result<bool, WeightError> {
        self.with(|tables| Ok(tables.find(hash_key)?.is_some()))
    }

    fn delete(&self, hash_key: &HashKey) -> Result<bool, WeightError> {
        self.with(|tables| {
            let Some((hash, weight)) = tables.find(hash_key)? else {
                return Ok(false);
            };
            let names = [HashKey::from(hash), weight.compute_alias().into()];
            let mut deltas = tables.deltas.iter();
            if let Some((id, _)) = deltas.find(|(_, delta)| names.contains(&delta.reference_hash()))
            {
                return Err(WeightError::InUse {
                    hash,
                    user: format!("delta {id}"),
                });
            }
            Ok(tables.weights.remove(&hash).is_some())
        })
    }

    fn list_weights(&self) -> Result<Vec<WeightHash>, WeightError> {
        self.with(|tables| Ok(tables.weights.keys().copied().collect()))
    }

    fn get_metadata(&self, hash_key: &HashKey) -> Result<Option<WeightMetadata>, WeightError> {
        self.with(|tables| Ok(tables.find(hash_key)?.map(|(_, weight)| weight.metadata())))
    }

    fn get_storage_info(&self) -> Result<StorageInfo, WeightError> {
        self.with(|tables| {
            let lens = tables
                .weights
                .values()
                .map(|weight| weight.bytes().len() as u64);
            let bytes = lens.sum();
            let count = tables.weights.len() as u64;
            Ok(StorageInfo::new(count, bytes, bytes, Codec::None))
        })
    }

    fn store_delta(
        &self,
        delta: &Delta,
        delta_hash: Option<&WeightHash>,
    ) -> Result<WeightHash, WeightError> {
        let computed = delta.compute_hash();
        if let Some(expected) = delta_hash.filter(|hash| **hash != computed) {
            return Err(WeightError::HashMismatch {
                name: delta.kind().name().into(),
                expected: expected.into(),
                computed,
            });
        }
        self.with(|tables| {
            tables.deltas.insert(computed, delta.clone());
            Ok(computed)
        })
    }

    fn load_delta(&self, delta_hash: &WeightHash) -> Result<Option<Delta>, WeightError> {
        self.with(|tables| Ok(tables.deltas.get(delta_hash).cloned()))
    }

    fn delta_exists(&self, delta_hash: &WeightHash) -> Result<bool, WeightError> {
        self.with(|tables| Ok(tables.deltas.contains_key(delta_hash)))
    }

    fn delete_delta(&self, delta_hash: &WeightHash) -> Result<bool, WeightError> {
        self.with(|tables| Ok(tables.deltas.remove(delta_hash).is_some()))
    }

    fn list_deltas(&self) -> Result<Vec<WeightHash>, WeightError> {
        self.with(|tables| Ok(tables.deltas.keys().copied().collect()))
    }

    fn get_delta_storage_info(&self) -> Result<DeltaStorageInfo, WeightError> {
        self.with(|tables| {
            let lens = tables
                .deltas
                .values()
                .map(|delta| delta.payload().len() as u64);
            let bytes = lens.sum();
            Ok(DeltaStorageInfo::new(
                tables.deltas.len() as u64,
                bytes,
                bytes,
            ))
        })
    }

    fn close(&self) -> Result<(), WeightError> {
        *self.lock() = None;
        Ok(())
    }
}

fn main() -> Result<(), testing::Nonconformance> {
    testing::check_weight_store(&mut || Ok(Box::new(MapStore::new())))?;
    for check in testing::checks() {
        println!("passed: {check}");
    }
    Ok(())
}
