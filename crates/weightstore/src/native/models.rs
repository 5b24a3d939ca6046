//! Listing, describing and removing models.

use std::collections::BTreeSet;

use core_view::DType;

use super::NativeStore;
use super::changes::Changes;
use super::core::Core;
use super::export::header_of;
use crate::metadata::Label;
use crate::record::Key;
use crate::{WeightError, WeightHash};

/// A model as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelInfo {
    /// Its name.
    pub name: String,
    /// The hash that binds every byte of its files.
    pub content_hash: WeightHash,
    /// Its files, in the order of the import.
    pub files: Vec<ModelFile>,
    /// The text of the index of a sharded model.
    pub index: Option<String>,
    /// Facts that were kept with it.
    pub metadata: Vec<(String, String)>,
}

/// A file of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelFile {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub len_bytes: u64,
    /// Its SHA-256, where the import kept it.
    pub sha256: Option<[u8; 32]>,
    /// The free-form metadata of its header.
    pub metadata: Vec<(String, String)>,
    /// Its tensors in the order of their data.
    pub tensors: Vec<ModelTensor>,
}

/// A tensor of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelTensor {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// The lengths of its dimensions.
    pub shape: Vec<u64>,
    /// Its length in bytes.
    pub len_bytes: u64,
    /// The hash of its content.
    pub hash: WeightHash,
}

/// What a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemovalReport {
    /// The model's name.
    pub model: String,
    /// Tensors that went with it.
    pub removed_tensors: u64,
    /// Tensors that stay because something else needs them.
    pub kept_tensors: u64,
    /// Records that can't be read and might need tensors, so that these had to stay.
    pub unreadable: Vec<String>,
    /// Why tensors that nothing needs any more are still there, if they are: a collection removes them. They are counted neither as
    /// removed nor as kept.
    pub unreclaimed: Option<String>,
}

impl NativeStore {
    /// The names of all models, sorted.
    ///
    /// # Errors
    /// [`WeightError::Closed`].
    pub fn models(&self) -> Result<Vec<String>, WeightError> {
        let core = self.enter()?;
        let catalog = core.catalog();
        Ok(catalog
            .models()
            .iter()
            .map(|name| name.to_string())
            .collect())
    }

    /// Describes a model.
    ///
    /// # Errors
    /// [`WeightError::ModelNotFound`], [`WeightError::Corrupt`].
    pub fn model(&self, name: &str) -> Result<ModelInfo, WeightError> {
        let core = self.enter()?;
        let manifest = core.manifest(name)?;
        let mut files = Vec::with_capacity(manifest.files.len());
        for file in &manifest.files {
            let header = header_of(name, file)?;
            let tensors = header.tensors().iter().zip(&file.roots);
            files.push(ModelFile {
                name: file.name.clone(),
                len_bytes: file.len_bytes,
                sha256: file.sha256,
                metadata: header.metadata().clone().into_iter().collect(),
                tensors: tensors
                    .map(|(info, root)| ModelTensor {
                        name: info.name.clone(),
                        dtype: info.dtype,
                        shape: info.shape.clone(),
                        len_bytes: info.len_bytes(),
                        hash: *root,
                    })
                    .collect(),
            });
        }
        Ok(ModelInfo {
            name: name.to_owned(),
            content_hash: manifest.content_hash,
            files,
            index: (!manifest.index.is_empty()).then_some(manifest.index),
            metadata: manifest.metadata,
        })
    }

    /// Removes a model, with the tensors that nothing else needs.
    ///
    /// A damaged model can be removed too; its tensors stay then.
    ///
    /// # Errors
    /// [`WeightError::ModelNotFound`]; [`WeightError::Storage`] if the name can't be removed.
    pub fn remove_model(&self, name: &str) -> Result<RemovalReport, WeightError> {
        self.enter()?.remove_model(name)
    }
}

impl Core {
    fn remove_model(&self, name: &str) -> Result<RemovalReport, WeightError> {
        let mut ledger = self.ledger();
        let roots: BTreeSet<WeightHash> = match self.manifest(name) {
            Ok(manifest) => manifest.roots().copied().collect(),
            Err(WeightError::Corrupt { .. }) => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        self.read_references()?;
        let mut changes = Changes::default();
        changes.deletes.insert(Key::Model(name.to_owned()).encode());
        self.commit_locked(&mut ledger, changes)?;
        drop(ledger);
        // The model is gone for good: that some of it can't be deleted now is no failure of this.
        let (mut removed_tensors, mut unreclaimed) = (0, None);
        match self.reclaim(&roots) {
            Ok(tensors) => removed_tensors = tensors,
            Err(error) => unreclaimed = Some(error.to_string()),
        }
        let catalog = self.catalog();
        let unreadable = catalog
            .references()
            .map(|references| &references.unreadable);
        Ok(RemovalReport {
            model: name.to_owned(),
            removed_tensors,
            kept_tensors: match unreclaimed {
                None => roots.len() as u64 - removed_tensors,
                Some(_) => 0,
            },
            unreadable: unreadable.into_iter().flatten().cloned().collect(),
            unreclaimed,
        })
    }

    /// Deletes those of the tensors that nothing needs any more; returns how many.
    fn reclaim(&self, hashes: &BTreeSet<WeightHash>) -> Result<u64, WeightError> {
        let released = self.release(hashes)?;
        let mut tensors = released.tensors;
        if self.config.rebase() {
            let (_, removed) = self.remove_bases(hashes.iter().copied().collect())?;
            tensors += removed.tensors;
        }
        Ok(tensors)
    }

    /// The names that models give a tensor, as many as are asked for at most.
    pub(super) fn model_labels(
        &self,
        hash: &WeightHash,
        most: usize,
    ) -> Result<Vec<Label>, WeightError> {
        if self.catalog().references().is_none() {
            let _ledger = self.ledger();
            self.read_references()?;
        }
        let models = match self.catalog().references() {
            Some(references) => references.models_of(hash).to_vec(),
            None => Vec::new(),
        };
        let mut labels = Vec::new();
        for model in models {
            if labels.len() >= most {
                break;
            }
            let table = match self.model_table(&model) {
                Err(WeightError::ModelNotFound { .. }) => continue,
                table => table?,
            };
            labels.extend(table.names_of(hash).map(|name| Label {
                name: name.to_owned(),
                model_name: Some(model.to_string()),
                ..Label::default()
            }));
        }
        labels.truncate(most);
        Ok(labels)
    }
}
