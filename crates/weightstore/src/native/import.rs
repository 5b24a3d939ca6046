//! Import of models.

mod alias_chain;
mod answers;
mod bases;
mod committer;
mod group;
mod input;
mod jobs;
mod options;
mod pipeline;
mod tensors;
mod workers;

use sha2::{Digest, Sha256};

use super::NativeStore;
use super::changes::{Changes, NewModel};
use super::core::Core;
use super::session::Session;
use crate::identity::hint;
use crate::record::{FileEntry, Manifest, ObjectRecord};
use crate::{Codec, WeightError};
use bases::Bases;
use group::HINT_CHUNKS;
pub(super) use input::check_name;
use input::{Input, open_files};
use pipeline::{FileTensors, Pipeline, Settings};

pub use options::{ImportOptions, ImportReport, OnProgress, Progress, SourceFile};

impl NativeStore {
    /// Imports one safetensors file as a model.
    ///
    /// The model is there, whole and durable, when this returns, and not at all if it fails. Its tensors
    /// are stored once, however many models have them. Importing the same content under the same name again
    /// changes nothing, unless it is to replace the model and its files have other names. What is nearly the same as a stored tensor is stored as its difference from that.
    /// What is stored already is not read again: if it is damaged there, it stays so ([`verify`](NativeStore::verify) tells).
    /// Memory stays under 160 MiB, whatever the sizes of file and tensors, and some KiB for each tensor that is in
    /// the store.
    ///
    /// # Errors
    /// [`WeightError::Safetensors`] for a file that is none; [`WeightError::ModelExists`];
    /// [`WeightError::InvalidName`]; [`WeightError::Source`] and [`WeightError::SourceChanged`];
    /// [`WeightError::Storage`], for a full disk among others.
    pub fn add_model(
        &self,
        name: &str,
        file: SourceFile<'_>,
        options: &ImportOptions<'_>,
    ) -> Result<ImportReport, WeightError> {
        self.add_sharded_model(name, &[file], options)
    }

    /// Imports several safetensors files as one model; see [`NativeStore::add_model`].
    ///
    /// # Errors
    /// As [`NativeStore::add_model`]; [`WeightError::IndexMismatch`] if the index names a tensor or
    /// a file that is not among the files.
    pub fn add_sharded_model(
        &self,
        name: &str,
        files: &[SourceFile<'_>],
        options: &ImportOptions<'_>,
    ) -> Result<ImportReport, WeightError> {
        let core = self.enter()?;
        check_name("model name", name)?;
        options.codec.map_or(Ok(()), Codec::check)?;
        let inputs = open_files(name, files, options.index)?;
        core.refuse_early(name, &inputs, options)?;
        core.in_session(|session| core.import(session, name, &inputs, options))
    }
}

/// The key under which a large tensor is found by its beginning.
pub(super) fn hint_of(record: &ObjectRecord) -> Option<[u8; 16]> {
    let leaves = record.body.leaves();
    let first = leaves.get(..HINT_CHUNKS)?;
    let large = leaves.len() > HINT_CHUNKS;
    large.then(|| hint(record.dtype, &record.shape, record.body.len_bytes, first))
}

impl Core {
    /// Refuses a name that is taken before everything is hashed, where that shows already.
    fn refuse_early(
        &self,
        name: &str,
        inputs: &[Input<'_>],
        options: &ImportOptions<'_>,
    ) -> Result<(), WeightError> {
        if options.replace || !self.catalog().models().contains(name) {
            return Ok(());
        }
        let old = match self.manifest(name) {
            Err(WeightError::ModelNotFound { .. }) => return Ok(()),
            old => old?,
        };
        let same = old.files.len() == inputs.len()
            && old.files.iter().zip(inputs).all(|(old, input)| {
                old.len_bytes == input.len_bytes && old.header == input.header.raw()
            });
        if same {
            Ok(())
        } else {
            Err(WeightError::ModelExists { name: name.into() })
        }
    }

    fn import(
        &self,
        session: &Session<'_>,
        name: &str,
        inputs: &[Input<'_>],
        options: &ImportOptions<'_>,
    ) -> Result<ImportReport, WeightError> {
        let logical_bytes = inputs.iter().map(|input| input.len_bytes).sum();
        let codec = options.codec.unwrap_or(self.config.codec());
        let find = options.find_bases.unwrap_or(self.config.find_bases());
        let deep = self.config.chain_depth_max() > 0;
        let bases = Bases {
            named: match options.base {
                Some(model) => Some(self.bases_of_model(model)?).filter(|_| deep),
                None => None,
            },
            // As it is means as it is, unless a base is named.
            find: deep && find && codec != Codec::None,
        };
        let settings = Settings {
            core: self,
            session,
            codec,
            bases: &bases,
            total_bytes: logical_bytes,
            progress: options.progress,
        };
        let (files, mut totals) = std::thread::scope(|scope| {
            let mut pipeline = Pipeline::start(scope, settings)?;
            let files = inputs.iter().map(|input| {
                let file = import_file(&mut pipeline, input, options)?;
                input.check_unchanged()?;
                Ok(file)
            });
            match files.collect::<Result<Vec<FileEntry>, WeightError>>() {
                Ok(files) => Ok((files, pipeline.finish()?)),
                Err(error) => {
                    pipeline.abandon();
                    Err(error)
                }
            }
        })?;
        let manifest = Manifest {
            content_hash: Manifest::hash_files(&files),
            files,
            index: options.index.unwrap_or_default().to_owned(),
            metadata: options.metadata.clone(),
        };
        let content_hash = manifest.content_hash;
        let tensors = manifest.roots().count() as u64;
        let model = NewModel {
            name: name.to_owned(),
            manifest,
            replace: options.replace,
        };
        let last = self.commit_model(session, std::mem::take(&mut totals.rest), model)?;
        totals.new_tensors += last.new_tensors;
        totals.stored_bytes += last.stored_bytes;
        self.let_go(&last.replaced);
        Ok(ImportReport {
            model: name.to_owned(),
            content_hash,
            tensors,
            new_tensors: totals.new_tensors,
            deduplicated_tensors: tensors - totals.new_tensors.min(tensors),
            delta_tensors: totals.delta_tensors,
            logical_bytes,
            stored_bytes: totals.stored_bytes,
            was_there: last.model_was_there,
        })
    }

    /// The last commit: what is left, with the manifest where both fit a batch.
    fn commit_model(
        &self,
        session: &Session<'_>,
        mut rest: Changes,
        model: NewModel,
    ) -> Result<super::commit::Committed, WeightError> {
        let headers: usize = model
            .manifest
            .files
            .iter()
            .map(|file| file.header.len())
            .sum();
        let mut early = super::commit::Committed::default();
        if rest.is_full(
            headers + 32 * model.manifest.roots().count(),
            self.batch_bytes(),
        ) {
            early = session.commit(std::mem::take(&mut rest))?;
        }
        rest.model = Some(model);
        let mut last = session.commit(rest)?;
        last.new_tensors += early.new_tensors;
        last.stored_bytes += early.stored_bytes;
        Ok(last)
    }
}

fn import_file<'env>(
    pipeline: &mut Pipeline<'_, 'env>,
    input: &'env Input<'env>,
    options: &ImportOptions<'_>,
) -> Result<FileEntry, WeightError> {
    let mut sha256 = options.file_sha256.then(Sha256::new);
    if let Some(hasher) = &mut sha256 {
        hasher.update(input.header.raw());
    }
    let roots = pipeline.file(
        &FileTensors {
            file: input.file,
            tensors: input.header.tensors(),
            data_start: input.header.data_start(),
        },
        sha256.as_mut(),
    )?;
    Ok(FileEntry {
        name: input.file.name.to_owned(),
        len_bytes: input.len_bytes,
        sha256: sha256.map(|hasher| hasher.finalize().into()),
        roots,
        header: input.header.raw().to_vec(),
    })
}

#[cfg(test)]
mod tests;
