//! Memory-mapped files.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};

use crate::{Access, BufferOwner, TensorStorage, ViewError};

/// A read-only map with the file that it shows; the file's lock goes with it.
struct MapOwner {
    _map: Mmap,
    _file: File,
}

// SAFETY: a map stays at its address until it is dropped, and it is never written through here. That
// nobody else changes the file is what the constructors' callers or the lock's users promise.
unsafe impl BufferOwner for MapOwner {
    fn access(&self) -> Access {
        Access::ReadOnly
    }
}

impl TensorStorage {
    /// Maps a file for reading under a shared lock, without reading it.
    ///
    /// The lock (`flock`) is held as long as any view lives. Whoever takes an exclusive lock before writing,
    /// as every writer of this project does, can't change the file meanwhile; readers share it.
    ///
    /// The lock is advisory: a program that ignores it can still write to the file, which the views would
    /// show, or truncate it, after which touching a page past the new end kills the process with a bus error.
    /// Replacing the file by a rename is safe: the views keep the old one.
    ///
    /// # Errors
    /// [`ViewError::FileLocked`] if somebody holds the file locked for writing, [`ViewError::File`] if it
    /// can't be opened, locked or mapped.
    pub fn map_file(path: impl AsRef<Path>) -> Result<Self, ViewError> {
        let path = path.as_ref();
        let file = open(path)?;
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ViewError::FileLocked { path: path.into() });
            }
            Err(TryLockError::Error(source)) => {
                return Err(ViewError::File {
                    operation: "lock",
                    path: path.into(),
                    source,
                });
            }
        }
        map(file, path)
    }

    /// Maps a file for reading without a lock, for file systems that have none.
    ///
    /// # Safety
    /// Nobody may write to the file or truncate it while any view of it lives: views hand out `&[u8]`, whose
    /// bytes must not change, and a page past the end of a truncated file can't be touched.
    ///
    /// # Errors
    /// [`ViewError::File`] if it can't be opened or mapped.
    pub unsafe fn map_file_unlocked(path: impl AsRef<Path>) -> Result<Self, ViewError> {
        let path = path.as_ref();
        map(open(path)?, path)
    }
}

fn open(path: &Path) -> Result<File, ViewError> {
    File::open(path).map_err(|source| ViewError::File {
        operation: "open",
        path: path.into(),
        source,
    })
}

fn map(file: File, path: &Path) -> Result<TensorStorage, ViewError> {
    let failed = |source| ViewError::File {
        operation: "map",
        path: path.into(),
        source,
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("not a regular file")));
    }
    // SAFETY: the lock or the caller of the unlocked constructor keeps writers away while the map lives.
    let map = unsafe { MmapOptions::new().map(&file) }.map_err(failed)?;
    let pointer = NonNull::new(map.as_ptr().cast_mut()).unwrap_or(NonNull::dangling());
    let len = map.len();
    let owner = Arc::new(MapOwner {
        _map: map,
        _file: file,
    });
    // SAFETY: the map is `len` readable bytes at `pointer` for as long as the owner lives, which is
    // read-only.
    Ok(unsafe { TensorStorage::from_owner(pointer, len, owner) })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file_with(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_map_is_read_only_and_locks_its_file_until_the_last_view_is_gone() {
        let file = file_with(&[1, 2, 3, 4]);
        let mut storage = TensorStorage::map_file(file.path()).unwrap();
        let view = storage.view(1, 2).unwrap();
        assert_eq!(
            (storage.as_slice(), view.as_slice()),
            (&[1, 2, 3, 4][..], &[2, 3][..])
        );
        let second = TensorStorage::map_file(file.path()).unwrap();
        assert!(matches!(
            file.as_file().try_lock(),
            Err(TryLockError::WouldBlock)
        ));
        drop((view, second));
        assert!(matches!(storage.get_mut(), Err(ViewError::ReadOnly)));
        let storage = storage.try_into_unique().unwrap_err();
        let mut copy = storage.clone();
        copy.make_mut().unwrap()[0] = 9;
        assert_eq!((copy.as_slice()[0], storage.as_slice()[0]), (9, 1));
        assert!(file.as_file().try_lock().is_err());
        drop(storage);
        file.as_file().try_lock().unwrap();
        assert!(matches!(
            TensorStorage::map_file(file.path()),
            Err(ViewError::FileLocked { .. })
        ));
    }

    #[test]
    fn a_map_outlives_the_name_of_its_file() {
        let file = file_with(&[7; 5000]);
        // SAFETY: nobody writes to the file.
        let storage = unsafe { TensorStorage::map_file_unlocked(file.path()) }.unwrap();
        file.as_file().try_lock().unwrap();
        drop(file);
        assert!(storage.as_slice().iter().all(|&byte| byte == 7));
    }

    #[test]
    fn empty_missing_and_odd_files_are_handled() {
        let storage = TensorStorage::map_file(file_with(&[]).path()).unwrap();
        assert!(storage.is_empty() && storage.as_slice().is_empty());
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            TensorStorage::map_file(folder.path()),
            Err(ViewError::File {
                operation: "map",
                ..
            })
        ));
        let error = TensorStorage::map_file(folder.path().join("absent")).unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
    }
}
