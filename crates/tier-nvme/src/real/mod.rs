//! The real volume: a directory of a file system.

mod directory;
mod file;
mod ladder;
mod lock;
mod map;
mod notice;
mod options;
mod probe;
#[cfg(feature = "bench")]
mod raw;
mod straggler;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::engine::{Engine, EngineStatistics, OpenFile};
use crate::volume::create_and_remove;
use crate::{
    Alignment, FileMode, FileName, NvmeError, Volume, VolumeFile, VolumeLock, VolumeReport,
};
use directory::Directory;
use file::RealFile;
pub use options::{EngineChoice, VolumeOptions};
#[cfg(feature = "bench")]
pub use raw::{ProcessUsage, RawFile};

/// A directory of a file system, read and written past the page cache where that is possible.
///
/// What it has to do without is in its report, and said once for each reason by the `log` facade, as a warning.
///
/// ```
/// use core_view::BufferMut;
/// use tier_nvme::{FileName, RealVolume, Volume, VolumeOptions};
///
/// let directory = tempfile::tempdir()?;
/// let volume = RealVolume::open(directory.path(), VolumeOptions::default())?;
/// let file = volume.create(&FileName::new("segment-1")?, 1 << 20)?;
/// let mut source = BufferMut::zeroed(4096, 4096)?;
/// source.fill(7);
/// let buffer = file.write(8192, source).wait()?;
/// file.sync().wait()?;
/// let target = file.read_blocking(8192, buffer)?;
/// assert!(target.iter().all(|&byte| byte == 7));
/// println!("{:?}", volume.report());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RealVolume {
    directory: Directory,
    engine: Arc<dyn Engine>,
    engine_reason: Option<String>,
    mode: FileMode,
    alignment: Alignment,
    read_only: Option<String>,
}

impl RealVolume {
    /// Opens an existing directory.
    ///
    /// What it allows is found out by writing and reading a file of a moment, or by reading where
    /// nothing can be written; a directory that can't be written is opened for reading.
    ///
    /// # Errors
    /// [`NvmeError::Invalid`] for options out of range, [`NvmeError::FileNotFound`],
    /// [`NvmeError::Io`] if `path` is not a directory or the device fails.
    pub fn open(path: impl AsRef<Path>, options: VolumeOptions) -> Result<Self, NvmeError> {
        options.check()?;
        let directory = Directory::open(path.as_ref())?;
        let probed = probe::probe(&directory, &options)?;
        if probed.read_only.is_none() {
            // What an earlier process created or renamed is visible, and must not vanish any more.
            directory.sync()?;
        }
        let chosen = ladder::choose(&options, &probed.mode, &directory.location())?;
        if options.direct_io {
            notice::say_mode(&probed.mode, &directory.location());
        }
        if chosen.is_fallback {
            notice::say_engine(chosen.reason.as_deref(), &directory.location());
        }
        Ok(Self {
            directory,
            engine: chosen.engine,
            engine_reason: chosen.reason,
            mode: probed.mode,
            alignment: probed.alignment,
            read_only: probed.read_only,
        })
    }

    /// Creates the directory and those above it where they are missing, durably, and opens it.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`NvmeError::ReadOnly`] and [`NvmeError::NoSpace`] if it can't be
    /// created.
    pub fn create(path: impl AsRef<Path>, options: VolumeOptions) -> Result<Self, NvmeError> {
        options.check()?;
        Directory::create(path.as_ref())?;
        Self::open(path, options)
    }

    /// What the engine has done.
    pub fn statistics(&self) -> EngineStatistics {
        self.engine.statistics()
    }

    fn check_writable(&self, name: &FileName) -> Result<(), NvmeError> {
        match &self.read_only {
            None => Ok(()),
            Some(reason) => Err(NvmeError::ReadOnly {
                path: self.directory.path_of(name.as_str()),
                reason: reason.clone(),
            }),
        }
    }

    fn open_file(&self, name: &FileName) -> Result<Arc<dyn VolumeFile>, NvmeError> {
        let path = self.directory.path_of(name.as_str());
        let fail = |error| NvmeError::from_io("open file", &*path, 0, error);
        let flags = match self.read_only {
            None => OFlags::RDWR,
            Some(_) => OFlags::RDONLY,
        };
        let file = self
            .directory
            .open_entry(name.as_str(), flags | self.mode_flags())
            .map_err(fail)?;
        if self.read_only.is_none() {
            // What a process that is gone wrote may be in memory only; whoever reads it now must be
            // able to rely on it.
            file.sync_all().map_err(fail)?;
        }
        Ok(self.engage(file, name.clone(), path))
    }

    fn mode_flags(&self) -> OFlags {
        match self.mode {
            FileMode::Direct => OFlags::DIRECT,
            FileMode::Buffered { .. } => OFlags::empty(),
        }
    }

    /// An open file whose operations the engine carries out.
    fn engage(&self, file: File, name: FileName, path: String) -> Arc<dyn VolumeFile> {
        let open_file = OpenFile {
            file,
            name,
            path,
            alignment: self.alignment,
            #[cfg(test)]
            interference: None,
        };
        let engine = Arc::clone(&self.engine);
        let writable = self.read_only.is_none();
        Arc::new(RealFile::new(open_file, engine, writable))
    }

    /// Creates a file and reserves its space.
    fn fill_new(&self, name: &FileName, len_bytes: u64) -> Result<(), NvmeError> {
        let path = self.directory.path_of(name.as_str());
        let fail = |error| NvmeError::from_io("create file", &*path, len_bytes, error);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file = self
            .directory
            .open_entry(name.as_str(), flags)
            .map_err(fail)?;
        directory::reserve(&file, len_bytes).map_err(|error| {
            // Nothing may be left behind; that the removal fails, too, says nothing new.
            let _ = self.directory.remove(name.as_str());
            fail(error)
        })
    }
}

impl Volume for RealVolume {
    fn report(&self) -> VolumeReport {
        VolumeReport {
            location: self.directory.location(),
            engine: self.engine.name(),
            engine_reason: self.engine_reason.clone(),
            mode: self.mode.clone(),
            alignment: self.alignment,
        }
    }

    fn create(&self, name: &FileName, len_bytes: u64) -> Result<Arc<dyn VolumeFile>, NvmeError> {
        self.check_writable(name)?;
        if i64::try_from(len_bytes).is_err() {
            return Err(NvmeError::Invalid {
                field: "len_bytes",
                reason: format!("{len_bytes} bytes are more than a file can have"),
            });
        }
        self.fill_new(name, len_bytes)?;
        self.open_file(name).inspect_err(|_| {
            // The caller has no file then, so that none may be there.
            let _ = self.directory.remove(name.as_str());
        })
    }

    fn create_unnamed(&self, len_bytes: u64) -> Result<Arc<dyn VolumeFile>, NvmeError> {
        let name = FileName::new("unnamed")?;
        self.check_writable(&name)?;
        let flags = OFlags::RDWR | OFlags::TMPFILE | self.mode_flags();
        let Ok(file) = self.directory.open_entry(".", flags) else {
            // Not every file system has files without a name; what else is wrong shows with a name too.
            return create_and_remove(self, len_bytes);
        };
        let path = self.directory.path_of("(unnamed)");
        directory::reserve(&file, len_bytes)
            .map_err(|error| NvmeError::from_io("create file", &*path, len_bytes, error))?;
        Ok(self.engage(file, name, path))
    }

    fn open(&self, name: &FileName) -> Result<Arc<dyn VolumeFile>, NvmeError> {
        let path = || self.directory.path_of(name.as_str());
        let is_file = self
            .directory
            .is_file(name.as_str())
            .map_err(|error| NvmeError::from_io("open file", path(), 0, error))?;
        if !is_file {
            return Err(NvmeError::Invalid {
                field: "file name",
                reason: format!("{} is not a regular file", path()),
            });
        }
        self.open_file(name)
    }

    fn rename(&self, source: &FileName, target: &FileName) -> Result<(), NvmeError> {
        self.check_writable(source)?;
        self.directory.rename(source.as_str(), target.as_str())
    }

    fn remove(&self, name: &FileName) -> Result<(), NvmeError> {
        self.check_writable(name)?;
        self.directory.remove(name.as_str())
    }

    fn list(&self) -> Result<Vec<FileName>, NvmeError> {
        self.directory.list()
    }

    fn settle(&self, name: &FileName) -> Result<(), NvmeError> {
        let path = self.directory.path_of(name.as_str());
        let file = self
            .directory
            .open_entry(name.as_str(), OFlags::RDONLY)
            .map_err(|error| NvmeError::from_io("open file", &*path, 0, error))?;
        straggler::settle(&file, &path)
    }

    fn lock(&self) -> Result<Box<dyn VolumeLock>, NvmeError> {
        if let Some(reason) = &self.read_only {
            return Err(NvmeError::ReadOnly {
                path: self.directory.location(),
                reason: reason.clone(),
            });
        }
        let lock = lock::take(&self.directory)?;
        lock::invite_readers(&self.directory)?;
        Ok(Box::new(lock))
    }

    fn lock_reading(&self) -> Option<Box<dyn VolumeLock>> {
        Some(Box::new(lock::take_reading(&self.directory)?))
    }

    fn keep_readers_out(&self) -> Option<Box<dyn VolumeLock>> {
        Some(Box::new(lock::keep_readers_out(&self.directory)?))
    }

    fn lock_shared(&self) -> Result<Box<dyn VolumeLock>, NvmeError> {
        let make = self.read_only.is_none();
        Ok(Box::new(lock::take_shared(&self.directory, make)?))
    }

    fn sync_directory(&self) -> Result<(), NvmeError> {
        self.directory.sync()
    }

    fn is_writable(&self) -> bool {
        self.read_only.is_none()
    }

    fn available_bytes(&self) -> Option<u64> {
        self.directory.available_bytes()
    }
}
