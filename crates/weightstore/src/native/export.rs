//! Export of models, and reading of their tensors.

use std::collections::BTreeSet;
use std::io::Write;

use core_view::safetensors::{Header, TensorInfo};
use sha2::{Digest, Sha256};

use super::NativeStore;
use super::core::Core;
use super::import::{OnProgress, Progress};
use super::session::Session;
use super::tensor::Tensor;
use crate::record::{FileEntry, Manifest};
use crate::{WeightError, WeightHash, WeightTensor, parallel};

/// Headers that are read at once.
const HEADERS_AT_ONCE: usize = 64;

/// Chunks that are read ahead of the one that is written.
const CHUNKS_AHEAD: usize = 24;

/// How a model is exported.
#[derive(Clone, Default)]
pub struct ExportOptions<'a> {
    file: Option<&'a str>,
    progress: Option<OnProgress<'a>>,
}

impl std::fmt::Debug for ExportOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExportOptions")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl<'a> ExportOptions<'a> {
    /// The file of a model of several; needed only then.
    #[must_use]
    pub fn with_file(mut self, file: &'a str) -> Self {
        self.file = Some(file);
        self
    }

    /// Whom to tell how far it has come.
    #[must_use]
    pub fn with_progress(mut self, progress: OnProgress<'a>) -> Self {
        self.progress = Some(progress);
        self
    }
}

/// What an export wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportReport {
    /// The model's name.
    pub model: String,
    /// The file's name.
    pub file: String,
    /// Tensors in it.
    pub tensors: u64,
    /// Bytes written.
    pub len_bytes: u64,
    /// SHA-256 of the whole file, compared with the bytes written, where the import kept it.
    pub sha256: Option<[u8; 32]>,
}

impl NativeStore {
    /// Writes a file of a model, byte for byte as it was imported.
    ///
    /// Every chunk is verified before it is written. On an error what was written is a correct beginning of the
    /// file and nothing more: write to a temporary file and rename it when this returns.
    ///
    /// # Errors
    /// [`WeightError::ModelNotFound`], [`WeightError::PartNotFound`]; [`WeightError::Corrupt`], which names the
    /// tensor and the model; [`WeightError::Target`].
    pub fn export_model(
        &self,
        name: &str,
        target: &mut dyn Write,
        options: &ExportOptions<'_>,
    ) -> Result<ExportReport, WeightError> {
        let core = self.enter()?;
        core.in_session(|session| {
            let manifest = core.kept_manifest(session, name)?;
            let file = file_of(name, &manifest, options.file)?;
            let header = header_of(name, file)?;
            Export {
                core: &core,
                model: name,
                file,
                header: &header,
                progress: options.progress,
            }
            .run(target)
        })
    }

    /// A tensor of a model, verified.
    ///
    /// # Errors
    /// [`WeightError::ModelNotFound`], [`WeightError::PartNotFound`], [`WeightError::Corrupt`],
    /// [`WeightError::OutOfMemory`].
    pub fn load_tensor(&self, model: &str, tensor: &str) -> Result<WeightTensor, WeightError> {
        let core = self.enter()?;
        core.in_session(|session| {
            let found = core.tensor_of(session, model, tensor)?;
            let data = core
                .content(found.source())
                .map_err(|error| error.within(&format!("{tensor:?} of model {model:?}")))?;
            let record = found.record;
            let weight = WeightTensor::new(tensor, record.dtype, &record.shape, data)?;
            Ok(weight.with_model_name(model))
        })
    }

    /// Fills `target` with a tensor's bytes from `offset_bytes` on; only the chunks that hold them are read, and each
    /// is verified.
    ///
    /// # Errors
    /// As [`NativeStore::load_tensor`]; [`WeightError::OutOfRange`].
    pub fn read_tensor_range(
        &self,
        model: &str,
        tensor: &str,
        offset_bytes: u64,
        target: &mut [u8],
    ) -> Result<(), WeightError> {
        let core = self.enter()?;
        core.in_session(|session| {
            let found = core.tensor_of(session, model, tensor)?;
            core.range(found.source(), offset_bytes, target)
                .map_err(|error| error.within(&format!("{tensor:?} of model {model:?}")))
        })
    }
}

impl Core {
    pub(super) fn tensor_of(
        &self,
        session: &Session<'_>,
        model: &str,
        tensor: &str,
    ) -> Result<Tensor, WeightError> {
        loop {
            let table = self.model_table(model)?;
            let Some((info, root)) = table.tensor(tensor) else {
                return Err(WeightError::PartNotFound {
                    model: model.into(),
                    what: "tensor",
                    name: tensor.into(),
                });
            };
            if session.keep(root) {
                return self.stored(model, info, root);
            }
            // The model may have been removed or replaced since, and the tensor with it; or removed and added
            // again: then it is back once the commits under way are done.
            drop(self.ledger());
            let newer = self.model_table(model)?;
            if newer.manifest == table.manifest && !session.keep(root) {
                return Err(missing_tensor(model, &table.manifest, root));
            }
        }
    }

    /// A model's tensor, which must be what the model says.
    pub(super) fn stored(
        &self,
        model: &str,
        info: &TensorInfo,
        root: &WeightHash,
    ) -> Result<Tensor, WeightError> {
        let context = || format!("{:?} of model {model:?}", info.name);
        let tensor = self
            .tensor(root)
            .map_err(|error| error.within(&context()))?
            .ok_or_else(|| {
                WeightError::corrupt("tensor", root.to_string(), "its record is missing")
                    .within(&context())
            })?;
        let record = &tensor.record;
        if record.dtype != info.dtype || record.shape != info.shape {
            let reason = format!(
                "it is {} {:?} where the model says {} {:?}",
                record.dtype, record.shape, info.dtype, info.shape
            );
            return Err(WeightError::corrupt("tensor", root.to_string(), reason).within(&context()));
        }
        Ok(tensor)
    }

    /// The manifest of a model whose tensors stay for the session.
    pub(super) fn kept_manifest(
        &self,
        session: &Session<'_>,
        model: &str,
    ) -> Result<Manifest, WeightError> {
        let mut manifest = self.manifest(model)?;
        loop {
            let roots: BTreeSet<&WeightHash> = manifest.roots().collect();
            let Some(absent) = roots.into_iter().find(|root| !session.keep(root)) else {
                return Ok(manifest);
            };
            // The model may have been removed or replaced since its manifest was read, and the tensor
            // with it.
            let newer = self.manifest(model)?;
            // Or removed and added again: then it is back once the commits under way are done.
            drop(self.ledger());
            if newer == manifest && !session.keep(absent) {
                return Err(missing_tensor(model, &manifest, absent));
            }
            manifest = newer;
        }
    }
}

/// A model's tensor that is not there.
fn missing_tensor(model: &str, manifest: &Manifest, absent: &WeightHash) -> WeightError {
    let damage = WeightError::corrupt("tensor", absent.to_string(), "its record is missing");
    for file in &manifest.files {
        let header = match header_of(model, file) {
            Ok(header) => header,
            Err(error) => return error,
        };
        let mut tensors = header.tensors().iter().zip(&file.roots);
        if let Some((info, _)) = tensors.find(|(_, root)| *root == absent) {
            return damage.within(&format!("{:?} of model {model:?}", info.name));
        }
    }
    damage.within(&format!("of model {model:?}"))
}

/// The file of that name, or the only one.
fn file_of<'m>(
    model: &str,
    manifest: &'m Manifest,
    name: Option<&str>,
) -> Result<&'m FileEntry, WeightError> {
    let found = match (name, manifest.files.as_slice()) {
        (None, [only]) => Some(only),
        (None, _) => None,
        (Some(name), files) => files.iter().find(|file| file.name == name),
    };
    found.ok_or_else(|| WeightError::PartNotFound {
        model: model.into(),
        what: "file",
        name: name.unwrap_or("(one of several has to be named)").into(),
    })
}

/// The parsed header of a file, which must go with the file's length and tensors.
pub(super) fn header_of(model: &str, file: &FileEntry) -> Result<Header, WeightError> {
    let damaged = |reason: String| WeightError::corrupt("model", format!("{model:?}"), reason);
    let header = Header::read(&mut file.header.as_slice(), file.len_bytes)
        .map_err(|error| damaged(format!("the header of {:?}: {error}", file.name)))?;
    if header.raw() != file.header || header.tensors().len() != file.roots.len() {
        return Err(damaged(format!(
            "the header of {:?} does not go with its {} tensors",
            file.name,
            file.roots.len()
        )));
    }
    Ok(header)
}

/// One export under way.
struct Export<'a> {
    core: &'a Core,
    model: &'a str,
    file: &'a FileEntry,
    header: &'a Header,
    progress: Option<OnProgress<'a>>,
}

/// A chunk to be fetched.
struct Fetch<'a> {
    info: &'a TensorInfo,
    tensor: std::sync::Arc<Tensor>,
    index: usize,
}

impl Export<'_> {
    fn run(&self, target: &mut dyn Write) -> Result<ExportReport, WeightError> {
        let mut hasher = self.file.sha256.is_some().then(Sha256::new);
        let mut written = 0_u64;
        let mut write = |bytes: &[u8]| {
            if let Some(hasher) = &mut hasher {
                hasher.update(bytes);
            }
            target
                .write_all(bytes)
                .map_err(|source| WeightError::Target {
                    name: self.model.into(),
                    source,
                })?;
            written += bytes.len() as u64;
            if let Some(progress) = self.progress {
                progress(Progress {
                    done_bytes: written,
                    total_bytes: self.file.len_bytes,
                });
            }
            Ok(())
        };
        write(self.header.raw())?;
        parallel::stream(
            self.core.fetch_threads(),
            CHUNKS_AHEAD,
            self.fetches(),
            |fetch| self.fetch(&fetch),
            |chunk| write(&chunk),
        )?;
        target.flush().map_err(|source| WeightError::Target {
            name: self.model.into(),
            source,
        })?;
        let sum = hasher.map(|hasher| hasher.finalize().into());
        if sum != self.file.sha256 || written != self.file.len_bytes {
            let reason = format!(
                "{written} bytes were written that are not the {} imported ones",
                self.file.len_bytes
            );
            return Err(WeightError::corrupt(
                "model",
                format!("{:?}", self.model),
                reason,
            ));
        }
        Ok(ExportReport {
            model: self.model.into(),
            file: self.file.name.clone(),
            tensors: self.file.roots.len() as u64,
            len_bytes: written,
            sha256: sum,
        })
    }

    /// The chunks of the file in order; the headers are read some at a time.
    fn fetches(&self) -> impl Iterator<Item = Result<Fetch<'_>, WeightError>> {
        let tensors: Vec<(&TensorInfo, &WeightHash)> =
            self.header.tensors().iter().zip(&self.file.roots).collect();
        let threads = self.core.fetch_threads();
        let groups = (0..tensors.len())
            .step_by(HEADERS_AT_ONCE)
            .map(move |start| {
                let end = tensors.len().min(start + HEADERS_AT_ONCE);
                tensors.get(start..end).unwrap_or_default().to_vec()
            });
        let headers = groups.flat_map(move |group| {
            parallel::map(threads, group, |(info, root)| {
                self.core
                    .stored(self.model, info, root)
                    .map(|tensor| (info, std::sync::Arc::new(tensor)))
            })
        });
        headers.flat_map(|header| {
            let (fetches, error) = match header {
                Ok((info, tensor)) => {
                    let count = tensor.record.body.chunks.len();
                    let fetches = (0..count).map(move |index| Fetch {
                        info,
                        tensor: std::sync::Arc::clone(&tensor),
                        index,
                    });
                    (Some(fetches), None)
                }
                Err(error) => (None, Some(Err(error))),
            };
            fetches.into_iter().flatten().map(Ok).chain(error)
        })
    }

    fn fetch(&self, fetch: &Fetch<'_>) -> Result<core_view::BufferMut, WeightError> {
        self.core
            .chunk(fetch.tensor.source(), fetch.index)
            .map_err(|error| {
                error.within(&format!("{:?} of model {:?}", fetch.info.name, self.model))
            })
    }
}
