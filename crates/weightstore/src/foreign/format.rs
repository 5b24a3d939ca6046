//! What a file is, told by its content.

use std::io;

use super::directory::Directory;
use crate::{ByteSource, WeightError};

/// The formats that model files come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelFormat {
    /// safetensors, or nothing that is known.
    Safetensors,
    /// The index of a sharded model: JSON.
    ShardIndex,
    /// One array of numpy's.
    Npy,
    /// A zip archive of numpy's arrays.
    Npz,
    /// A zip archive with a pickled `state_dict`, as `torch.save` writes it.
    Torch,
}

/// What a zip archive begins with: an entry, or the end of an empty directory.
const ZIP_STARTS: [&[u8]; 2] = [b"PK\x03\x04", b"PK\x05\x06"];
/// The longest header that a safetensors file can have; a text read as a number is far above.
const SAFETENSORS_HEADER_MAX: u64 = core_view::safetensors::HEADER_LEN_MAX;
/// What is known, and can't be imported.
const REFUSED: [(&[u8], &str, &str); 2] = [
    (
        b"\x89HDF\r\n\x1a\n",
        "HDF5",
        "it is an archive of its own; import it by import-h5",
    ),
    (
        b"GGUF",
        "GGUF",
        "its tensors are quantised in ways of their own; convert it to safetensors",
    ),
];
/// As much of a file as tells what it is.
const START_LEN: usize = 32;
/// How the files of PyTorch before 1.6 begin behind the protocol, and behind a frame from protocol 4 on: a number, and the
/// end of its pickle.
const TORCH_BEFORE_ZIP: &[u8] = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

impl ModelFormat {
    /// Tells the format by the content; the name serves messages only.
    ///
    /// # Errors
    /// [`WeightError::Foreign`] for a format that is known and can't be imported, or a zip archive of
    /// other things; [`WeightError::Source`].
    pub fn detect(name: &str, source: &dyn ByteSource) -> Result<Self, WeightError> {
        let failed = |source| WeightError::Source {
            file: name.into(),
            offset_bytes: 0,
            len_bytes: START_LEN as u64,
            source,
        };
        let len = source.len_bytes().map_err(failed)?;
        let len = usize::try_from(len).map_or(START_LEN, |len| len.min(START_LEN));
        let mut start = [0; START_LEN];
        let start = start.get_mut(..len).unwrap_or_default();
        source.read_exact_at(0, start).map_err(failed)?;
        for (magic, format, reason) in REFUSED {
            if start.starts_with(magic) {
                return Err(refused(name, format, reason));
            }
        }
        if start.starts_with(&core_view::npy::MAGIC) {
            return Ok(Self::Npy);
        }
        if ZIP_STARTS.iter().any(|magic| start.starts_with(magic)) {
            return Self::of_archive(name, source);
        }
        let claims = start.first_chunk().map(|len| u64::from_le_bytes(*len));
        let has_header = claims.is_none_or(|len| len <= SAFETENSORS_HEADER_MAX);
        match start.trim_ascii_start() {
            _ if has_header => Ok(Self::Safetensors),
            [b'{', ..] => Ok(Self::ShardIndex),
            [0x80, 2..=5, ..] => Err(refused(name, "PyTorch", pickle_reason(start))),
            _ => Ok(Self::Safetensors),
        }
    }

    fn of_archive(name: &str, source: &dyn ByteSource) -> Result<Self, WeightError> {
        let directory = Directory::read(source).map_err(|reason| refused(name, "zip", reason))?;
        let mut names = directory.entries().iter().map(|entry| entry.name.as_str());
        if names.clone().any(super::torch::is_pickle) {
            return Ok(Self::Torch);
        }
        if names.all(|name| name.ends_with(".npy")) {
            return Ok(Self::Npz);
        }
        let reason = "it is a zip archive of neither numpy's arrays nor a state_dict; \
                      save the model as safetensors";
        Err(refused(name, "zip", reason))
    }

    /// The format's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::ShardIndex => "index",
            Self::Npy => "NPY",
            Self::Npz => "NPZ",
            Self::Torch => "PyTorch",
        }
    }

    /// What readers of safetensors files expect to be told of their origin.
    pub(super) fn framework(self) -> Option<&'static str> {
        match self {
            Self::Npy | Self::Npz => Some("np"),
            Self::Torch => Some("pt"),
            Self::Safetensors | Self::ShardIndex => None,
        }
    }

    /// The name that a file has as a safetensors file.
    pub(super) fn safetensors_name(self, name: &str) -> String {
        format!("{}.safetensors", stem(name))
    }

    /// A failure to read while a file is opened: the file's fault, or the source's.
    pub(super) fn failed(self, name: &str, source: io::Error) -> WeightError {
        match source.kind() {
            io::ErrorKind::InvalidData => self.refused(name, source.to_string()),
            io::ErrorKind::UnexpectedEof => self.refused(name, "it ends early; fetch it again"),
            _ => WeightError::Source {
                file: name.into(),
                offset_bytes: 0,
                len_bytes: 0,
                source,
            },
        }
    }

    pub(super) fn refused(self, name: &str, reason: impl Into<String>) -> WeightError {
        refused(name, self.name(), reason)
    }
}

/// Why a pickle that is in no archive is not read, and what to do.
fn pickle_reason(start: &[u8]) -> &'static str {
    let mut windows = start.windows(TORCH_BEFORE_ZIP.len());
    match windows.any(|window| window == TORCH_BEFORE_ZIP) {
        true => "it is a plain pickle of PyTorch before 1.6; load and save it again with torch",
        false => {
            "it is a plain pickle; save a state_dict of its tensors with torch.save, or as safetensors"
        }
    }
}

/// A file's name without the suffixes of these formats.
pub(super) fn stem(name: &str) -> &str {
    let suffixes = [
        ".safetensors",
        ".npy",
        ".npz",
        ".pt",
        ".pth",
        ".bin",
        ".ckpt",
    ];
    let stem = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
    stem.filter(|stem| !stem.is_empty()).unwrap_or(name)
}

fn refused(name: &str, format: &'static str, reason: impl Into<String>) -> WeightError {
    WeightError::Foreign {
        file: name.into(),
        format,
        reason: reason.into(),
    }
}
