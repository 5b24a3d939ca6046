//! The file that a restored model becomes.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::error::CliError;

/// A temporary file beside its final name; it is gone unless it is published.
#[derive(Debug)]
pub(crate) struct Target {
    file: NamedTempFile,
    path: PathBuf,
    replace: bool,
}

impl Target {
    /// Makes the temporary file; refuses a name that is taken unless it may be replaced.
    pub(crate) fn open(path: &Path, replace: bool) -> Result<Self, CliError> {
        // Replacing a device or a pipe by a file would take it away from everybody.
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            let source = io::Error::other("it is not a regular file");
            return Err(CliError::file("write", path, source));
        }
        if !replace && path.symlink_metadata().is_ok() {
            return Err(exists(path));
        }
        let fail = |source| CliError::file("write", path, source);
        let file = Builder::new()
            .prefix(".stepwell-")
            .suffix(".part")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder_of(path))
            .map_err(|source| fail(without_path(source)))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            replace,
        })
    }

    /// Makes the file durable and gives it its name.
    pub(crate) fn publish(self) -> Result<(), CliError> {
        let fail = |source| CliError::file("write", &self.path, source);
        self.file.as_file().sync_all().map_err(fail)?;
        let named = if self.replace {
            self.file.persist(&self.path)
        } else {
            self.file.persist_noclobber(&self.path)
        };
        named.map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => exists(&self.path),
            _ => CliError::file("write", &self.path, error.error),
        })?;
        let folder = folder_of(&self.path);
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| CliError::file("sync", folder, source))
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn exists(path: &Path) -> CliError {
    CliError::TargetExists {
        path: path.display().to_string(),
    }
}

/// The directory that a path is in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// The operating system's reason; the temporary name says nothing to the user.
fn without_path(error: io::Error) -> io::Error {
    io::Error::from(error.kind())
}
