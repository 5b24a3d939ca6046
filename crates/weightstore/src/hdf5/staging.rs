//! What a store knows of its file, with what is not in the file yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::file::{CoralFile, CoralWeight};
use super::storage::Extent;
use super::writer::CoralFileWriter;
use crate::{CoralAlias, Delta, HashKey, WeightError, WeightHash, WeightMetadata, WeightTensor};

/// The tensors and deltas of a file, and those that are still to be written to it.
#[derive(Debug, Default)]
pub(super) struct Staging {
    /// The file as it was written last; none where there is nothing yet.
    pub(super) base: Option<Arc<CoralFile>>,
    pub(super) weights: BTreeMap<WeightHash, Entry>,
    pub(super) aliases: BTreeMap<CoralAlias, BTreeSet<WeightHash>>,
    pub(super) deltas: BTreeMap<WeightHash, DeltaEntry>,
    /// Whether the file differs from this.
    pub(super) changed: bool,
}

/// A tensor, in the file or in memory.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) alias: CoralAlias,
    /// The names of its datasets, never none.
    keys: Vec<String>,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Filed(Box<CoralWeight>),
    Staged(WeightTensor),
}

/// A delta, in the file or in memory.
#[derive(Debug, Clone)]
pub(super) struct DeltaEntry {
    keys: Vec<String>,
    reference: HashKey,
    extent: Extent,
    /// `None` where it is in the file.
    staged: Option<Delta>,
}

impl Staging {
    /// Lists a file. Tensors that do not carry their SHA-256 root are read for it.
    pub(super) fn of(base: CoralFile) -> Result<Self, WeightError> {
        let mut staging = Self::default();
        for key in base.weights() {
            let about = base.describe(key)?;
            let (hash, alias) = match (about.hash, about.alias) {
                (Some(hash), Some(alias)) => (hash, alias),
                _ => {
                    let weight = base.weight(key)?;
                    (weight.compute_hash(), weight.compute_alias())
                }
            };
            staging.aliases.entry(alias).or_default().insert(hash);
            let entry = staging.weights.entry(hash).or_insert_with(|| Entry {
                alias,
                keys: Vec::new(),
                content: Content::Filed(Box::new(about)),
            });
            entry.keys.push(key.clone());
        }
        for key in base.deltas() {
            let delta = base.delta(key)?;
            let extent = base.delta_extent(key)?;
            let entry = staging
                .deltas
                .entry(delta.compute_hash())
                .or_insert_with(|| DeltaEntry {
                    keys: Vec::new(),
                    reference: delta.reference_hash(),
                    extent,
                    staged: None,
                });
            entry.keys.push(key.clone());
        }
        staging.base = Some(Arc::new(base));
        Ok(staging)
    }

    pub(super) fn resolve(&self, key: &HashKey) -> Result<Option<WeightHash>, WeightError> {
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

    /// Takes in a tensor that is not there.
    pub(super) fn stage(
        &mut self,
        hash: WeightHash,
        alias: CoralAlias,
        weight: &WeightTensor,
    ) -> Result<(), WeightError> {
        // The file names content by its alias, so it can't hold two of the same.
        if let Some(taken) = self.aliases.get(&alias)
            && !taken.is_empty()
        {
            return Err(WeightError::AmbiguousAlias {
                alias: alias.into(),
                candidates: taken.len() + 1,
            });
        }
        self.aliases.entry(alias).or_default().insert(hash);
        let entry = Entry {
            alias,
            keys: vec![alias.to_string()],
            content: Content::Staged(weight.clone()),
        };
        self.weights.insert(hash, entry);
        self.changed = true;
        Ok(())
    }

    pub(super) fn stage_delta(&mut self, hash: WeightHash, delta: &Delta) {
        let len_bytes = delta.payload().len() as u64;
        let entry = DeltaEntry {
            keys: vec![hash.to_string()],
            reference: delta.reference_hash(),
            extent: Extent {
                len_bytes,
                stored_bytes: len_bytes,
            },
            staged: Some(delta.clone()),
        };
        self.deltas.insert(hash, entry);
        self.changed = true;
    }

    pub(super) fn remove(&mut self, hash: WeightHash, alias: CoralAlias) {
        self.weights.remove(&hash);
        if let Some(hashes) = self.aliases.get_mut(&alias) {
            hashes.remove(&hash);
            if hashes.is_empty() {
                self.aliases.remove(&alias);
            }
        }
        self.changed = true;
    }

    /// A delta that needs the tensor.
    pub(super) fn delta_on(&self, hash: WeightHash, alias: CoralAlias) -> Option<WeightHash> {
        let needs =
            |entry: &DeltaEntry| entry.reference == hash.into() || entry.reference == alias.into();
        let found = self.deltas.iter().find(|(_, entry)| needs(entry));
        found.map(|(id, _)| *id)
    }

    /// Bytes of all content before compression.
    pub(super) fn content_bytes(&self) -> u64 {
        let deltas = self.deltas.values().map(|entry| entry.extent.len_bytes);
        self.weights.values().map(Entry::len_bytes).sum::<u64>() + deltas.sum::<u64>()
    }

    /// Gives a writer everything that the file is to hold.
    pub(super) fn write(&self, writer: &mut CoralFileWriter) -> Result<(), WeightError> {
        for entry in self.weights.values() {
            let weight = entry.load(self.base.as_deref())?;
            for key in &entry.keys {
                writer.add_as(key, &weight)?;
            }
        }
        for entry in self.deltas.values() {
            let delta = entry.load(self.base.as_deref())?;
            for key in &entry.keys {
                writer.add_delta_as(key, &delta)?;
            }
        }
        Ok(())
    }
}

fn vanished() -> WeightError {
    WeightError::storage("read the file", "it is not open any more")
}

impl Entry {
    /// The tensor; `base` is the file that it is listed from.
    pub(super) fn load(&self, base: Option<&CoralFile>) -> Result<WeightTensor, WeightError> {
        match &self.content {
            Content::Staged(weight) => Ok(weight.clone()),
            Content::Filed(about) => base.ok_or_else(vanished)?.weight(&about.key),
        }
    }

    pub(super) fn metadata(&self, hash: WeightHash) -> WeightMetadata {
        match &self.content {
            Content::Staged(weight) => {
                let label = weight.label().clone();
                label.describe(weight.dtype(), weight.shape().to_vec(), hash)
            }
            Content::Filed(about) => about
                .label()
                .describe(about.dtype, about.shape.clone(), hash),
        }
    }

    pub(super) fn len_bytes(&self) -> u64 {
        match &self.content {
            Content::Staged(weight) => weight.bytes().len() as u64,
            Content::Filed(about) => about.len_bytes,
        }
    }

    pub(super) fn stored_bytes(&self) -> u64 {
        match &self.content {
            Content::Staged(weight) => weight.bytes().len() as u64,
            Content::Filed(about) => about.stored_bytes,
        }
    }
}

impl DeltaEntry {
    pub(super) fn load(&self, base: Option<&CoralFile>) -> Result<Delta, WeightError> {
        match (&self.staged, self.keys.first()) {
            (Some(delta), _) => Ok(delta.clone()),
            (None, Some(key)) => base.ok_or_else(vanished)?.delta(key),
            (None, None) => Err(vanished()),
        }
    }

    pub(super) fn extent(&self) -> Extent {
        self.extent
    }
}
