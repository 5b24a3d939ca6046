//! How much the store holds.

use super::NativeStore;
use super::core::Core;
use crate::metadata::ratio;
use crate::record::{Key, Place};
use crate::{WeightError, WeightHash, parallel};

/// What a store holds and what it takes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Number of models.
    pub models: u64,
    /// Number of distinct tensors.
    pub tensors: u64,
    /// Number of deltas.
    pub deltas: u64,
    /// Bytes that everything would take as it was given: the files of all models, and each single
    /// weight once for each of its uses.
    pub logical_bytes: u64,
    /// Bytes of all records in the store.
    pub stored_bytes: u64,
    /// `stored_bytes / logical_bytes`; 1 for an empty store.
    pub ratio: f64,
}

/// The sizes of one kind of content.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sizes {
    pub(super) count: u64,
    pub(super) logical_bytes: u64,
    pub(super) stored_bytes: u64,
}

impl NativeStore {
    /// How much the store holds; manifests are read for it, tensors are not.
    ///
    /// # Errors
    /// [`WeightError::Corrupt`] for a model that can't be read; [`WeightError::Storage`].
    pub fn stats(&self) -> Result<StoreStats, WeightError> {
        let core = self.enter()?;
        let (models, tensors, deltas, single) = {
            let catalog = core.catalog();
            let uses = |hash: &WeightHash| {
                let uses = catalog.object(hash).map_or(0, |entry| entry.uses.len());
                (*hash, uses as u64)
            };
            let single: Vec<_> = catalog
                .hashes()
                .map(uses)
                .filter(|(_, uses)| *uses > 0)
                .collect();
            (
                catalog.models().clone(),
                catalog.hashes().len() as u64,
                catalog.deltas().len() as u64,
                single,
            )
        };
        let mut logical_bytes = 0;
        for name in &models {
            let manifest = match core.manifest(name) {
                Err(WeightError::ModelNotFound { .. }) => continue,
                manifest => manifest?,
            };
            logical_bytes += manifest
                .files
                .iter()
                .map(|file| file.len_bytes)
                .sum::<u64>();
        }
        let lens = parallel::map(core.fetch_threads(), single, |(hash, uses)| {
            let record = core.object(&hash)?;
            Ok(record.map_or(0, |record| uses * record.body.len_bytes))
        });
        for len in lens {
            logical_bytes += len?;
        }
        let stored_bytes = core.blobs.stats().live_bytes;
        Ok(StoreStats {
            models: models.len() as u64,
            tensors,
            deltas,
            logical_bytes,
            stored_bytes,
            ratio: ratio(stored_bytes, logical_bytes),
        })
    }

    /// Bytes that a tensor takes in the store, its header included; `None` if it is absent.
    ///
    /// # Errors
    /// [`WeightError::Corrupt`] if its header can't be read; [`WeightError::Storage`].
    pub fn stored_bytes_of(&self, hash: &WeightHash) -> Result<Option<u64>, WeightError> {
        let core = self.enter()?;
        let record = core.object(hash)?;
        Ok(record.map(|record| {
            let header_bytes = core.record_bytes(&Key::Object(*hash, record.alias));
            sizes_of(&record.body, header_bytes).stored_bytes
        }))
    }
}

impl Core {
    /// The sizes of all tensors.
    pub(super) fn tensor_sizes(&self) -> Result<Sizes, WeightError> {
        let hashes: Vec<WeightHash> = self.catalog().hashes().copied().collect();
        let sizes = parallel::map(self.fetch_threads(), hashes, |hash| {
            let Some(record) = self.object(&hash)? else {
                return Ok(Sizes::default());
            };
            let header_bytes = self.record_bytes(&Key::Object(hash, record.alias));
            Ok(sizes_of(&record.body, header_bytes))
        });
        sum(sizes)
    }

    /// The sizes of all deltas.
    pub(super) fn delta_sizes(&self) -> Result<Sizes, WeightError> {
        let ids: Vec<WeightHash> = self.catalog().deltas().iter().copied().collect();
        let sizes = parallel::map(self.fetch_threads(), ids, |id| {
            let Some(record) = self.delta_record(&id)? else {
                return Ok(Sizes::default());
            };
            Ok(sizes_of(&record.body, self.record_bytes(&Key::Delta(id))))
        });
        sum(sizes)
    }

    fn record_bytes(&self, key: &Key) -> u64 {
        self.blobs.len_of(key.encode()).unwrap_or(0)
    }
}

fn sizes_of(body: &crate::record::Body, header_bytes: u64) -> Sizes {
    let chunk_bytes = match body.place {
        Place::Inline(_) => 0,
        Place::Chunks(_) => body.encoded_bytes(),
    };
    Sizes {
        count: 1,
        logical_bytes: body.len_bytes,
        stored_bytes: header_bytes + chunk_bytes,
    }
}

fn sum(sizes: Vec<Result<Sizes, WeightError>>) -> Result<Sizes, WeightError> {
    let mut total = Sizes::default();
    for sizes in sizes {
        let sizes = sizes?;
        total.count += sizes.count;
        total.logical_bytes += sizes.logical_bytes;
        total.stored_bytes += sizes.stored_bytes;
    }
    Ok(total)
}
