//! Hands out regions of a disk.

#[cfg(target_os = "linux")]
use std::collections::BTreeMap;
#[cfg(target_os = "linux")]
use std::path::{Path, PathBuf};
use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::sync::{Mutex, PoisonError, Weak};

use core_alloc::{Request, StorageAllocator, StorageError, StorageType, Uninit};

use super::DiskStorage;
#[cfg(target_os = "linux")]
use super::error::not_allocated;
use crate::Volume;
#[cfg(target_os = "linux")]
use crate::{RealVolume, VolumeOptions};

/// The directories in which regions live, and their engines.
#[cfg(target_os = "linux")]
static VOLUMES: Mutex<BTreeMap<PathBuf, Weak<RealVolume>>> = Mutex::new(BTreeMap::new());

/// Hands out [`DiskStorage`]: regions on the file system of one directory, served by one engine.
///
/// It composes with every adaptor of `core_alloc`. Making it touches nothing; the directory is opened, and
/// created if it is missing, when the first region is asked for. Regions outlive it.
///
/// ```
/// use core_alloc::{Limit, Pool, Storage, StorageAllocator, StorageType};
/// use tier_nvme::DiskAllocator;
///
/// let directory = tempfile::tempdir()?;
/// let pool = Pool::new(Limit::new(DiskAllocator::new(directory.path()), 64 << 20))?;
/// let region = pool.allocate(1 << 20)?;
/// assert!(matches!(region.storage_type(), StorageType::Disk(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct DiskAllocator {
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    #[cfg(target_os = "linux")]
    Directory {
        path: PathBuf,
        options: VolumeOptions,
        /// Once it was needed; kept, so that the engine does not come and go with the regions.
        opened: Arc<Mutex<Option<Arc<RealVolume>>>>,
    },
    Volume(Arc<dyn Volume>),
}

impl DiskAllocator {
    /// Regions on the file system of the directory `path`.
    #[cfg(target_os = "linux")]
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self::with_options(path, VolumeOptions::default())
    }

    /// As [`new`](DiskAllocator::new), with the engine chosen; where other regions in that directory have
    /// an engine already, they share theirs.
    #[cfg(target_os = "linux")]
    pub fn with_options(path: impl AsRef<Path>, options: VolumeOptions) -> Self {
        Self {
            place: Place::Directory {
                path: path.as_ref().to_owned(),
                options,
                opened: Arc::default(),
            },
        }
    }

    /// Regions on a volume, a simulated one for example.
    pub fn on_volume(volume: Arc<dyn Volume>) -> Self {
        Self {
            place: Place::Volume(volume),
        }
    }

    fn volume(&self, requested_bytes: usize) -> Result<Arc<dyn Volume>, StorageError> {
        match &self.place {
            Place::Volume(volume) => Ok(Arc::clone(volume)),
            #[cfg(target_os = "linux")]
            Place::Directory {
                path,
                options,
                opened,
            } => {
                let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(volume) = &*opened {
                    return Ok(Arc::clone(volume) as _);
                }
                let volume = shared_volume(path, options)
                    .map_err(|error| not_allocated(None, requested_bytes, error))?;
                Ok(Arc::clone(opened.insert(volume)) as _)
            }
        }
    }
}

/// The volume that regions in this directory share.
#[cfg(target_os = "linux")]
fn shared_volume(
    path: &Path,
    options: &VolumeOptions,
) -> Result<Arc<RealVolume>, crate::NvmeError> {
    let absolute = std::path::absolute(path).map_err(|error| {
        crate::NvmeError::from_io("resolve", path.display().to_string(), 0, error)
    })?;
    let mut volumes = VOLUMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(volume) = volumes.get(&absolute).and_then(Weak::upgrade) {
        return Ok(volume);
    }
    let volume = Arc::new(RealVolume::create(&absolute, options.clone())?);
    volumes.retain(|_, volume| volume.strong_count() > 0);
    volumes.insert(absolute, Arc::downgrade(&volume));
    Ok(volume)
}

impl StorageAllocator<DiskStorage> for DiskAllocator {
    fn storage_type(&self) -> StorageType {
        StorageType::Disk(0)
    }

    fn request(&self, request: Request) -> Result<Uninit<DiskStorage>, StorageError> {
        let size = request.size();
        let storage = DiskStorage::on_volume(&self.volume(size)?, size)?;
        // SAFETY: a volume creates files all zero, and nobody else can reach one without a name.
        Ok(unsafe { Uninit::new_zeroed(storage) })
    }
}
