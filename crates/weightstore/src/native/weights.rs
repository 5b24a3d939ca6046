//! The contract of weight stores on the native store.

use std::collections::{BTreeMap, BTreeSet};

use core_view::DType;

use super::NativeStore;
use super::base::{link_to, sketch_of};
use super::body_writer::write_body;
use super::changes::{Changes, NewObject};
use super::core::Core;
use super::session::Session;
use super::tensor::Source;
use crate::identity::{leaf_digests, tensor_root};
use crate::memory::check_supplied;
use crate::metadata::Label;
use crate::record::{DeltaRecord, Key, LabelRecord, ObjectRecord, Place};
use crate::{
    ChunkEncoding, Delta, DeltaStorageInfo, HashKey, StorageInfo, WeightError, WeightHash,
    WeightMetadata, WeightStore, WeightTensor,
};

impl Core {
    /// Stores tensors with their uses, in as few commits as their size allows.
    fn store_all<'a>(
        &self,
        session: &Session<'_>,
        weights: impl Iterator<Item = (&'a WeightTensor, Option<&'a HashKey>)>,
    ) -> Result<Vec<WeightHash>, WeightError> {
        let mut changes = Changes::default();
        let mut under_way = BTreeSet::new();
        let mut hashes = Vec::new();
        for (weight, supplied) in weights {
            let leaves = leaf_digests(weight.bytes());
            let len_bytes = weight.bytes().len() as u64;
            let hash = tensor_root(weight.dtype(), weight.shape(), len_bytes, &leaves);
            let alias = weight.compute_alias();
            check_supplied(weight.name(), supplied, hash, alias)?;
            hashes.push(hash);
            if !under_way.contains(&hash) && !session.keep(&hash) {
                let sketch = sketch_of(weight.dtype(), weight.shape(), weight.bytes());
                let base = match &sketch {
                    Some(sketch) if self.finds_bases() => {
                        self.nearest(session, sketch, usize::MAX)?
                    }
                    _ => None,
                };
                let content = (weight.dtype(), weight.bytes(), base.as_ref());
                let body = write_body(self, session, &mut changes, content, &leaves)?;
                let base = base.filter(|_| body.has(ChunkEncoding::Difference));
                let record = ObjectRecord {
                    dtype: weight.dtype(),
                    shape: weight.shape().to_vec(),
                    alias,
                    base: base.as_deref().map(link_to),
                    body,
                };
                changes.add_object(NewObject {
                    hash,
                    hint: super::import::hint_of(&record),
                    record,
                    sketch,
                });
                under_way.insert(hash);
            }
            changes.add_label(hash, weight.label().clone());
            if changes.is_full(0, self.batch_bytes()) {
                session.commit(std::mem::take(&mut changes))?;
                under_way.clear();
            }
        }
        session.commit(changes)?;
        Ok(hashes)
    }

    /// Runs `work` in a session, which is abandoned if it fails.
    pub(super) fn in_session<T>(
        &self,
        work: impl FnOnce(&Session<'_>) -> Result<T, WeightError>,
    ) -> Result<T, WeightError> {
        let session = Session::new(self);
        let outcome = work(&session);
        match &outcome {
            Ok(_) => session.finish(),
            Err(_) => session.abandon(),
        }
        outcome
    }

    pub(super) fn load(&self, hash: &WeightHash) -> Result<Option<WeightTensor>, WeightError> {
        let Some(tensor) = self.tensor(hash)? else {
            return Ok(None);
        };
        let data = match self.content(tensor.source()) {
            Ok(data) => data,
            // It was deleted, or stored anew, while it was read.
            Err(WeightError::Corrupt { .. }) if self.moved(hash, &tensor.record)? => {
                return self.load(hash);
            }
            Err(error) => return Err(error),
        };
        let record = tensor.record;
        let label = match self.first_label(hash)? {
            Some(label) => label,
            None => self
                .model_labels(hash, 1)?
                .into_iter()
                .next()
                .unwrap_or_default(),
        };
        let weight = WeightTensor::new("", record.dtype, &record.shape, data)?;
        Ok(Some(weight.labelled(label)))
    }

    fn first_label(&self, hash: &WeightHash) -> Result<Option<Label>, WeightError> {
        let first = match self.catalog().object(hash) {
            Some(entry) => entry.uses.first().copied(),
            None => None,
        };
        first.map_or(Ok(None), |first| self.label(hash, first))
    }

    /// One use; `None` if it was deleted meanwhile.
    pub(super) fn label(
        &self,
        hash: &WeightHash,
        (number, digest): (u64, [u8; 16]),
    ) -> Result<Option<Label>, WeightError> {
        let key = Key::Label {
            hash: *hash,
            number,
            digest,
        };
        let Some(record) = self.read(&key)? else {
            // While a deletion is committed, records go before the catalog knows of it.
            let _ledger = self.ledger();
            let catalog = self.catalog();
            let uses = catalog.object(hash).map_or(&[][..], |entry| &entry.uses);
            if !uses.contains(&(number, digest)) || self.blobs.contains(key.encode()) {
                return Ok(None);
            }
            return Err(WeightError::corrupt(
                "use of tensor",
                hash.to_string(),
                "its record is missing",
            ));
        };
        LabelRecord::parse(&record, &digest)
            .map(Some)
            .map_err(|error| error.about("use of tensor", hash.to_string()))
    }

    fn labels(&self, hash: &WeightHash) -> Result<Vec<Label>, WeightError> {
        let uses = match self.catalog().object(hash) {
            Some(entry) => entry.uses.clone(),
            None => return Ok(Vec::new()),
        };
        let mut labels = Vec::new();
        for entry in uses {
            labels.extend(self.label(hash, entry)?);
        }
        labels.extend(self.model_labels(hash, usize::MAX)?);
        Ok(labels)
    }

    fn describe(
        &self,
        hash: &WeightHash,
        labels: impl IntoIterator<Item = Label>,
    ) -> Result<Vec<WeightMetadata>, WeightError> {
        let Some(record) = self.object(hash)? else {
            return Ok(Vec::new());
        };
        Ok(labels
            .into_iter()
            .map(|label| label.describe(record.dtype, record.shape.clone(), *hash))
            .collect())
    }

    fn resolve(&self, key: &HashKey) -> Result<Option<WeightHash>, WeightError> {
        self.catalog().resolve(key)
    }

    fn delete_weight(&self, hash: &WeightHash) -> Result<bool, WeightError> {
        if self.config.rebase() {
            self.rebase_from(std::slice::from_ref(hash))?;
        }
        let mut ledger = self.ledger();
        self.read_references()?;
        {
            let mut catalog = self.catalog();
            if catalog.object(hash).is_none() {
                return Ok(false);
            }
            catalog
                .doom_with_uses(hash)
                .map_err(|user| WeightError::InUse { hash: *hash, user })?;
        }
        let base = self.catalog().object(hash).and_then(|entry| entry.base);
        let outcome = self.delete_doomed(&mut ledger, std::iter::once(*hash));
        if outcome.is_err() {
            // Before others may commit: what they find doomed they store anew.
            self.catalog().spare(hash);
        }
        drop(ledger);
        outcome?;
        self.let_go(&base.into_iter().collect());
        Ok(true)
    }

    /// Whether a delta was deleted, once commits under way are done.
    pub(super) fn delta_is_gone(&self, id: &WeightHash) -> bool {
        let _ledger = self.ledger();
        !self.catalog().deltas().contains(id)
    }

    fn delete_delta(&self, id: &WeightHash) -> Result<bool, WeightError> {
        let mut ledger = self.ledger();
        if !self.catalog().deltas().contains(id) {
            return Ok(false);
        }
        let mut changes = Changes::default();
        changes.deletes.insert(Key::Delta(*id).encode());
        match self.delta_record(id) {
            Ok(Some(record)) => {
                if let Place::Chunks(body) = record.body.place {
                    changes.drop_body(body, record.body.chunks.len() as u32);
                }
            }
            // Which chunks a damaged header names is lost; they stay behind, unreachable.
            Ok(None) | Err(WeightError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
        self.commit_locked(&mut ledger, changes)?;
        Ok(true)
    }
}

impl WeightStore for NativeStore {
    fn store(
        &self,
        weight: &WeightTensor,
        hash_key: Option<&HashKey>,
    ) -> Result<WeightHash, WeightError> {
        let core = self.enter()?;
        let hashes = core
            .in_session(|session| core.store_all(session, std::iter::once((weight, hash_key))))?;
        hashes.into_iter().next().ok_or(WeightError::Closed)
    }

    fn load(&self, hash_key: &HashKey) -> Result<Option<WeightTensor>, WeightError> {
        let core = self.enter()?;
        match core.resolve(hash_key)? {
            Some(hash) => core.load(&hash),
            None => Ok(None),
        }
    }

    fn exists(&self, hash_key: &HashKey) -> Result<bool, WeightError> {
        Ok(self.enter()?.resolve(hash_key)?.is_some())
    }

    fn delete(&self, hash_key: &HashKey) -> Result<bool, WeightError> {
        let core = self.enter()?;
        match core.resolve(hash_key)? {
            Some(hash) => core.delete_weight(&hash),
            None => Ok(false),
        }
    }

    fn list_weights(&self) -> Result<Vec<WeightHash>, WeightError> {
        Ok(self.enter()?.catalog().hashes().copied().collect())
    }

    fn get_metadata(&self, hash_key: &HashKey) -> Result<Option<WeightMetadata>, WeightError> {
        let core = self.enter()?;
        let Some(hash) = core.resolve(hash_key)? else {
            return Ok(None);
        };
        let label = match core.first_label(&hash)? {
            Some(label) => label,
            None => core
                .model_labels(&hash, 1)?
                .into_iter()
                .next()
                .unwrap_or_default(),
        };
        Ok(core.describe(&hash, [label])?.into_iter().next())
    }

    fn uses(&self, hash_key: &HashKey) -> Result<Vec<WeightMetadata>, WeightError> {
        let core = self.enter()?;
        match core.resolve(hash_key)? {
            Some(hash) => core.describe(&hash, core.labels(&hash)?),
            None => Ok(Vec::new()),
        }
    }

    fn store_batch(
        &self,
        weights: &BTreeMap<String, WeightTensor>,
    ) -> Result<BTreeMap<String, WeightHash>, WeightError> {
        let core = self.enter()?;
        let hashes = core.in_session(|session| {
            core.store_all(session, weights.values().map(|weight| (weight, None)))
        })?;
        Ok(weights.keys().cloned().zip(hashes).collect())
    }

    fn load_batch(
        &self,
        hash_keys: &[HashKey],
    ) -> Result<BTreeMap<HashKey, WeightTensor>, WeightError> {
        let core = self.enter()?;
        let mut loaded = BTreeMap::new();
        for key in hash_keys {
            let Some(hash) = core.resolve(key)? else {
                continue;
            };
            if let Some(weight) = core.load(&hash)? {
                loaded.insert(*key, weight);
            }
        }
        Ok(loaded)
    }

    fn get_storage_info(&self) -> Result<StorageInfo, WeightError> {
        let core = self.enter()?;
        let sizes = core.tensor_sizes()?;
        Ok(StorageInfo::new(
            sizes.count,
            sizes.logical_bytes,
            sizes.stored_bytes,
            core.config.codec(),
        ))
    }

    fn store_delta(
        &self,
        delta: &Delta,
        delta_hash: Option<&WeightHash>,
    ) -> Result<WeightHash, WeightError> {
        let core = self.enter()?;
        let id = delta.checked_hash(delta_hash)?;
        if core.catalog().deltas().contains(&id) {
            return Ok(id);
        }
        core.in_session(|session| {
            let leaves = leaf_digests(delta.payload());
            let mut changes = Changes::default();
            let content = (DType::U8, delta.payload(), None);
            let body = write_body(&core, session, &mut changes, content, &leaves)?;
            changes.add_delta(id, DeltaRecord::new(delta, body));
            session.commit(changes)
        })?;
        Ok(id)
    }

    fn load_delta(&self, delta_hash: &WeightHash) -> Result<Option<Delta>, WeightError> {
        let core = self.enter()?;
        let Some(record) = core.delta_record(delta_hash)? else {
            return Ok(None);
        };
        let payload = match core.content(Source::delta(delta_hash, &record.body)) {
            Err(WeightError::Corrupt { .. }) if core.delta_is_gone(delta_hash) => return Ok(None),
            payload => payload?,
        };
        Ok(Some(record.with_payload(payload)))
    }

    fn delta_exists(&self, delta_hash: &WeightHash) -> Result<bool, WeightError> {
        Ok(self.enter()?.catalog().deltas().contains(delta_hash))
    }

    fn delete_delta(&self, delta_hash: &WeightHash) -> Result<bool, WeightError> {
        self.enter()?.delete_delta(delta_hash)
    }

    fn list_deltas(&self) -> Result<Vec<WeightHash>, WeightError> {
        Ok(self.enter()?.catalog().deltas().iter().copied().collect())
    }

    fn get_delta_storage_info(&self) -> Result<DeltaStorageInfo, WeightError> {
        let core = self.enter()?;
        let sizes = core.delta_sizes()?;
        Ok(DeltaStorageInfo::new(
            sizes.count,
            sizes.logical_bytes,
            sizes.stored_bytes,
        ))
    }

    fn close(&self) -> Result<(), WeightError> {
        self.shut()
    }
}
