//! A durable map from keys to values on a volume.

mod background;
mod batch;
mod body;
mod buffers;
mod bulk;
mod cache;
mod checked;
mod checkpoint;
mod commit;
mod compaction;
mod config;
mod create;
mod encoding;
mod fetch;
mod filler;
mod group;
mod index;
mod index_memory;
mod key;
mod load;
mod log;
mod maintenance;
mod map;
mod memory;
mod overlap;
mod pieces;
mod pin;
mod prefetch;
mod read;
mod read_async;
mod read_many;
mod recovery;
mod replay;
mod reserve;
mod retirement;
mod scan;
mod scrub;
mod shard;
mod snapshot;
mod spare;
mod stats;
mod stream;
mod verify;

use std::fmt;
use std::io::ErrorKind;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use core_view::contract::{ContractError, Failure, Transfer};
use core_view::{BufferMut, TensorStorage};

pub use batch::WriteBatch;
pub use cache::CacheStats;
pub use checked::CheckedValue;
pub use compaction::CompactionReport;
pub use config::{CommitStage, StorageConfig, StorageConfigBuilder};
pub use encoding::CompressionType;
pub use maintenance::BackgroundStep;
pub use map::{MapOrigin, MappedValue};
pub use memory::{MemoryKind, MemoryStats};
pub use prefetch::PrefetchStats;
pub use recovery::RecoveryReport;
pub use scrub::{VerifyOptions, VerifyPosition};
pub use stats::StoreStats;
pub use verify::{Damage, VerifyReport};

use crate::format::StoreId;
use crate::{Alignment, NvmeError, Volume, VolumeLock};
#[cfg(target_os = "linux")]
use crate::{RealVolume, VolumeOptions};
use background::Background;
use buffers::Buffers;
use cache::Cache;
use compaction::Lull;
use group::{CommitQueue, Paused};
use index::Index;
use index_memory::IndexMemory;
use log::{Log, Segments};
use maintenance::Maintenance;
use memory::Reservation;
use overlap::Committers;
use prefetch::Prefetcher;
use reserve::Reserve;
use spare::Spares;

/// A durable, checksummed store of values under keys, on one directory.
///
/// A write is on the device when the call returns; a read gives the bytes of the newest acknowledged
/// write, or an error. Writers on several threads share one sync. All methods take `&self`.
///
/// ```
/// use tier_nvme::sim::SimVolume;
/// use tier_nvme::{NvmeStore, StorageConfig, WriteBatch};
///
/// let config = StorageConfig::default().with_segment_bytes(1 << 20);
/// let store = NvmeStore::on_volume(SimVolume::new(1).handle(), config)?;
/// store.write_aligned("weights", &[1, 2, 3])?;
/// store.write_batch(WriteBatch::new().put("a", vec![4]).put("b", vec![5]).delete("weights"))?;
/// assert_eq!(store.read_direct("a")?.as_deref(), Some(&[4][..]));
/// assert!(store.read_direct("weights")?.is_none());
/// store.close()?;
/// # Ok::<(), tier_nvme::NvmeError>(())
/// ```
pub struct NvmeStore {
    shared: Arc<Shared>,
    committers: Committers,
}

/// What reads and commits work on.
struct Shared {
    volume: Arc<dyn Volume>,
    config: StorageConfig,
    /// The volume's; it does not change while the volume is open.
    alignment: Alignment,
    store_id: StoreId,
    segment_bytes: u64,
    /// What tells the batches of this opening from what an earlier one left behind.
    life: u64,
    read_only: Option<String>,
    buffers: Buffers,
    /// What compaction and checkpoints have for themselves.
    _set_aside: [Reservation; 2],
    cache: Cache,
    prefetcher: Prefetcher,
    index: Index,
    index_memory: IndexMemory,
    segments: Segments,
    spares: Spares,
    log: Mutex<Log>,
    /// Bytes that the log has grown by since the newest checkpoint.
    log_bytes: AtomicU64,
    /// Incompatible features that the superblock names.
    features: AtomicU64,
    /// Taken before the log, never with it held.
    maintenance: Maintenance,
    background: Background,
    lull: Lull,
    reserve: Reserve,
    queue: CommitQueue,
    counters: stats::Counters,
    recovery: RecoveryReport,
    poison: Mutex<Option<String>>,
    /// Who changes the disk looks under the log's lock: closing takes it after setting this, and what
    /// comes after that must change nothing, because the directory may be another's.
    closed: AtomicBool,
    /// Held until the store and all maps of its segments are gone.
    lock: Mutex<Option<Arc<dyn VolumeLock>>>,
    /// Keeps who writes the store beside this one from writing what this one reads.
    _reading: Option<Box<dyn VolumeLock>>,
}

impl Shared {
    /// The log while no commit is under way: where it ends is what is synced and in the index.
    fn log(&self) -> QuietLog<'_> {
        let paused = self.pause();
        QuietLog {
            log: self.end_of_log(),
            _paused: paused,
        }
    }

    /// Where the next batch goes, whatever is under way.
    fn end_of_log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the store may have threads.
    fn has_threads(&self) -> bool {
        self.config.background() && self.volume.runs_threads()
    }

    fn check_open(&self) -> Result<(), NvmeError> {
        if self.closed.load(Ordering::Acquire) {
            Err(NvmeError::Closed)
        } else {
            Ok(())
        }
    }

    fn check_writable(&self) -> Result<(), NvmeError> {
        match &self.read_only {
            Some(reason) => Err(NvmeError::ReadOnly {
                path: self.volume.report().location,
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }

    fn check_poison(&self) -> Result<(), NvmeError> {
        let poison = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
        match &*poison {
            Some(reason) => Err(NvmeError::Poisoned {
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }

    fn poison(&self, error: &NvmeError) {
        let mut poison = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
        poison.get_or_insert_with(|| error.to_string());
    }
}

/// The log, and the right to be alone with it.
struct QuietLog<'a> {
    // Given back first.
    log: MutexGuard<'a, Log>,
    _paused: Paused<'a>,
}

impl Deref for QuietLog<'_> {
    type Target = Log;

    fn deref(&self) -> &Log {
        &self.log
    }
}

impl DerefMut for QuietLog<'_> {
    fn deref_mut(&mut self) -> &mut Log {
        &mut self.log
    }
}

impl NvmeStore {
    /// Opens the store in the directory `path`, or makes one if there is none and the configuration
    /// allows it.
    ///
    /// # Errors
    /// As [`NvmeStore::on_volume`].
    #[cfg(target_os = "linux")]
    pub fn new(path: impl AsRef<Path>, config: StorageConfig) -> Result<Self, NvmeError> {
        config.check()?;
        let path = path.as_ref();
        let options = VolumeOptions::default()
            .with_io_depth(config.io_depth())
            .with_direct_io(config.direct_io())
            .with_read_only(config.read_only());
        let not_a_store = |reason: &str| NvmeError::NotAStore {
            path: path.display().to_string(),
            reason: reason.to_owned(),
        };
        let opened = if config.create() && !config.read_only() {
            RealVolume::create(path, options)
        } else {
            RealVolume::open(path, options)
        };
        let volume = opened.map_err(|error| match error {
            NvmeError::FileNotFound { .. } => not_a_store("it does not exist"),
            NvmeError::Io { source, .. } if source.kind() == ErrorKind::NotADirectory => {
                not_a_store("it is not a directory")
            }
            error => error,
        })?;
        Self::on_volume(Arc::new(volume), config)
    }

    /// Opens the store on `volume`, or makes one if the volume is empty and the configuration allows it.
    ///
    /// # Errors
    /// [`NvmeError::Locked`], [`NvmeError::NotAStore`], [`NvmeError::NewerVersion`],
    /// [`NvmeError::UnknownFeatures`], [`NvmeError::Corrupt`] if what was acknowledged can't be had back
    /// whole, [`NvmeError::NoSpace`], [`NvmeError::Io`].
    pub fn on_volume(volume: Arc<dyn Volume>, config: StorageConfig) -> Result<Self, NvmeError> {
        let shared = Arc::new(recovery::open(volume, config)?);
        if shared.has_threads() && shared.read_only.is_none() {
            Background::start(&shared);
        }
        Ok(Self {
            shared,
            committers: Committers::default(),
        })
    }

    /// Memory of `len_bytes` that starts on a page, of any contents: a value that is built in it and
    /// put at its full length goes to the device without a copy. It counts against the memory limit until
    /// it is dropped.
    ///
    /// # Errors
    /// [`NvmeError::MemoryLimit`].
    pub fn buffer(&self, len_bytes: usize) -> Result<BufferMut, NvmeError> {
        let mut buffer = self.shared.lend(MemoryKind::Buffers, len_bytes)?;
        drop(buffer.split_off(len_bytes));
        Ok(buffer)
    }

    /// Stores `data` under `key`, durably; the data is copied once into aligned memory.
    ///
    /// # Errors
    /// As [`NvmeStore::write_batch`].
    pub fn write_aligned(&self, key: impl AsRef<[u8]>, data: &[u8]) -> Result<(), NvmeError> {
        self.shared.write_copy(key.as_ref(), data)
    }

    /// Applies a batch, all of it or nothing; it is durable when this returns.
    ///
    /// # Errors
    /// [`NvmeError::Invalid`] for a key that is empty or longer than 1024 bytes or a batch that does not
    /// fit a segment; [`NvmeError::NoSpace`], with nothing changed; [`NvmeError::ReadOnly`];
    /// [`NvmeError::Poisoned`] after a failed write or sync, until the store is reopened; the failure
    /// itself as [`NvmeError::Transfer`], which leaves it unknown whether the batch is there
    /// after reopening.
    pub fn write_batch(&self, batch: WriteBatch) -> Result<(), NvmeError> {
        self.shared.check_open()?;
        self.shared.write_batch(batch)
    }

    /// Removes `key`, durably; tells whether it was there.
    ///
    /// # Errors
    /// As [`NvmeStore::write_batch`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, NvmeError> {
        self.shared.check_open()?;
        let present = self.shared.index.get(key.as_ref()).is_some();
        if present {
            self.write_batch(WriteBatch::new().delete(key.as_ref()))?;
        }
        Ok(present)
    }

    /// The value under `key`, checked, in memory of its own.
    ///
    /// # Errors
    /// [`NvmeError::Corrupt`] if the bytes on the device are not the ones written; the device's own
    /// failure as [`NvmeError::Transfer`].
    pub fn read_direct(&self, key: impl AsRef<[u8]>) -> Result<Option<BufferMut>, NvmeError> {
        self.shared.check_open()?;
        self.shared.read(key.as_ref())
    }

    /// The values under many keys, in the keys' order: with `io_depth` operations under way, and what lies
    /// side by side read at once.
    ///
    /// # Errors
    /// For each key as [`NvmeStore::read_direct`].
    pub fn read_many<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
    ) -> Vec<Result<Option<BufferMut>, NvmeError>> {
        if let Err(error) = self.shared.check_open() {
            return keys.iter().map(|_| Err(error.clone())).collect();
        }
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        self.shared.read_many(&keys)
    }

    /// As [`NvmeStore::read_direct`], while the caller does something else: the transfer can be waited
    /// for or awaited.
    ///
    /// It may wait here while `io_depth` operations are under way.
    pub fn read_async(&self, key: impl AsRef<[u8]>) -> Transfer<Option<BufferMut>> {
        if let Err(error) = self.shared.check_open() {
            return Transfer::ready(Err(ContractError::from(error).into()));
        }
        self.shared.read_async(key.as_ref())
    }

    /// Reads the value under `key` into the front of `target`, and gives that back with the value's length;
    /// `None`, with nothing read, if there is none.
    ///
    /// There is no copy if the value takes a page or more and is not compressed, and `target` is aligned to a
    /// page and at least as long as the value's pages. What is behind the value is overwritten up to the end of
    /// its last page.
    ///
    /// # Errors
    /// As [`NvmeStore::read_direct`], and [`ErrorKind::InvalidInput`](core_view::contract::ErrorKind) if
    /// `target` is too short, with its memory.
    pub fn read_into(
        &self,
        key: impl AsRef<[u8]>,
        target: BufferMut,
    ) -> Result<(BufferMut, Option<usize>), Failure> {
        if let Err(error) = self.shared.check_open() {
            return Err(Failure::new(error.into(), vec![target]));
        }
        self.shared.read_into(key.as_ref(), target)
    }

    /// The value under `key`, checked, in memory that may be shared.
    ///
    /// # Errors
    /// As [`NvmeStore::read_direct`].
    pub fn read_shared(&self, key: impl AsRef<[u8]>) -> Result<Option<TensorStorage>, NvmeError> {
        self.shared.check_open()?;
        self.shared.read_shared(key.as_ref())
    }

    /// The value under `key`, checked, without a copy where that can be: as a map of its segment, once
    /// no more is written to that. [`MappedValue::origin`] tells.
    ///
    /// The bytes are checked now. The system may drop pages of a map and read them again later; a device
    /// that fails then ends the process (SIGBUS), as with any map of a file.
    ///
    /// # Errors
    /// As [`NvmeStore::read_direct`].
    pub fn map_value(&self, key: impl AsRef<[u8]>) -> Result<Option<MappedValue>, NvmeError> {
        self.shared.check_open()?;
        self.shared.map_value(key.as_ref())
    }

    /// Whether there is a value under `key`.
    pub fn contains(&self, key: impl AsRef<[u8]>) -> bool {
        self.shared.index.get(key.as_ref()).is_some()
    }

    /// Length in bytes of the value under `key`.
    pub fn len_of(&self, key: impl AsRef<[u8]>) -> Option<u64> {
        self.shared
            .index
            .get(key.as_ref())
            .map(|slot| slot.raw_bytes)
    }

    /// The keys that begin with `prefix`, sorted.
    pub fn keys_with_prefix(&self, prefix: impl AsRef<[u8]>) -> Vec<Vec<u8>> {
        self.shared.index.keys_with_prefix(prefix.as_ref())
    }

    /// Number of keys.
    pub fn len(&self) -> u64 {
        self.shared.index.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes a snapshot of the index, so that the next open replays only what is newer, and gives back
    /// segments in which nothing lives any more.
    ///
    /// # Errors
    /// [`NvmeError::NoSpace`], with the older snapshots intact; [`NvmeError::ReadOnly`];
    /// [`NvmeError::Poisoned`]; the device's own failure.
    pub fn checkpoint(&self) -> Result<(), NvmeError> {
        self.shared.check_open()?;
        self.shared.checkpoint()
    }

    /// Gives back the space that dead values take: moves the live values out of each segment where that
    /// gains something, and writes the two checkpoints after which the segments go. Reads and writes go on
    /// meanwhile.
    ///
    /// A value that is damaged stays where it is, is reported, and keeps its segment. A segment of which a
    /// map is in use stays until it is compacted another time.
    ///
    /// # Errors
    /// [`NvmeError::NoSpace`] if there is not even room to move values; what was moved before has moved.
    /// Else as [`NvmeStore::write_batch`].
    pub fn compact(&self) -> Result<CompactionReport, NvmeError> {
        self.shared.check_open()?;
        self.shared.compact()
    }

    /// As [`compact`](NvmeStore::compact), but by the thread in the background, or by the steps that take
    /// its place ([`step_background`](NvmeStore::step_background)).
    ///
    /// # Errors
    /// [`NvmeError::ReadOnly`], [`NvmeError::Closed`].
    pub fn begin_compaction(&self) -> Result<(), NvmeError> {
        self.shared.check_open()?;
        self.shared.begin_compaction()
    }

    /// Does one step of what is due beside reads and writes: a piece of a checkpoint or of a compaction.
    ///
    /// A store with a thread for that needs no calls; in a simulation they take the thread's place. `now`
    /// is the time on a clock of the caller's choice that never goes back; a compaction is held to its rate
    /// by it.
    ///
    /// # Errors
    /// As [`compact`](NvmeStore::compact).
    pub fn step_background(&self, now: Duration) -> Result<BackgroundStep, NvmeError> {
        self.shared.check_open()?;
        self.shared.step_background(now)
    }

    /// Reads and checks everything: superblock, checkpoints, segment and batch headers, values.
    ///
    /// # Errors
    /// [`NvmeError::Closed`]; [`NvmeError::MemoryLimit`] if there is too little left to read by; what can't be read is in the
    /// report.
    pub fn verify(&self) -> Result<VerifyReport, NvmeError> {
        self.verify_with(&VerifyOptions::default())
    }

    /// As [`verify`](NvmeStore::verify), but for the values: they are not read.
    ///
    /// # Errors
    /// As [`NvmeStore::verify`].
    pub fn verify_structures(&self) -> Result<VerifyReport, NvmeError> {
        self.verify_with(&VerifyOptions::default().with_values(false))
    }

    /// As [`verify`](NvmeStore::verify), in parts and at a rate. What is written meanwhile may be read or not.
    ///
    /// # Errors
    /// As [`NvmeStore::verify`].
    pub fn verify_with(&self, options: &VerifyOptions) -> Result<VerifyReport, NvmeError> {
        self.shared.check_open()?;
        let report = self.shared.verify(options)?;
        // What closing took away meanwhile is not damage.
        self.shared.check_open()?;
        Ok(report)
    }

    /// Counts and sizes.
    pub fn stats(&self) -> StoreStats {
        self.shared.stats()
    }

    /// Size of the store's segments in bytes, as it was made with. A batch has to fit into one.
    pub fn segment_bytes(&self) -> u64 {
        self.shared.segment_bytes
    }

    /// What was found when the store was opened.
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.shared.recovery
    }

    /// The volume that the store is on, whose lock it holds: for a log beside it.
    pub fn volume(&self) -> Arc<dyn Volume> {
        Arc::clone(&self.shared.volume)
    }

    /// Why the store takes no writes, if it does not.
    pub fn read_only_reason(&self) -> Option<&str> {
        self.shared.read_only.as_deref()
    }

    /// Writes both checkpoints and gives the directory back, once the last map of a value is gone. Later calls answer [`NvmeError::Closed`];
    /// closing again does nothing. Dropping the store does the same, but can't tell of a failure.
    ///
    /// # Errors
    /// As [`NvmeStore::checkpoint`]; nothing acknowledged is lost, the next open replays the log.
    pub fn close(&self) -> Result<(), NvmeError> {
        if self.shared.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let result = self.shared.close();
        self.shared.refuse_waiting();
        self.committers.stop(&self.shared);
        // The next user of the directory waits until nobody has these files open.
        self.shared.log().active = None;
        self.shared.prefetcher.clear();
        self.shared.segments.clear();
        drop(
            self.shared
                .lock
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        result
    }
}

impl Drop for NvmeStore {
    fn drop(&mut self) {
        // A failure here loses nothing: the log is complete without the checkpoint.
        drop(self.close());
    }
}

impl fmt::Debug for NvmeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NvmeStore")
            .field("volume", &self.shared.volume)
            .field("keys", &self.len())
            .finish_non_exhaustive()
    }
}
