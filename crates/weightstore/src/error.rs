//! The error of the weight stores.

use core_view::DType;
use core_view::safetensors::SafetensorsError;

use crate::{HashKey, WeightHash};

/// What went wrong, to what, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// A text is not a hash.
    #[error("{text:?} is not a hash; expected 64 hex digits (SHA-256) or 16 (Coral's alias)")]
    InvalidHash {
        /// The text, shortened.
        text: String,
    },
    /// Content and hash do not belong together.
    #[error(
        "the content of {name:?} has the hash {computed}, not {expected}; \
         leave the hash out to store it under its own"
    )]
    HashMismatch {
        /// The tensor or delta.
        name: String,
        /// The hash that was supplied.
        expected: HashKey,
        /// The content's own hash.
        computed: WeightHash,
    },
    /// An alias leads to several tensors.
    #[error("the alias {alias} belongs to {candidates} tensors; use the SHA-256 hash instead")]
    AmbiguousAlias {
        /// The alias.
        alias: HashKey,
        /// How many tensors have it.
        candidates: usize,
    },
    /// Type, shape and number of bytes do not fit each other.
    #[error(
        "tensor {name:?} ({dtype} {shape:?}) has {found_bytes} bytes where its shape needs {}; \
         check type and shape", needed(*.expected_bytes)
    )]
    ShapeMismatch {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: DType,
        /// Its shape.
        shape: Vec<u64>,
        /// Bytes that type and shape need; `None` if that is not a whole number of bytes or too large.
        expected_bytes: Option<u64>,
        /// Bytes given.
        found_bytes: u64,
    },
    /// A name can't be used.
    #[error("the {what} {name:?} can't be used: {reason}")]
    InvalidName {
        /// What it names.
        what: &'static str,
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// There is no such model.
    #[error("there is no model {name:?} in the store; list the models to see their names")]
    ModelNotFound {
        /// The name.
        name: String,
    },
    /// A model has no such tensor or file.
    #[error("model {model:?} has no {what} {name:?}; show the model to see its parts")]
    PartNotFound {
        /// The model.
        model: String,
        /// "tensor" or "file".
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The index of a sharded model and its files do not belong together.
    #[error(
        "the index of {model:?} names the {what} {name:?}, which its files do not have; \
         fetch the index and all its shards again"
    )]
    IndexMismatch {
        /// The model.
        model: String,
        /// "tensor" or "file".
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The name is taken by a model of other content.
    #[error("the model {name:?} exists with other content; choose another name or remove it first")]
    ModelExists {
        /// The name.
        name: String,
    },
    /// A tensor can't be deleted because something needs it.
    #[error("tensor {hash} is in use by {user}; remove that first")]
    InUse {
        /// The tensor.
        hash: WeightHash,
        /// What needs it.
        user: String,
    },
    /// Stored bytes are not the bytes that were stored.
    #[error("{structure} {name} is damaged: {reason}; run verify to see the extent")]
    Corrupt {
        /// The structure ("tensor", "model", "delta", …).
        structure: &'static str,
        /// Its hash or name, with the model that was being read where there is one.
        name: String,
        /// What does not match.
        reason: String,
    },
    /// A tensor is stored as a difference from one that is not there.
    #[error(
        "tensor {hash} is stored as a difference from {base}, which is not there; transfer that first"
    )]
    BaseNotFound {
        /// The tensor.
        hash: WeightHash,
        /// Its base.
        base: WeightHash,
    },
    /// A tensor is no longer stored as it was.
    #[error("tensor {hash} is stored otherwise now, or gone; ask for its encoding again")]
    Moved {
        /// The tensor.
        hash: WeightHash,
    },
    /// A transfer is not where it has to be.
    #[error("tensor {hash} can't be taken: {reason}")]
    NotStaged {
        /// The tensor.
        hash: WeightHash,
        /// What is missing.
        reason: &'static str,
    },
    /// A record was written by a newer version or with unknown features.
    #[error("{structure} {name} needs a newer program: {reason}")]
    Newer {
        /// The structure.
        structure: &'static str,
        /// Its hash or name.
        name: String,
        /// What is not understood.
        reason: String,
    },
    /// Content is encoded by a codec that was left out of this build.
    #[error("the codec {codec} was left out of this build; enable the feature {codec:?}")]
    CodecMissing {
        /// The codec.
        codec: &'static str,
    },
    /// The store below holds something else.
    #[error("{location} is a blob store but not a weight store; choose another directory")]
    NotAWeightStore {
        /// Where it is.
        location: String,
    },
    /// A file to be imported is not a safetensors file.
    #[error("{file} is not a usable safetensors file")]
    Safetensors {
        /// The file.
        file: String,
        /// What is wrong with it.
        #[source]
        source: SafetensorsError,
    },
    /// A file of another format can't be imported.
    #[error("{file} can't be imported as {format}: {reason}")]
    Foreign {
        /// The file.
        file: String,
        /// The format that it has.
        format: &'static str,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A file is not an HDF5 file in Coral's layout, or can't become one.
    #[cfg(feature = "hdf5")]
    #[error(
        "{file} can't be used as an HDF5 file in Coral's layout ({what}); check that Coral opens it"
    )]
    Hdf5 {
        /// The file.
        file: String,
        /// What of it.
        what: String,
        /// What the HDF5 library says.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A tensor has more dimensions than HDF5 takes.
    #[cfg(feature = "hdf5")]
    #[error(
        "{name:?} has {rank} dimensions, more than the {rank_max} that HDF5 takes; \
         merge some, or use a safetensors file instead"
    )]
    TooManyDimensions {
        /// The tensor, or the delta.
        name: String,
        /// How many it has.
        rank: usize,
        /// Most that there can be.
        rank_max: usize,
    },
    /// A delta of Coral's can't be decoded.
    #[cfg(feature = "hdf5")]
    #[error("the {kind} delta can't be decoded: {reason}; Coral would not decode it either")]
    CoralDelta {
        /// The kind of delta.
        kind: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A file to be imported can't be read.
    #[error("could not read {len_bytes} bytes at {offset_bytes} of {file}")]
    Source {
        /// The file.
        file: String,
        /// Offset of the read.
        offset_bytes: u64,
        /// Length of the read.
        len_bytes: u64,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// A file changed while it was imported.
    #[error("{file} changed while it was read ({reason}); nothing was stored, try again")]
    SourceChanged {
        /// The file.
        file: String,
        /// How that shows.
        reason: String,
    },
    /// The target of an export failed.
    #[error("could not write the restored bytes of {name:?} to their target")]
    Target {
        /// The model or tensor.
        name: String,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// A byte range is not inside its tensor.
    #[error(
        "the range of {len_bytes} bytes at {offset_bytes} is not inside the {tensor_bytes} bytes of {name}"
    )]
    OutOfRange {
        /// The tensor.
        name: String,
        /// Start of the range.
        offset_bytes: u64,
        /// Length of the range.
        len_bytes: u64,
        /// Length of the tensor.
        tensor_bytes: u64,
    },
    /// Memory can't be had.
    #[error(
        "could not get {requested_bytes} bytes of memory for {what}; read it in ranges instead"
    )]
    OutOfMemory {
        /// What it was for.
        what: String,
        /// Bytes asked for.
        requested_bytes: u64,
    },
    /// The system starts no more threads.
    #[error(
        "could not start a thread to {operation}; raise the limit of threads or memory (`ulimit -u`, `ulimit -v`), or \
         close other programs"
    )]
    NoThreads {
        /// What it was to do.
        operation: &'static str,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// A record is longer than the store takes.
    #[error("{what} needs {found_bytes} bytes, more than the limit of {limit_bytes}")]
    TooLarge {
        /// What it is.
        what: String,
        /// Its size.
        found_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// A setting is out of range.
    #[error("invalid {field}: {reason}")]
    InvalidConfig {
        /// The field at fault.
        field: &'static str,
        /// Why its value can't be used.
        reason: String,
    },
    /// The store was closed.
    #[error("the weight store is closed; open it again")]
    Closed,
    /// The storage below failed.
    #[error("the storage failed to {operation}")]
    Storage {
        /// What was to be done.
        operation: &'static str,
        /// The storage's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn needed(expected_bytes: Option<u64>) -> String {
    expected_bytes.map_or_else(
        || "no whole number of bytes or too many".into(),
        |bytes| format!("{bytes}"),
    )
}

impl WeightError {
    /// A storage error with its cause.
    pub fn storage(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Storage {
            operation,
            source: source.into(),
        }
    }

    /// Damage of a structure.
    pub fn corrupt(
        structure: &'static str,
        name: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self::Corrupt {
            structure,
            name: name.into(),
            reason: reason.into(),
        }
    }

    /// The same damage with the context in which it was met added to its name.
    #[must_use]
    pub fn within(self, context: &str) -> Self {
        match self {
            Self::Corrupt {
                structure,
                name,
                reason,
            } => Self::Corrupt {
                structure,
                name: format!("{name} ({context})"),
                reason,
            },
            other => other,
        }
    }
}
