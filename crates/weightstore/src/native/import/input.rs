//! The files of an import, opened and checked.

use core_view::safetensors::{Header, ShardIndex};

use super::SourceFile;
use crate::{ByteSource, WeightError};

/// A file whose header is read.
pub(super) struct Input<'a> {
    pub(super) file: SourceFile<'a>,
    pub(super) header: Header,
    pub(super) len_bytes: u64,
    version: u128,
}

impl Input<'_> {
    /// Compares length and version with those at the start.
    pub(super) fn check_unchanged(&self) -> Result<(), WeightError> {
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
pub(super) fn source_error(
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

pub(super) fn open_files<'a>(
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
    let mismatch = |what, name: &str| WeightError::IndexMismatch {
        model: model.into(),
        what,
        name: name.into(),
    };
    for (tensor, shard) in index.tensors() {
        let input = inputs.iter().find(|input| input.file.name == shard);
        let input = input.ok_or_else(|| mismatch("file", shard))?;
        if input.header.get(tensor).is_none() {
            return Err(mismatch("tensor", tensor));
        }
    }
    Ok(())
}

/// Longest name of a model or file in bytes.
const NAME_LEN_MAX: usize = 512;

pub(in crate::native) fn check_name(what: &'static str, name: &str) -> Result<(), WeightError> {
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
