//! Why a command failed.

use std::error::Error;
use std::io;

use blockmgr::trace::TraceError;
use core_view::contract::ErrorKind;
use core_view::safetensors::SafetensorsError;
use serde::Serialize;
use tier_nvme::NvmeError;
use tier_nvme::bench::BenchError;
use weightstore::WeightError;

/// Why a command failed, and to what.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CliError {
    /// The arguments do not go together.
    #[error("{reason}; see --help")]
    Usage {
        /// What is wrong with them.
        reason: String,
    },
    /// The weight store failed.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] NvmeError),
    /// A trace can't be used.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The block manager failed.
    #[error(transparent)]
    Cache(#[from] blockmgr::Error),
    /// A file or directory that the user named failed.
    #[error("could not {operation} {path}")]
    File {
        /// What was to be done.
        operation: &'static str,
        /// The file or directory.
        path: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The index of a sharded model can't be used.
    #[error("{path} is not a usable index of a sharded model")]
    Index {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: SafetensorsError,
    },
    /// A shard that an index names can't be used.
    #[error("{index} names a shard that can't be used; have all shards beside it")]
    Shard {
        /// The index.
        index: String,
        /// Why it can't.
        #[source]
        source: Box<CliError>,
    },
    /// No tensor of an HDF5 file belongs to the model that was asked for.
    #[error(
        "no tensor in {path} belongs to a model {model:?}; leave --model out to take all of them"
    )]
    NoTensorsOf {
        /// The file.
        path: String,
        /// The model.
        model: String,
    },
    /// The target of `get` is there already.
    #[error("{path} exists already; pass --force to replace it")]
    TargetExists {
        /// The file or directory.
        path: String,
    },
    /// Memory can't be had.
    #[error("could not get {requested_bytes} bytes of memory; close other programs")]
    Memory {
        /// Bytes asked for.
        requested_bytes: usize,
    },
    /// No value of the store has this key.
    #[error("there is no value under {key}")]
    KeyNotFound {
        /// The key, as text.
        key: String,
    },
    /// No batch of the store can hold it.
    #[error(
        "{what} is longer than the {len_bytes_max} bytes that one batch of this store can hold; \
         split it, or make a store with a larger --segment-bytes"
    )]
    ValueTooLarge {
        /// The file, or what is to be one batch.
        what: String,
        /// Most bytes.
        len_bytes_max: u64,
    },
    /// A model is too large for the memory that an export may take.
    #[error(
        "the tensors of {model:?} have {found_bytes} bytes, more than the limit of {limit_bytes}; \
         raise --content-bytes-max if there is memory for three and a half times as much"
    )]
    ContentTooLarge {
        /// The model.
        model: String,
        /// Bytes of its distinct tensors.
        found_bytes: u64,
        /// Most bytes.
        limit_bytes: u64,
    },
    /// A line of the input can't be understood.
    #[error("{place} can't be used: {reason}; correct it, earlier batches are stored")]
    Line {
        /// Which line of which file.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store is one of models.
    #[error("{path} holds models; use `stepwell weights`, or choose another --store")]
    HoldsModels {
        /// The directory.
        path: String,
    },
    /// A measurement failed.
    #[error("could not measure {what}; see whether `stepwell doctor` finds something missing")]
    Bench {
        /// What was to be measured.
        what: String,
        /// The reason.
        #[source]
        source: BenchError,
    },
    /// There is too little room to work in.
    #[error(
        "{what} needs {needed_bytes} bytes in {path} and {free_bytes} are free; \
         choose another --dir{hint}"
    )]
    NoRoom {
        /// Who needs it.
        what: &'static str,
        /// What else helps.
        hint: &'static str,
        /// The directory.
        path: String,
        /// Bytes needed.
        needed_bytes: u64,
        /// Bytes free.
        free_bytes: u64,
    },
    /// `verify` found damage, and has told which.
    #[error("{count} damaged of {checked} checked; {remedy}")]
    Damaged {
        /// How many.
        count: usize,
        /// Out of how many.
        checked: u64,
        /// What to do.
        remedy: &'static str,
    },
    /// What the tour restored is not what it stored.
    #[error("{what}; do not trust this machine with data before the cause is found")]
    Mismatch {
        /// What differs.
        what: String,
    },
    /// Memory grew through a soak.
    #[error(
        "resident memory rose by {risen_kib} KiB in {minutes:.0} minutes, more than the {risen_max_kib} KiB that are \
         noise; look for what each round keeps"
    )]
    Leak {
        /// By the line through the rounds.
        risen_kib: u64,
        /// That the line spans.
        minutes: f64,
        /// What passes for noise.
        risen_max_kib: u64,
    },
    /// Standard output failed.
    #[error("could not write to standard output")]
    Output {
        /// The reason.
        #[source]
        source: io::Error,
    },
}

/// A failure as `--json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct FailureObject {
    error: FailureFacts,
}

#[derive(Debug, Serialize)]
struct FailureFacts {
    kind: &'static str,
    message: String,
    hint: Option<String>,
}

impl CliError {
    /// A failure of a file or directory.
    pub(crate) fn file(
        operation: &'static str,
        path: impl AsRef<std::path::Path>,
        source: io::Error,
    ) -> Self {
        Self::File {
            operation,
            path: path.as_ref().display().to_string(),
            source,
        }
    }

    /// A picture that could not be drawn.
    pub(crate) fn picture(error: Box<dyn Error>) -> Self {
        Self::Bench {
            what: "the picture".to_owned(),
            source: error.to_string().into(),
        }
    }

    /// 1 for what failed, 2 for wrong usage.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => 2,
            _ => 1,
        }
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output { source } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Whether standard output has the outcome already.
    pub(crate) fn is_reported(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. } | Self::Mismatch { .. } | Self::Leak { .. }
        )
    }

    /// The failure as `--json` prints it.
    pub(crate) fn object(&self) -> FailureObject {
        let (message, hint) = self.sentence();
        FailureObject {
            error: FailureFacts {
                kind: self.kind(),
                message,
                hint,
            },
        }
    }

    /// The facts from the outermost cause to the innermost, and what to do.
    pub(crate) fn sentence(&self) -> (String, Option<String>) {
        let mut message = String::new();
        let mut hint = None;
        let mut layer: Option<&dyn Error> = Some(self);
        while let Some(error) = layer {
            let text = error.to_string();
            let (fact, advice) = match text.split_once("; ") {
                Some((fact, advice)) => (fact, Some(advice.to_owned())),
                None => (text.as_str(), None),
            };
            // Wrappers repeat what they wrap.
            if !message.contains(fact) {
                if !message.is_empty() {
                    message.push_str(": ");
                }
                message.push_str(fact);
            }
            hint = advice.or(hint);
            layer = error.source();
        }
        let own = self.own_hint().map(str::to_owned);
        // What the library says of a value that can't be used is nearer to it.
        let hint = match self.kind() {
            "invalid" | "not_importable" => hint.or(own),
            _ => own.or(hint),
        };
        (message, hint)
    }

    /// What to do in terms of this program, where the library can't know it.
    fn own_hint(&self) -> Option<&'static str> {
        match self {
            Self::NoTensorsOf { .. } => return None,
            Self::Shard { source, .. } if source.kind() == "file_not_found" => {
                return Some("have all shards beside it");
            }
            Self::Weights(WeightError::PartNotFound { .. }) => {
                return Some("see `stepwell weights show` for its parts");
            }
            _ => {}
        }
        let hint = match self.kind() {
            "model_exists" => "choose another --name, or pass --replace",
            "model_not_found" => "see `stepwell weights ls` for the names",
            "key_not_found" => "see `stepwell store ls` for the keys",
            "no_space" if !matches!(self, Self::NoRoom { .. }) => {
                "free some space and try again, what was stored before is intact"
            }
            "read_only" => "choose a --store that can be written",
            "file_not_found" => "check the path",
            "invalid" => "choose another value",
            "not_importable" => "save the model as safetensors",
            "file_changed" => "wait until nobody writes it, and try again",
            "output" => "check where it goes",
            "file" => "check the path and the device",
            _ => return None,
        };
        Some(hint)
    }

    /// A word for scripts; the list is in the README.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Usage { .. } => "usage",
            Self::Weights(error) => weights_kind(error),
            Self::Storage(error) => storage_kind(error),
            Self::Trace(TraceError::Io { source, .. }) | Self::File { source, .. } => {
                file_kind(source)
            }
            Self::Trace(_) => "bad_line",
            Self::Cache(error) => cache_kind(error),
            Self::Index { .. } => "not_safetensors",
            Self::Shard { source, .. } => source.kind(),
            Self::NoTensorsOf { .. } => "model_not_found",
            Self::TargetExists { .. } => "target_exists",
            Self::KeyNotFound { .. } => "key_not_found",
            Self::ValueTooLarge { .. } | Self::ContentTooLarge { .. } => "too_large",
            Self::Line { .. } => "bad_line",
            Self::HoldsModels { .. } => "holds_models",
            Self::Memory { .. } => "out_of_memory",
            Self::Bench { source, .. } => source
                .downcast_ref::<NvmeError>()
                .map_or("bench", storage_kind),
            Self::NoRoom { .. } => "no_space",
            Self::Damaged { .. } => "corrupt",
            Self::Mismatch { .. } => "mismatch",
            Self::Leak { .. } => "leak",
            Self::Output { .. } => "output",
        }
    }
}

fn file_kind(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => "file_not_found",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "no_space"
        }
        _ => "file",
    }
}

fn weights_kind(error: &WeightError) -> &'static str {
    match error {
        WeightError::ModelNotFound { .. } | WeightError::PartNotFound { .. } => "model_not_found",
        WeightError::ModelExists { .. } => "model_exists",
        WeightError::Corrupt { .. } => "corrupt",
        WeightError::Newer { .. } => "newer_version",
        WeightError::NotAWeightStore { .. } => "not_a_store",
        WeightError::Safetensors { .. } | WeightError::IndexMismatch { .. } => "not_safetensors",
        WeightError::Foreign { .. } => "not_importable",
        WeightError::Hdf5 { .. } => "not_coral",
        WeightError::CoralDelta { .. } => "bad_delta",
        WeightError::Source { source, .. } | WeightError::Target { source, .. } => {
            // A source that decodes another format fails for reasons of its own.
            let inner = source.get_ref().and_then(|inner| inner.downcast_ref());
            match inner {
                Some(inner) => weights_kind(inner),
                // What it decodes is damaged.
                None if source.kind() == io::ErrorKind::InvalidData => "not_importable",
                None => file_kind(source),
            }
        }
        WeightError::SourceChanged { .. } => "file_changed",
        WeightError::InvalidName { .. }
        | WeightError::InvalidConfig { .. }
        | WeightError::TooManyDimensions { .. } => "invalid",
        WeightError::OutOfMemory { .. } => "out_of_memory",
        WeightError::NoThreads { .. } => "no_threads",
        WeightError::TooLarge { .. } => "too_large",
        WeightError::Storage { source, .. } => source
            .downcast_ref::<NvmeError>()
            .map_or("storage", storage_kind),
        _ => "weights",
    }
}

fn cache_kind(error: &blockmgr::Error) -> &'static str {
    match error {
        blockmgr::Error::InvalidConfig { .. }
        | blockmgr::Error::MissingConfig { .. }
        | blockmgr::Error::SizeOverflow { .. } => "invalid",
        blockmgr::Error::LayoutMismatch { .. } => "layout_mismatch",
        blockmgr::Error::BlockVersion { .. } | blockmgr::Error::BlockFeatures { .. } => {
            "newer_version"
        }
        blockmgr::Error::Storage { .. } => "out_of_memory",
        blockmgr::Error::Tier { .. } => "storage",
        _ => "cache",
    }
}

fn storage_kind(error: &NvmeError) -> &'static str {
    match error {
        NvmeError::NotAStore { .. } => "not_a_store",
        NvmeError::Locked { .. } => "in_use",
        NvmeError::ReadOnly { .. } => "read_only",
        NvmeError::Invalid { field, .. } if *field == "batch" => "too_large",
        NvmeError::Invalid { .. } => "invalid",
        NvmeError::MemoryLimit { .. } => "out_of_memory",
        NvmeError::NewerVersion { .. } | NvmeError::UnknownFeatures { .. } => "newer_version",
        error => match error.kind() {
            ErrorKind::NoSpace => "no_space",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::NotFound => "file_not_found",
            _ => "storage",
        },
    }
}
