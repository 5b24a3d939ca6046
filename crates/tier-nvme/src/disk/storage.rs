//! A region of a disk.

use std::fmt;
#[cfg(target_os = "linux")]
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use core_alloc::{Storage, StorageError, StorageMemset, StorageType};
use core_view::BufferMut;
use core_view::contract::{ContractError, ErrorKind, Failure, Transfer};

#[cfg(target_os = "linux")]
use super::DiskAllocator;
use super::error::not_allocated;
use super::memset;
use crate::{Alignment, NvmeError, Volume, VolumeFile};

/// Regions that were ever made in this process.
static REGIONS: AtomicU64 = AtomicU64::new(0);

/// A region of fixed size on a disk, read and written by transfers.
///
/// It is scratch space: a file without a name, all zero at first, with its space reserved, so that no write
/// runs out of it. Nothing survives a drop, nor the process: the space is free again once the region is
/// dropped and its last transfer is done. What is to survive belongs into an
/// [`NvmeStore`](crate::NvmeStore). The number in [`StorageType::Disk`] tells the regions of one process
/// apart, and has no meaning beyond it.
///
/// A region has no address: the host reaches its bytes through [`read`](DiskStorage::read) and
/// [`write`](DiskStorage::write) alone. Transfers that overlap take effect in any order.
///
/// ```
/// use core_alloc::{Storage, StorageMemset};
/// use core_view::BufferMut;
/// use tier_nvme::DiskStorage;
///
/// let directory = tempfile::tempdir()?;
/// let mut region = DiskStorage::new(directory.path(), 1 << 20)?;
/// region.memset(7, 100, 5000)?;
/// let write = region.write(8192, BufferMut::zeroed(4096, 4096)?);
/// let buffer = write.wait()?;
/// let first = region.read(0, buffer).wait()?;
/// assert_eq!((first[99], first[100], region.size()), (0, 7, 1 << 20));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DiskStorage {
    region: u64,
    size: usize,
    file: Arc<dyn VolumeFile>,
    /// Whose engine does the work.
    volume: Arc<dyn Volume>,
}

impl DiskStorage {
    /// A region of `size` bytes on the file system of the directory `path`, which is created if it is
    /// missing. Regions in one directory share an engine.
    ///
    /// # Errors
    /// [`StorageError::InvalidConfig`] for a size of zero or above `isize::MAX`, and if `path` is no
    /// directory in which files can be made; [`StorageError::AllocationFailed`] if the disk is full,
    /// with what is left, or the device fails.
    #[cfg(target_os = "linux")]
    pub fn new(path: impl AsRef<Path>, size: usize) -> Result<Self, StorageError> {
        use core_alloc::StorageAllocator;
        DiskAllocator::new(path).allocate(size)
    }

    /// A region on a volume; the size was checked.
    pub(super) fn on_volume(volume: &Arc<dyn Volume>, size: usize) -> Result<Self, StorageError> {
        let unit = volume.report().alignment.offset_bytes as u64;
        let refused = |error| not_allocated(Some(&**volume), size, error);
        let too_long = || NvmeError::NoSpace {
            operation: "create file",
            path: volume.report().location,
            requested_bytes: size as u64,
            available_bytes: None,
        };
        let len_bytes = (size as u64).checked_next_multiple_of(unit);
        let len_bytes = len_bytes
            .filter(|&bytes| i64::try_from(bytes).is_ok())
            .ok_or_else(|| refused(too_long()))?;
        let file = volume.create_unnamed(len_bytes).map_err(refused)?;
        Ok(Self {
            region: REGIONS.fetch_add(1, Ordering::Relaxed),
            size,
            file,
            volume: Arc::clone(volume),
        })
    }

    /// What offsets, lengths and addresses of transfers must be multiples of. A region whose size is none
    /// can be read and written up to the next multiple.
    pub fn alignment(&self) -> Alignment {
        self.file.alignment()
    }

    fn check(
        &self,
        operation: &'static str,
        offset_bytes: u64,
        buffer: BufferMut,
    ) -> Result<BufferMut, Failure> {
        let end = offset_bytes.checked_add(buffer.len() as u64);
        if end.is_some_and(|end| end <= self.padded_bytes()) {
            return Ok(buffer);
        }
        let detail = format!(
            "{} bytes at offset {offset_bytes} are not within the {} bytes of disk region {}",
            buffer.len(),
            self.size,
            self.region
        );
        let error = ContractError::new(ErrorKind::InvalidInput, operation).detail(detail);
        Err(Failure::new(error, vec![buffer]))
    }

    /// The size, up to what can be written at once.
    pub(super) fn padded_bytes(&self) -> u64 {
        (self.size as u64).next_multiple_of(self.alignment().offset_bytes as u64)
    }

    pub(super) fn region(&self) -> u64 {
        self.region
    }

    pub(super) fn file(&self) -> &dyn VolumeFile {
        &*self.file
    }

    /// Fills `target` from `offset_bytes`. Buffer and region stay alive until it is done, whatever is
    /// dropped.
    pub fn read(&self, offset_bytes: u64, target: BufferMut) -> Transfer<BufferMut> {
        match self.check("read disk region", offset_bytes, target) {
            Ok(target) => self.file.read(offset_bytes, target),
            Err(failure) => Transfer::ready(Err(failure)),
        }
    }

    /// Writes all of `source` at `offset_bytes`.
    pub fn write(&self, offset_bytes: u64, source: BufferMut) -> Transfer<BufferMut> {
        match self.check("write disk region", offset_bytes, source) {
            Ok(source) => self.file.write(offset_bytes, source),
            Err(failure) => Transfer::ready(Err(failure)),
        }
    }

    /// Waits until the device has everything that was written before; a region does not survive for that.
    pub fn flush(&self) -> Transfer<()> {
        self.file.sync()
    }
}

impl Storage for DiskStorage {
    fn storage_type(&self) -> StorageType {
        StorageType::Disk(self.region)
    }

    fn size(&self) -> usize {
        self.size
    }

    fn as_memset(&mut self) -> Option<&mut dyn StorageMemset> {
        Some(self)
    }
}

impl StorageMemset for DiskStorage {
    /// Writes the range, and waits for it; the units that it covers in part are read first.
    fn memset(&mut self, value: u8, offset: usize, len: usize) -> Result<(), StorageError> {
        memset::memset(self, value, offset, len)
    }
}

impl fmt::Debug for DiskStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStorage")
            .field("region", &self.region)
            .field("size", &self.size)
            .field("volume", &self.volume)
            .finish()
    }
}
