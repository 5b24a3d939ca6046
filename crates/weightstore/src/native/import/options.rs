//! What an import is told, and what it tells.

use crate::{ByteSource, Codec, WeightHash};

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
    /// Bytes done: of an import those that are stored or found to be, not those that are read ahead.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// Told how far a long operation has come, on the thread that called it.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Sync);

/// How a model is imported.
#[derive(Clone, Default)]
pub struct ImportOptions<'a> {
    pub(super) codec: Option<Codec>,
    pub(super) base: Option<&'a str>,
    pub(super) find_bases: Option<bool>,
    pub(super) replace: bool,
    pub(super) file_sha256: bool,
    pub(super) index: Option<&'a str>,
    pub(super) metadata: Vec<(String, String)>,
    pub(super) progress: Option<OnProgress<'a>>,
}

impl std::fmt::Debug for ImportOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImportOptions")
            .field("codec", &self.codec)
            .field("base", &self.base)
            .field("find_bases", &self.find_bases)
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

    /// The model that this one was made from: each tensor is tried against its namesake there.
    ///
    /// A difference is kept where it is smaller, so that a wrong name costs time and no space.
    #[must_use]
    pub fn with_base(mut self, model: &'a str) -> Self {
        self.base = Some(model);
        self
    }

    /// Whether to look for stored tensors that new ones are nearly the same as, instead of as the store is
    /// configured.
    #[must_use]
    pub fn with_find_bases(mut self, find: bool) -> Self {
        self.find_bases = Some(find);
        self
    }

    /// Whether a model of the same name gives way: one with other content, and of one with the same content what
    /// differs beside it, such as the names of its files. An export gives back the names that were imported last.
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
    /// New tensors that are stored as their difference from another one.
    pub delta_tensors: u64,
    /// Bytes of the model's files.
    pub logical_bytes: u64,
    /// Bytes that the store grew by, headers and manifest included.
    pub stored_bytes: u64,
    /// Whether the model was there already, with the same content; its file names, index and facts are the new ones
    /// only if it was to be replaced.
    pub was_there: bool,
}
