//! A volume in memory that behaves as badly as a disk may, by a seed.
//!
//! What was not synced when the power fails is kept or lost sector by sector, in any combination and
//! order; creations, renames and removals likewise until the directory is synced. Space runs out,
//! reads, writes and syncs fail. The same seed and the same operations give the same outcome.
//!
//! ```
//! use tier_nvme::sim::SimVolume;
//! use tier_nvme::{NvmeStore, StorageConfig};
//!
//! let volume = SimVolume::new(42);
//! let config = StorageConfig::default().with_segment_bytes(1 << 20);
//! let store = NvmeStore::on_volume(volume.handle(), config.clone())?;
//! store.write_aligned("key", b"value")?;
//! volume.crash();
//! drop(store);
//! let store = NvmeStore::on_volume(volume.handle(), config)?;
//! assert_eq!(store.read_direct("key")?.as_deref(), Some(&b"value"[..]));
//! # Ok::<(), tier_nvme::NvmeError>(())
//! ```

mod disk;
mod file;
mod random;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disk::{DirectoryChange, Disk, LockState};
use file::SimFile;
pub use random::Random;

use crate::{
    Alignment, FileMode, FileName, NvmeError, Volume, VolumeFile, VolumeLock, VolumeReport,
};

/// Sectors tear at multiples of this many bytes.
pub const SECTOR_BYTES: usize = 512;

/// How often operations fail, in thousandths; everything else is the seed's choice.
#[derive(Debug, Clone, Copy, Default)]
pub struct FaultRates {
    /// Reads that fail.
    pub read_errors: u32,
    /// Writes that fail, with any of their sectors written.
    pub write_errors: u32,
    /// Syncs that fail, with any of the writes durable and the others silently forgotten.
    pub sync_errors: u32,
}

/// What of that which was not synced survives a power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// Everything.
    Everything,
    /// Each write and each change of the directory whole or not at all.
    ByWrite,
    /// Each sector and each change of the directory on its own.
    BySector,
}

/// What happened on a volume since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultCounts {
    /// Power losses.
    pub crashes: u64,
    /// Sectors that were not synced and survived a power loss.
    pub sectors_kept: u64,
    /// Sectors that were not synced and did not.
    pub sectors_lost: u64,
    /// Writes of which some sectors survived and some did not.
    pub writes_torn: u64,
    /// Changes of the directory that were not synced and survived.
    pub changes_kept: u64,
    /// Changes of the directory that were not synced and did not.
    pub changes_lost: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Syncs that failed.
    pub sync_errors: u64,
    /// Creations that failed for want of space.
    pub space_errors: u64,
}

/// A simulated disk with one directory; clones are the same disk.
#[derive(Clone)]
pub struct SimVolume {
    disk: Arc<Mutex<Disk>>,
    /// Power cycle in which this handle is good; after a crash, old handles reach nothing.
    cycle: u64,
}

impl SimVolume {
    /// An empty disk without a bound, whose choices follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            disk: Arc::new(Mutex::new(Disk::new(seed))),
            cycle: 0,
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The volume for a store to run on, good until the next crash.
    pub fn handle(&self) -> Arc<dyn Volume> {
        let cycle = self.disk().cycle;
        Arc::new(Self {
            disk: Arc::clone(&self.disk),
            cycle,
        })
    }

    /// Bounds the sizes of all files together, in bytes.
    pub fn set_capacity(&self, capacity_bytes: u64) {
        self.disk().capacity_bytes = capacity_bytes;
    }

    /// Sets how often operations fail from now on.
    pub fn set_faults(&self, rates: FaultRates) {
        self.disk().rates = rates;
    }

    /// Lets the power fail during the operation that follows `operations` more changes of the disk
    /// (writes, syncs, creations, renames, removals): it fails, half done, and so does everything after
    /// it until [`crash`](SimVolume::crash).
    pub fn fail_power_after(&self, operations: u64) {
        let mut disk = self.disk();
        disk.power_fails_at = Some(disk.operations + operations);
    }

    /// Number of changes of the disk so far.
    pub fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// Cuts the power and turns it on again: what was not synced is kept or lost by the seed, locks are
    /// gone, and handles from before reach nothing any more.
    pub fn crash(&self) {
        let mut disk = self.disk();
        let survival = disk.choose_survival();
        disk.crash(survival);
    }

    /// As [`crash`](SimVolume::crash), with the class of survivors given.
    pub fn crash_keeping(&self, survival: Survival) {
        self.disk().crash(survival);
    }

    /// Kills the process that has the volume open: its lock is given back, and its handles reach nothing
    /// any more, so that a store dropped after this does nothing. What was written stays written.
    pub fn kill(&self) {
        self.disk().kill();
    }

    /// What happened so far.
    pub fn counts(&self) -> FaultCounts {
        self.disk().counts
    }

    /// Names and sizes in bytes of the files.
    pub fn files(&self) -> Vec<(String, u64)> {
        self.disk().files()
    }

    /// Flips one bit of a file, where the file is that long; tells whether it did.
    pub fn flip_bit(&self, name: &str, bit_index: u64) -> bool {
        self.disk().flip_bit(name, bit_index)
    }

    /// A copy of the disk as it is, unlocked, running on by a seed of its own and with no power failure
    /// ahead.
    pub fn fork(&self, seed: u64) -> Self {
        let mut disk = self.disk().clone();
        disk.random = Random::new(seed);
        disk.lock = LockState::Free;
        disk.power_on();
        let cycle = disk.cycle;
        Self {
            disk: Arc::new(Mutex::new(disk)),
            cycle,
        }
    }

    /// Runs `change` on the disk if the power is on, after counting it as one operation.
    fn change<T>(
        &self,
        operation: &'static str,
        path: &str,
        change: impl FnOnce(&mut Disk) -> Result<T, NvmeError>,
    ) -> Result<T, NvmeError> {
        let mut disk = self.disk();
        disk.begin_change(self.cycle)
            .map_err(|error| NvmeError::from_io(operation, path, 0, error))?;
        change(&mut disk)
    }

    fn look<T>(
        &self,
        operation: &'static str,
        path: &str,
        look: impl FnOnce(&mut Disk) -> T,
    ) -> Result<T, NvmeError> {
        let mut disk = self.disk();
        disk.check_power(self.cycle)
            .map_err(|error| NvmeError::from_io(operation, path, 0, error))?;
        Ok(look(&mut disk))
    }

    fn take_lock(
        &self,
        take: impl FnOnce(LockState) -> Option<LockState>,
    ) -> Result<Box<dyn VolumeLock>, NvmeError> {
        let taken = self.look("lock", "directory", |disk| {
            let after = take(disk.lock);
            disk.lock = after.unwrap_or(disk.lock);
            after
        })?;
        if taken.is_some() {
            return Ok(Box::new(SimLock(self.clone())));
        }
        Err(NvmeError::Locked {
            path: "simulated volume".to_owned(),
            holder_pid: None,
        })
    }

    fn file(&self, name: &FileName, inode: u64) -> Arc<dyn VolumeFile> {
        Arc::new(SimFile::new(self.clone(), name.clone(), inode))
    }
}

impl fmt::Debug for SimVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimVolume")
            .field("cycle", &self.cycle)
            .finish_non_exhaustive()
    }
}

const ALIGNMENT: Alignment = Alignment {
    memory_bytes: SECTOR_BYTES,
    offset_bytes: 4096,
};

fn not_found(name: &FileName) -> NvmeError {
    NvmeError::FileNotFound {
        path: name.to_string(),
    }
}

impl Volume for SimVolume {
    fn report(&self) -> VolumeReport {
        VolumeReport {
            location: "simulated volume".to_owned(),
            engine: "simulated",
            engine_reason: None,
            mode: FileMode::Direct,
            alignment: ALIGNMENT,
        }
    }

    fn create(&self, name: &FileName, len_bytes: u64) -> Result<Arc<dyn VolumeFile>, NvmeError> {
        let inode = self.change("create", name.as_str(), |disk| {
            if disk.lookup(name.as_str()).is_some() {
                return Err(NvmeError::FileExists {
                    path: name.to_string(),
                });
            }
            if !disk.reserve(len_bytes) {
                let error = io::Error::from(io::ErrorKind::StorageFull);
                return Err(NvmeError::from_io(
                    "create",
                    name.as_str(),
                    len_bytes,
                    error,
                ));
            }
            Ok(disk.create(name.as_str(), len_bytes))
        })?;
        Ok(self.file(name, inode))
    }

    fn open(&self, name: &FileName) -> Result<Arc<dyn VolumeFile>, NvmeError> {
        let inode = self.look("open", name.as_str(), |disk| disk.lookup(name.as_str()))?;
        inode
            .map(|inode| self.file(name, inode))
            .ok_or_else(|| not_found(name))
    }

    fn rename(&self, source: &FileName, target: &FileName) -> Result<(), NvmeError> {
        self.change("rename", source.as_str(), |disk| {
            let inode = disk
                .lookup(source.as_str())
                .ok_or_else(|| not_found(source))?;
            disk.change_directory(DirectoryChange::Rename {
                source: source.to_string(),
                target: target.to_string(),
                inode,
            });
            Ok(())
        })
    }

    fn remove(&self, name: &FileName) -> Result<(), NvmeError> {
        self.change("remove", name.as_str(), |disk| {
            disk.lookup(name.as_str()).ok_or_else(|| not_found(name))?;
            disk.change_directory(DirectoryChange::Remove {
                name: name.to_string(),
            });
            Ok(())
        })
    }

    fn list(&self) -> Result<Vec<FileName>, NvmeError> {
        let files = self.look("list", "directory", |disk| disk.files())?;
        files
            .into_iter()
            .map(|(name, _)| FileName::new(name))
            .collect()
    }

    fn lock(&self) -> Result<Box<dyn VolumeLock>, NvmeError> {
        self.take_lock(|state| match state {
            LockState::Free => Some(LockState::Alone),
            LockState::Alone | LockState::Readers(_) => None,
        })
    }

    fn lock_shared(&self) -> Result<Box<dyn VolumeLock>, NvmeError> {
        self.take_lock(|state| match state {
            LockState::Free => Some(LockState::Readers(1)),
            LockState::Readers(count) => Some(LockState::Readers(count + 1)),
            LockState::Alone => None,
        })
    }

    fn sync_directory(&self) -> Result<(), NvmeError> {
        self.change("sync", "directory", |disk| {
            disk.sync_directory()
                .map_err(|error| NvmeError::from_io("sync", "directory", 0, error))
        })
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn unique_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        self.disk().random.fill(&mut id);
        id
    }

    fn available_bytes(&self) -> Option<u64> {
        let disk = self.disk();
        Some(disk.capacity_bytes.saturating_sub(disk.used_bytes()))
    }
}

#[derive(Debug)]
struct SimLock(SimVolume);

impl VolumeLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = self.0.disk();
        if disk.cycle == self.0.cycle {
            disk.lock = match disk.lock {
                LockState::Readers(count @ 2..) => LockState::Readers(count - 1),
                _ => LockState::Free,
            };
        }
    }
}
