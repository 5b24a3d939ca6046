//! The files of a model that is to be added.

use std::path::{Path, PathBuf};

use core_view::safetensors::ShardIndex;
use weightstore::{
    ByteSource, ForeignFile, ImportOptions, ImportReport, ModelFormat, NativeStore, SourceFile,
};

use crate::error::CliError;
use crate::file_source::FileSource;

/// What the index of a sharded model ends with.
const INDEX_SUFFIX: &str = ".index.json";

/// The fact of a model that names its index file.
pub(crate) const INDEX_FACT: &str = "stepwell.index_file";

/// The fact of a model that was converted: the format that it had.
pub(super) const FORMAT_FACT: &str = "stepwell.source_format";

/// Suffixes that say the format, and are no part of a model's name.
const SUFFIXES: [&str; 9] = [
    ".safetensors",
    ".npz",
    ".npy",
    ".pt",
    ".pth",
    ".bin",
    ".ckpt",
    ".h5",
    ".hdf5",
];

/// Longest index in bytes.
const INDEX_LEN_MAX: u64 = 1 << 30;

/// One file of a model, told by its content, whatever it is called.
#[derive(Debug)]
enum ModelFile {
    Safetensors(FileSource),
    Foreign(Box<ForeignFile<FileSource>>),
}

impl ModelFile {
    fn open(path: &Path) -> Result<Self, CliError> {
        let source = FileSource::open(path)?;
        let name = source.name().to_owned();
        match ModelFormat::detect(&name, &source)? {
            ModelFormat::Npy | ModelFormat::Npz | ModelFormat::Torch => {
                Ok(Self::Foreign(Box::new(ForeignFile::open(&name, source)?)))
            }
            _ => Ok(Self::Safetensors(source)),
        }
    }

    /// The name that it has as a safetensors file.
    fn name(&self) -> String {
        match self {
            Self::Safetensors(source) => source.name().to_owned(),
            Self::Foreign(file) => file.name(),
        }
    }

    fn source(&self) -> &dyn ByteSource {
        match self {
            Self::Safetensors(source) => source,
            Self::Foreign(file) => &**file,
        }
    }

    fn foreign(&self) -> Option<&ForeignFile<FileSource>> {
        match self {
            Self::Safetensors(_) => None,
            Self::Foreign(file) => Some(file),
        }
    }
}

/// A model on the file system: one file, or an index with its shards.
#[derive(Debug)]
pub(crate) struct ModelFiles {
    files: Vec<ModelFile>,
    index: Option<(String, String)>,
}

impl ModelFiles {
    /// Opens a model file of any format that can be imported, or an index and the shards beside it.
    pub(crate) fn open(path: &Path) -> Result<Self, CliError> {
        let source = FileSource::open(path)?;
        let is_index = ModelFormat::detect(source.name(), &source)? == ModelFormat::ShardIndex;
        if !is_index && !source.name().ends_with(INDEX_SUFFIX) {
            return Ok(Self {
                files: vec![ModelFile::open(path)?],
                index: None,
            });
        }
        let fail = |source| CliError::file("read", path, source);
        let len = std::fs::metadata(path).map_err(fail)?.len();
        if len > INDEX_LEN_MAX {
            let reason = format!("{len} bytes are too many for an index");
            return Err(fail(std::io::Error::other(reason)));
        }
        let text = std::fs::read_to_string(path).map_err(fail)?;
        let index = ShardIndex::parse(text.as_bytes()).map_err(|source| CliError::Index {
            path: path.display().to_string(),
            source,
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let shards: Vec<PathBuf> = index.shards().map(|shard| folder.join(shard)).collect();
        let files: Vec<ModelFile> = shards
            .iter()
            .map(|shard| ModelFile::open(shard))
            .collect::<Result<_, _>>()
            .map_err(|source| CliError::Shard {
                index: path.display().to_string(),
                source: Box::new(source),
            })?;
        let foreign = files.iter().any(|file| file.foreign().is_some());
        let name = source.name().to_owned();
        let index = match foreign {
            true => converted_index(path, &name, &text, &index, &files)?,
            false => (name, text),
        };
        Ok(Self {
            files,
            index: Some(index),
        })
    }

    /// Parses the headers, to refuse a model before anything is made for it.
    pub(crate) fn check(&self) -> Result<(), CliError> {
        self.files.iter().try_for_each(|file| match file {
            ModelFile::Safetensors(source) => source.check(),
            // Its header was made when it was opened.
            ModelFile::Foreign(_) => Ok(()),
        })
    }

    /// The format that the model is converted from, if it is.
    pub(crate) fn converted_from(&self) -> Option<&'static str> {
        let foreign = self.files.iter().find_map(ModelFile::foreign)?;
        Some(foreign.format().name())
    }

    /// Values of its files that are no tensors, and left out.
    pub(crate) fn skipped_values(&self) -> u64 {
        let foreign = self.files.iter().filter_map(ModelFile::foreign);
        foreign.map(ForeignFile::skipped_values).sum()
    }

    /// Imports the model.
    pub(crate) fn add<'a>(
        &'a self,
        store: &NativeStore,
        name: &str,
        mut options: ImportOptions<'a>,
    ) -> Result<ImportReport, CliError> {
        if let Some((file, text)) = &self.index {
            options = options.with_index(text).with_metadata(INDEX_FACT, file);
        }
        if let Some(format) = self.converted_from() {
            options = options.with_metadata(FORMAT_FACT, format);
        }
        let names: Vec<String> = self.files.iter().map(ModelFile::name).collect();
        let sources: Vec<SourceFile<'_>> = self
            .files
            .iter()
            .zip(&names)
            .map(|(file, name)| SourceFile {
                name,
                source: file.source(),
            })
            .collect();
        Ok(store.add_sharded_model(name, &sources, &options)?)
    }
}

/// The index of a model whose shards are converted: it names what they become.
fn converted_index(
    path: &Path,
    name: &str,
    text: &str,
    index: &ShardIndex,
    files: &[ModelFile],
) -> Result<(String, String), CliError> {
    let unusable = |error: serde_json::Error| CliError::file("read", path, error.into());
    let mut whole: serde_json::Value = serde_json::from_str(text).map_err(unusable)?;
    let map = whole
        .get_mut("weight_map")
        .and_then(|map| map.as_object_mut());
    for shard in map.into_iter().flat_map(|map| map.values_mut()) {
        let place = index.shards().position(|known| shard == known);
        if let Some(file) = place.and_then(|place| files.get(place)) {
            *shard = file.name().into();
        }
    }
    let text = serde_json::to_string_pretty(&whole).map_err(unusable)?;
    let stem = name.strip_suffix(INDEX_SUFFIX).unwrap_or(name);
    let stem = without_format(stem);
    Ok((format!("{stem}.safetensors{INDEX_SUFFIX}"), text))
}

fn without_format(name: &str) -> &str {
    let stems = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
    stems.unwrap_or(name)
}

/// The name that a model has when none is given: its file's, without what says the format.
pub(crate) fn default_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(INDEX_SUFFIX).unwrap_or(name);
    let stem = without_format(stem);
    (!stem.is_empty()).then(|| stem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_without_the_format() {
        for (path, name) in [
            ("a/b/model.safetensors", Some("model")),
            ("v1.5.safetensors", Some("v1.5")),
            ("model.safetensors.index.json", Some("model")),
            ("plain", Some("plain")),
            ("pytorch_model.bin", Some("pytorch_model")),
            ("pytorch_model.bin.index.json", Some("pytorch_model")),
            ("a.npz", Some("a")),
            (".safetensors", None),
            ("..", None),
        ] {
            assert_eq!(default_name(Path::new(path)).as_deref(), name, "{path}");
        }
    }
}
