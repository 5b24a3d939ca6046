//! Import of models.

mod group;
mod pipeline;
mod tensors;
mod workers;

use core_view::safetensors::{Header, ShardIndex};
use sha2::{Digest, Sha256};

use super::NativeStore;
use super::changes::{Changes, NewModel};
use super::core::Core;
use super::session::Session;
use crate::identity::hint;
use crate::record::{FileEntry, Manifest, ObjectRecord};
use crate::{ByteSource, Codec, WeightError, WeightHash};
use group::HINT_CHUNKS;
use pipeline::{FileTensors, Pipeline, Settings};

/// One safetensors file to be imported.
#[derive(Clone, Copy)]
pub struct SourceFile<'a> {
    /// The file's plain name.
    pub name: &'a str,
    /// Its bytes.
    pub source: &'a dyn ByteSource,
}

impl std::fmt::Debug for SourceFile<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceFile")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// How far a long operation has come, in bytes before encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// Told how far a long operation has come, on the thread that called it.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Sync);

/// How a model is imported.
#[derive(Clone, Default)]
pub struct ImportOptions<'a> {
    codec: Option<Codec>,
    replace: bool,
    file_sha256: bool,
    index: Option<&'a str>,
    metadata: Vec<(String, String)>,
    progress: Option<OnProgress<'a>>,
}

impl std::fmt::Debug for ImportOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImportOptions")
            .field("codec", &self.codec)
            .field("replace", &self.replace)
            .field("file_sha256", &self.file_sha256)
            .finish_non_exhaustive()
    }
}

impl<'a> ImportOptions<'a> {
    /// Uses this codec instead of the store's.
    #[must_use]
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.codec = Some(codec);
        self
    }

    /// Whether a model of the same name with other content gives way.
    #[must_use]
    pub fn with_replace(mut self, replace: bool) -> Self {
        self.replace = replace;
        self
    }

    /// Whether to keep the SHA-256 of each whole file, and compare it at export.
    ///
    /// The content hash binds every byte without it; this hashes each byte a second time, on one thread.
    #[must_use]
    pub fn with_file_sha256(mut self, file_sha256: bool) -> Self {
        self.file_sha256 = file_sha256;
        self
    }

    /// The text of the index of a sharded model, kept verbatim.
    #[must_use]
    pub fn with_index(mut self, json: &'a str) -> Self {
        self.index = Some(json);
        self
    }

    /// A fact to be kept with the model.
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Whom to tell how far it has come.
    #[must_use]
    pub fn with_progress(mut self, progress: OnProgress<'a>) -> Self {
        self.progress = Some(progress);
        self
    }
}

/// What an import did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportReport {
    /// The model's name.
    pub model: String,
    /// The hash that binds every byte of its files.
    pub content_hash: WeightHash,
    /// Tensors of the model.
    pub tensors: u64,
    /// Tensors that the store did not have.
    pub new_tensors: u64,
    /// Tensors that it had, or that the model has more than once.
    pub deduplicated_tensors: u64,
    /// Bytes of the model's files.
    pub logical_bytes: u64,
    /// Bytes that the store grew by, headers and manifest included.
    pub stored_bytes: u64,
    /// Whether the model was there already, with the same content.
    pub was_there: bool,
}

impl NativeStore {
    /// Imports one safetensors file as a model.
    ///
    /// The model is there, whole and durable, when this returns, and not at all if it fails. Its tensors
    /// are stored once, however many models have them. Importing the same content under the same name again
    /// changes nothing. Memory stays under 160 MiB, whatever the sizes of file and tensors.
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
    /// As [`NativeStore::add_model`]; [`WeightError::PartNotFound`] if the index names a tensor or
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

/// A file whose header is read.
struct Input<'a> {
    file: SourceFile<'a>,
    header: Header,
    len_bytes: u64,
    version: u128,
}

impl Input<'_> {
    /// Compares length and version with those at the start.
    fn check_unchanged(&self) -> Result<(), WeightError> {
        let changed = |reason: String| WeightError::SourceChanged {
            file: self.file.name.into(),
            reason,
        };
        let len = self.file.source.len_bytes();
        let len = len.map_err(|source| source_error(self.file.name, 0, 0, source))?;
        if len != self.len_bytes {
            return Err(changed(format!(
                "it had {} bytes and has {len} now",
                self.len_bytes
            )));
        }
        let version = self.file.source.version();
        let version = version.map_err(|source| source_error(self.file.name, 0, 0, source))?;
        if version != self.version {
            return Err(changed("it was modified".into()));
        }
        Ok(())
    }
}

/// A failure to read a file.
fn source_error(
    file: &str,
    offset_bytes: u64,
    len_bytes: u64,
    source: std::io::Error,
) -> WeightError {
    if source.kind() == std::io::ErrorKind::UnexpectedEof {
        return WeightError::SourceChanged {
            file: file.into(),
            reason: format!("it ends before byte {}", offset_bytes + len_bytes),
        };
    }
    WeightError::Source {
        file: file.into(),
        offset_bytes,
        len_bytes,
        source,
    }
}

fn open_files<'a>(
    model: &str,
    files: &[SourceFile<'a>],
    index: Option<&str>,
) -> Result<Vec<Input<'a>>, WeightError> {
    let mut inputs: Vec<Input<'a>> = Vec::with_capacity(files.len());
    for &file in files {
        check_name("file name", file.name)?;
        if inputs.iter().any(|other| other.file.name == file.name) {
            return Err(WeightError::InvalidName {
                what: "file name",
                name: file.name.into(),
                reason: "another file of the model has it",
            });
        }
        inputs.push(open_file(file)?);
    }
    if inputs.is_empty() {
        return Err(WeightError::InvalidName {
            what: "model name",
            name: model.into(),
            reason: "it has no files",
        });
    }
    if let Some(index) = index {
        check_index(model, index, &inputs)?;
    }
    Ok(inputs)
}

fn open_file(file: SourceFile<'_>) -> Result<Input<'_>, WeightError> {
    let failed = |source| source_error(file.name, 0, 8, source);
    let version = file.source.version().map_err(failed)?;
    let len_bytes = file.source.len_bytes().map_err(failed)?;
    let mut reader = HeaderReader {
        source: file.source,
        at: 0,
        len_bytes,
    };
    let header =
        Header::read(&mut reader, len_bytes).map_err(|source| WeightError::Safetensors {
            file: file.name.into(),
            source,
        })?;
    Ok(Input {
        file,
        header,
        len_bytes,
        version,
    })
}

/// Reads a source from its start.
struct HeaderReader<'a> {
    source: &'a dyn ByteSource,
    at: u64,
    len_bytes: u64,
}

impl std::io::Read for HeaderReader<'_> {
    fn read(&mut self, target: &mut [u8]) -> std::io::Result<usize> {
        let left = self.len_bytes.saturating_sub(self.at);
        let len = target
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let (target, _) = target.split_at_mut(len);
        self.source.read_exact_at(self.at, target)?;
        self.at += len as u64;
        Ok(len)
    }
}

/// Whether the files hold what the index of a sharded model says.
fn check_index(model: &str, index: &str, inputs: &[Input<'_>]) -> Result<(), WeightError> {
    let index = ShardIndex::parse(index.as_bytes()).map_err(|source| WeightError::Safetensors {
        file: "the index".into(),
        source,
    })?;
    let not_found = |what, name: &str| WeightError::PartNotFound {
        model: model.into(),
        what,
        name: name.into(),
    };
    for (tensor, shard) in index.tensors() {
        let input = inputs.iter().find(|input| input.file.name == shard);
        let input = input.ok_or_else(|| not_found("file", shard))?;
        if input.header.get(tensor).is_none() {
            return Err(not_found("tensor", tensor));
        }
    }
    Ok(())
}

/// Longest name of a model or file in bytes.
const NAME_LEN_MAX: usize = 512;

pub(super) fn check_name(what: &'static str, name: &str) -> Result<(), WeightError> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_LEN_MAX {
        "it is longer than 512 bytes"
    } else if name.chars().any(char::is_control) {
        "it has control characters"
    } else if what == "file name" && (name.contains(['/', '\\']) || name == "." || name == "..") {
        "it is not a plain file name"
    } else {
        return Ok(());
    };
    Err(WeightError::InvalidName {
        what,
        name: name.chars().take(80).collect(),
        reason,
    })
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
        let settings = Settings {
            core: self,
            session,
            codec: options.codec.unwrap_or(self.config.codec()),
            total_bytes: logical_bytes,
            progress: options.progress,
        };
        let (files, mut totals) = std::thread::scope(|scope| {
            let mut pipeline = Pipeline::start(scope, settings);
            let mut files = Vec::with_capacity(inputs.len());
            for input in inputs {
                files.push(import_file(&mut pipeline, input, options)?);
                input.check_unchanged()?;
            }
            Ok((files, pipeline.finish()?))
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
        if !last.replaced.is_empty() {
            self.release(&last.replaced)?;
        }
        Ok(ImportReport {
            model: name.to_owned(),
            content_hash,
            tensors,
            new_tensors: totals.new_tensors,
            deduplicated_tensors: tensors - totals.new_tensors.min(tensors),
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
