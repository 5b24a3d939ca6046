//! Files that imports read.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use core_view::safetensors::Header;
use weightstore::{ByteSource, WeightError};

use crate::error::CliError;

/// An open file.
#[derive(Debug)]
pub(crate) struct FileSource {
    file: File,
    name: String,
}

impl FileSource {
    pub(crate) fn open(path: &Path) -> Result<Self, CliError> {
        let fail = |source| CliError::file("open", path, source);
        let file = File::open(path).map_err(fail)?;
        if !file.metadata().map_err(fail)?.is_file() {
            return Err(fail(io::Error::other("it is not a regular file")));
        }
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| fail(io::Error::other("its name is not UTF-8")))?;
        Ok(Self {
            file,
            name: name.to_owned(),
        })
    }

    /// Parses the header, as an import would.
    pub(crate) fn check(&self) -> Result<(), CliError> {
        let len = self
            .len_bytes()
            .map_err(|source| CliError::file("measure", Path::new(&self.name), source))?;
        // Reads at offsets, as those of an import are, pay no heed to where this one ends.
        let mut reader = &self.file;
        match Header::read(&mut reader, len) {
            Ok(_) => Ok(()),
            Err(source) => {
                let file = self.name.clone();
                Err(WeightError::Safetensors { file, source }.into())
            }
        }
    }

    /// The file's plain name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl ByteSource for FileSource {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_exact_at(&self, offset_bytes: u64, target: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(target, offset_bytes)
    }

    fn version(&self) -> io::Result<u128> {
        let metadata = self.file.metadata()?;
        let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
        Ok((u128::from(seconds.cast_unsigned()) << 64) | u128::from(nanoseconds.cast_unsigned()))
    }
}
