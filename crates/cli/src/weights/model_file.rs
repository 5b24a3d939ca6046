//! The files of a model that is to be added.

use std::path::Path;

use core_view::safetensors::ShardIndex;
use weightstore::{ImportOptions, ImportReport, NativeStore, SourceFile};

use crate::error::CliError;
use crate::file_source::FileSource;

/// What the index of a sharded model ends with.
const INDEX_SUFFIX: &str = ".index.json";

/// The fact of a model that names its index file.
pub(crate) const INDEX_FACT: &str = "stepwell.index_file";

/// Longest index in bytes.
const INDEX_LEN_MAX: u64 = 1 << 30;

/// A model on the file system: one file, or an index with its shards.
#[derive(Debug)]
pub(crate) struct ModelFiles {
    files: Vec<FileSource>,
    index: Option<(String, String)>,
}

impl ModelFiles {
    /// Opens a safetensors file, or an index and the shards beside it.
    pub(crate) fn open(path: &Path) -> Result<Self, CliError> {
        let source = FileSource::open(path)?;
        if !source.name().ends_with(INDEX_SUFFIX) {
            return Ok(Self {
                files: vec![source],
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
        let files = index
            .shards()
            .map(|shard| FileSource::open(&folder.join(shard)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            files,
            index: Some((source.name().to_owned(), text)),
        })
    }

    /// Parses the headers, to refuse a model before anything is made for it.
    pub(crate) fn check(&self) -> Result<(), CliError> {
        self.files.iter().try_for_each(FileSource::check)
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
        let sources: Vec<SourceFile<'_>> = self
            .files
            .iter()
            .map(|file| SourceFile {
                name: file.name(),
                source: file,
            })
            .collect();
        Ok(store.add_sharded_model(name, &sources, &options)?)
    }
}

/// The name that a model has when none is given: its file's, without what says the format.
pub(crate) fn default_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(INDEX_SUFFIX).unwrap_or(name);
    let stem = stem.strip_suffix(".safetensors").unwrap_or(stem);
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
            (".safetensors", None),
            ("..", None),
        ] {
            assert_eq!(default_name(Path::new(path)).as_deref(), name, "{path}");
        }
    }
}
