//! The file that a restored model or value becomes.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, OFlags};
use tempfile::{Builder, NamedTempFile};

use crate::direct_writer::DirectWriter;
use crate::error::CliError;
use crate::interruption::Scratch;

/// Where the kernel shows the open files of the process.
const OPEN_FILES: &str = "/proc/self/fd";

/// A file without a name, or with one of its own, until it is published; it is gone unless it is.
#[derive(Debug)]
pub(crate) struct Target {
    file: Unpublished,
    writer: DirectWriter,
    path: PathBuf,
    replace: bool,
}

/// How the file is kept until it has its name.
#[derive(Debug)]
enum Unpublished {
    /// Without a name: the kernel takes it away with the program, however that ends.
    Nameless(File),
    /// Beside its final name, where the file system has no files without one.
    Named(NamedTempFile, Scratch),
}

impl Target {
    /// Makes the file; refuses a name that is taken unless it may be replaced.
    pub(crate) fn open(path: &Path, replace: bool) -> Result<Self, CliError> {
        // Replacing a device or a pipe by a file would take it away from everybody.
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            let source = io::Error::other("it is not a regular file");
            return Err(CliError::file("write", path, source));
        }
        if !replace && path.symlink_metadata().is_ok() {
            return Err(exists(path));
        }
        if is_store(folder_of(path)) {
            let source = io::Error::other("its directory is a store, which must be left alone");
            return Err(CliError::file("write", path, source));
        }
        let file = match nameless(folder_of(path)) {
            Some(file) => Unpublished::Nameless(file),
            None => named(folder_of(path))
                .map_err(|source| CliError::file("write", path, without_path(source)))?,
        };
        let writer = match &file {
            Unpublished::Nameless(file) => file.try_clone(),
            Unpublished::Named(file, _) => file.as_file().try_clone(),
        };
        let writer = writer.map_err(|source| CliError::file("write", path, source))?;
        Ok(Self {
            file,
            writer: DirectWriter::new(writer),
            path: path.to_owned(),
            replace,
        })
    }

    fn file_mut(&mut self) -> &mut File {
        match &mut self.file {
            Unpublished::Nameless(file) => file,
            Unpublished::Named(file, _) => file.as_file_mut(),
        }
    }

    /// Makes the file durable and gives it its name.
    pub(crate) fn publish(mut self) -> Result<(), CliError> {
        let path = self.path.clone();
        let fail = |source| CliError::file("write", &path, source);
        self.writer.finish().map_err(fail)?;
        self.file_mut().sync_all().map_err(fail)?;
        let named = match self.file {
            Unpublished::Nameless(file) => link(&file, &path, self.replace),
            Unpublished::Named(file, _scratch) => {
                let named = if self.replace {
                    file.persist(&path)
                } else {
                    file.persist_noclobber(&path)
                };
                named.map(drop).map_err(|error| error.error)
            }
        };
        named.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(&path),
            _ => fail(error),
        })?;
        let folder = folder_of(&path);
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| CliError::file("sync", folder, source))
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a directory holds a store's files, one of which might have to give way.
fn is_store(folder: &Path) -> bool {
    let has = |name: &str| folder.join(name).is_file();
    has(".lock") && (has("STORE") || has("SLAB"))
}

/// A file without a name in `folder`, where there can be one that is given a name later.
fn nameless(folder: &Path) -> Option<File> {
    if !Path::new(OPEN_FILES).exists() {
        return None;
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o666)
        .custom_flags(OFlags::TMPFILE.bits().cast_signed())
        .open(folder)
        .ok()
}

fn named(folder: &Path) -> io::Result<Unpublished> {
    let file = Builder::new()
        .prefix(".stepwell-")
        .suffix(".part")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)?;
    let scratch = Scratch::watch(file.path());
    Ok(Unpublished::Named(file, scratch))
}

/// Gives a nameless file its name.
fn link(file: &File, path: &Path, replace: bool) -> io::Result<()> {
    let link_to = |path: &Path| {
        let open_file = format!("{OPEN_FILES}/{}", file.as_raw_fd());
        rustix::fs::linkat(CWD, open_file, CWD, path, AtFlags::SYMLINK_FOLLOW)
            .map_err(io::Error::from)
    };
    match link_to(path) {
        Err(error) if replace && error.kind() == io::ErrorKind::AlreadyExists => {}
        linked => return linked,
    }
    // A link replaces nothing, a rename does: the file takes a name beside the final one for a moment.
    let beside = Builder::new()
        .prefix(".stepwell-")
        .suffix(".part")
        .make_in(folder_of(path), |name| {
            let scratch = Scratch::watch(name);
            link_to(name).map(|()| scratch)
        })?;
    beside.persist(path).map(drop).map_err(|error| error.error)
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
