//! A directory that is held open, and the calls relative to it.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FallocateFlags, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::{FileName, NvmeError};

/// A held directory: renaming it does not confuse the volume.
#[derive(Debug)]
pub(super) struct Directory {
    handle: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Creates the directory and those above it that are missing, each made durable in its parent.
    pub(super) fn create(path: &Path) -> Result<(), NvmeError> {
        let absolute = std::path::absolute(path)
            .map_err(|error| NvmeError::from_io("resolve", path.display().to_string(), 0, error))?;
        let missing: Vec<_> = absolute
            .ancestors()
            .take_while(|ancestor| !ancestor.is_dir())
            .collect();
        for directory in missing.into_iter().rev() {
            let fail = |operation, error| {
                NvmeError::from_io(operation, directory.display().to_string(), 0, error)
            };
            match fs::create_dir(directory) {
                Err(error)
                    if error.kind() != io::ErrorKind::AlreadyExists || !directory.is_dir() =>
                {
                    return Err(fail("create directory", error));
                }
                _ => {}
            }
            if let Some(parent) = directory.parent() {
                Self::open(parent)?.sync()?;
            }
        }
        Ok(())
    }

    /// Opens an existing directory.
    pub(super) fn open(path: &Path) -> Result<Self, NvmeError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = retry_on_intr(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))
            .map_err(|errno| {
                NvmeError::from_io(
                    "open directory",
                    path.display().to_string(),
                    0,
                    errno.into(),
                )
            })?;
        Ok(Self {
            handle,
            path: path.to_owned(),
        })
    }

    /// Where it is.
    pub(super) fn location(&self) -> String {
        self.path.display().to_string()
    }

    /// The path of an entry, for messages.
    pub(super) fn path_of(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    fn fail(&self, operation: &'static str, name: &str, errno: Errno) -> NvmeError {
        NvmeError::from_io(operation, self.path_of(name), 0, errno.into())
    }

    /// Opens or creates an entry.
    pub(super) fn open_entry(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let mode = Mode::from_raw_mode(0o666);
        let flags = flags | OFlags::CLOEXEC;
        let handle = retry_on_intr(|| rustix::fs::openat(&self.handle, name, flags, mode))?;
        Ok(File::from(handle))
    }

    /// Whether an entry is a regular file; an error if there is no such entry.
    pub(super) fn is_file(&self, name: &str) -> io::Result<bool> {
        let status = retry_on_intr(|| rustix::fs::statat(&self.handle, name, AtFlags::empty()))?;
        Ok(FileType::from_raw_mode(status.st_mode) == FileType::RegularFile)
    }

    pub(super) fn rename(&self, source: &str, target: &str) -> Result<(), NvmeError> {
        retry_on_intr(|| rustix::fs::renameat(&self.handle, source, &self.handle, target))
            .map_err(|errno| self.fail("rename", source, errno))
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), NvmeError> {
        retry_on_intr(|| rustix::fs::unlinkat(&self.handle, name, AtFlags::empty()))
            .map_err(|errno| self.fail("remove", name, errno))
    }

    /// The names of regular files that a volume can name, sorted.
    pub(super) fn list(&self) -> Result<Vec<FileName>, NvmeError> {
        let fail =
            |errno: Errno| NvmeError::from_io("list directory", self.location(), 0, errno.into());
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.handle).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_str().ok();
            let Some(name) = name.and_then(|name| FileName::new(name).ok()) else {
                continue;
            };
            let is_file = match entry.file_type() {
                FileType::RegularFile => true,
                // Some file systems do not say, and a link is what it points to.
                FileType::Unknown | FileType::Symlink => {
                    self.is_file(name.as_str()).unwrap_or(false)
                }
                _ => false,
            };
            if is_file {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    pub(super) fn sync(&self) -> Result<(), NvmeError> {
        rustix::fs::fsync(&self.handle)
            .map_err(|errno| NvmeError::from_io("sync directory", self.location(), 0, errno.into()))
    }

    pub(super) fn available_bytes(&self) -> Option<u64> {
        let status = rustix::fs::fstatvfs(&self.handle).ok()?;
        status.f_bavail.checked_mul(status.f_frsize)
    }
}

/// Reserves `len_bytes` of zeros in an empty file: by the file system, or by writing them.
pub(super) fn reserve(file: &File, len_bytes: u64) -> io::Result<()> {
    if len_bytes == 0 {
        return Ok(());
    }
    match retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len_bytes)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, len_bytes),
        outcome => Ok(outcome?),
    }
}

fn write_zeros(mut file: &File, len_bytes: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), len_bytes), &mut file).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_written_where_space_cannot_be_reserved() {
        let file = tempfile::tempfile().unwrap();
        write_zeros(&file, 300_001).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 300_001);
        let mut last = [1; 1];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut last, 300_000).unwrap();
        assert_eq!(last, [0]);
    }

    #[test]
    fn missing_directories_are_created_and_existing_ones_are_fine() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b/c");
        Directory::create(&deep).unwrap();
        Directory::create(&deep).unwrap();
        assert!(deep.is_dir());
        let file = root.path().join("file");
        std::fs::write(&file, b"x").unwrap();
        assert!(Directory::create(&file).is_err());
        assert!(Directory::create(&file.join("below")).is_err());
        assert!(matches!(
            Directory::open(&root.path().join("none")),
            Err(NvmeError::FileNotFound { .. })
        ));
    }
}
