//! A durable slab of fixed-size blocks on a volume.

mod block_store;
mod commit;
mod config;
mod containment;
mod create;
mod get;
mod journal;
mod load;
mod put;
mod queue;
mod recovery;
mod replay;
mod slots;
mod stats;
mod table;
mod tables;
mod verify;
mod worker;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};

use core_view::contract::BlockKey;

pub use config::{SlabConfig, SlabConfigBuilder};
pub use recovery::SlabRecovery;
pub use stats::SlabStats;

use crate::format::StoreId;
use crate::format::slab::{BlockEdit, SlotGeometry};
use crate::store::VerifyReport;
use crate::{Alignment, NvmeError, Volume, VolumeLock, outcome_thread};
#[cfg(target_os = "linux")]
use crate::{RealVolume, VolumeOptions};
use journal::{JournalGuard, JournalLock};
use queue::JobQueue;
use slots::SlotMap;
use table::BlockTable;

/// Blocks of one size under 128-bit keys, durable and checksummed, within a bound of bytes, on one directory:
/// the tier below memory of a block cache.
///
/// It is a [`BlockStore`](core_view::contract::BlockStore): a put is on the device when its transfer is done, a
/// fetch gives the bytes of the newest acknowledged put, or an error. When it is full, it says so; what to
/// remove is the caller's choice. Payloads and targets that are aligned move without a copy.
///
/// ```
/// use core_view::BufferMut;
/// use core_view::contract::{BlockGet, BlockKey, BlockMeta, BlockPut, BlockStore};
/// use tier_nvme::{BlockSlab, SlabConfig};
///
/// let directory = tempfile::tempdir()?;
/// let config = SlabConfig::builder()
///     .block_bytes(64 << 10)
///     .capacity_bytes(4 << 20)
///     .build()?;
/// let slab = BlockSlab::open(directory.path(), config.clone())?;
/// let mut payload = BufferMut::zeroed(64 << 10, 4096)?;
/// payload.fill(7);
/// let (key, meta) = (BlockKey(42), BlockMeta::new(b"layer 0")?);
/// let buffer = slab.put(vec![BlockPut { key, meta, payload }]).wait()?.remove(0)?;
/// slab.close()?;
///
/// let slab = BlockSlab::open(directory.path(), config)?;
/// let block = slab.get(vec![BlockGet { key, target: buffer }]).wait()?.remove(0)?;
/// assert_eq!(block.meta.as_slice(), b"layer 0");
/// assert!(block.payload().iter().all(|&byte| byte == 7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct BlockSlab {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What callers and the worker work on.
struct Shared {
    volume: Arc<dyn Volume>,
    config: SlabConfig,
    /// The volume's; it does not change while the volume is open.
    alignment: Alignment,
    store_id: StoreId,
    geometry: SlotGeometry,
    segments_max: u64,
    read_only: Option<String>,
    table: BlockTable,
    slots: SlotMap,
    journal: JournalLock,
    queue: JobQueue,
    counters: stats::Counters,
    recovery: SlabRecovery,
    poison: Mutex<Option<String>>,
    /// Blocks that a commit changed which failed half-way: nobody can say what is stored under these keys.
    unknown: RwLock<BTreeSet<BlockKey>>,
    closed: AtomicBool,
    /// It was closed where nobody could end it; whoever holds the journal does.
    end_is_due: AtomicBool,
    /// How closing ended.
    ending: Mutex<Result<(), NvmeError>>,
    /// Held until the slab is closed.
    lock: Mutex<Option<Box<dyn VolumeLock>>>,
}

impl Shared {
    fn journal(&self) -> JournalGuard<'_> {
        self.journal.lock()
    }

    /// What lengths of reads and writes are multiples of, in bytes.
    fn unit_bytes(&self) -> usize {
        self.alignment.offset_bytes.max(self.alignment.memory_bytes)
    }

    fn check_open(&self) -> Result<(), NvmeError> {
        if self.closed.load(Ordering::Acquire) {
            Err(NvmeError::Closed)
        } else {
            Ok(())
        }
    }

    fn check_changeable(&self) -> Result<(), NvmeError> {
        self.check_open()?;
        if let Some(reason) = &self.read_only {
            return Err(NvmeError::ReadOnly {
                path: self.volume.report().location,
                reason: reason.clone(),
            });
        }
        self.check_poison()
    }

    fn poison_reason(&self) -> Option<String> {
        let poison = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
        poison.clone()
    }

    fn check_poison(&self) -> Result<(), NvmeError> {
        match self.poison_reason() {
            Some(reason) => Err(NvmeError::Poisoned { reason }),
            None => Ok(()),
        }
    }

    fn poison(&self, error: &NvmeError) {
        self.poison_because(error.to_string());
    }

    fn poison_because(&self, reason: String) {
        let mut poison = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
        poison.get_or_insert(reason);
    }

    /// A commit of these changes failed half-way.
    fn lose_edits(&self, edits: &[BlockEdit], error: &NvmeError) {
        self.poison(error);
        self.lose(edits.iter().map(BlockEdit::key));
    }

    /// Nobody can say any more what is stored under these keys.
    fn lose(&self, keys: impl IntoIterator<Item = BlockKey>) {
        let mut unknown = self.unknown.write().unwrap_or_else(PoisonError::into_inner);
        unknown.extend(keys);
    }

    /// Fails if nobody can say what is stored under one of the keys.
    fn check_known(&self, keys: impl IntoIterator<Item = BlockKey>) -> Result<(), NvmeError> {
        let unknown = self.unknown.read().unwrap_or_else(PoisonError::into_inner);
        if unknown.is_empty() || !keys.into_iter().any(|key| unknown.contains(&key)) {
            return Ok(());
        }
        drop(unknown);
        self.check_poison()
    }

    /// Fails if nobody can say what is stored under some keys.
    fn check_all_known(&self) -> Result<(), NvmeError> {
        let unknown = self.unknown.read().unwrap_or_else(PoisonError::into_inner);
        if unknown.is_empty() {
            return Ok(());
        }
        drop(unknown);
        self.check_poison()
    }
}

impl BlockSlab {
    /// Opens the slab in the directory `path`, or makes one if there is none and the configuration allows it.
    ///
    /// # Errors
    /// As [`BlockSlab::on_volume`].
    #[cfg(target_os = "linux")]
    pub fn open(path: impl AsRef<Path>, config: SlabConfig) -> Result<Self, NvmeError> {
        config.check()?;
        let path = path.as_ref();
        let options = VolumeOptions::default()
            .with_io_depth(config.io_depth())
            .with_direct_io(config.direct_io())
            .with_read_only(config.read_only());
        let opened = if config.create() && !config.read_only() {
            RealVolume::create(path, options)
        } else {
            RealVolume::open(path, options)
        };
        let volume = opened.map_err(|error| match error {
            NvmeError::FileNotFound { .. } => NvmeError::NotAStore {
                path: path.display().to_string(),
                reason: "it does not exist".to_owned(),
            },
            error => error,
        })?;
        Self::on_volume(Arc::new(volume), config)
    }

    /// Opens the slab on `volume`, or makes one if the volume is empty and the configuration allows it.
    ///
    /// # Errors
    /// [`NvmeError::Invalid`] for a configuration that can't be or another block size than the slab's,
    /// [`NvmeError::Locked`], [`NvmeError::NotAStore`], [`NvmeError::NewerVersion`],
    /// [`NvmeError::UnknownFeatures`], [`NvmeError::Corrupt`] if it can't be told what was acknowledged,
    /// [`NvmeError::NoSpace`], [`NvmeError::Io`].
    pub fn on_volume(volume: Arc<dyn Volume>, config: SlabConfig) -> Result<Self, NvmeError> {
        let own_thread = config.own_thread();
        let shared = Arc::new(recovery::open(volume, config)?);
        let thread = if own_thread && shared.read_only.is_none() {
            let worker = Arc::clone(&shared);
            let spawned = thread::Builder::new()
                .name("stepwell-slab".to_owned())
                .spawn(move || {
                    outcome_thread::adopt();
                    worker.work();
                });
            let location = || shared.volume.report().location;
            let thread = spawned
                .map_err(|error| NvmeError::from_io("start a thread for", location(), 0, error))?;
            Some(thread)
        } else {
            None
        };
        Ok(Self {
            shared,
            thread: Mutex::new(thread),
        })
    }

    /// Makes everything durable that was acknowledged; without effect where that is so at once.
    ///
    /// # Errors
    /// [`NvmeError::Poisoned`], [`NvmeError::Closed`], [`NvmeError::ReadOnly`]; the device's own failure,
    /// after which the slab takes no changes until it is opened again.
    pub fn flush(&self) -> Result<(), NvmeError> {
        let flushed = self.shared.flush();
        self.shared.end_if_due();
        flushed
    }

    /// Reads and checks everything: superblock, tables, headers of segments, and every block.
    ///
    /// # Errors
    /// [`NvmeError::Closed`]; what can't be read is in the report.
    pub fn verify(&self) -> Result<VerifyReport, NvmeError> {
        self.shared.check_open()?;
        let report = self.shared.verify();
        self.shared.end_if_due();
        // What closing took away meanwhile is not damage.
        self.shared.check_open()?;
        Ok(report)
    }

    /// Counts and sizes.
    pub fn stats(&self) -> SlabStats {
        self.shared.stats()
    }

    /// What was found when the slab was opened.
    pub fn recovery_report(&self) -> &SlabRecovery {
        &self.shared.recovery
    }

    /// Why the slab takes no changes, if it was opened so.
    pub fn read_only_reason(&self) -> Option<&str> {
        self.shared.read_only.as_deref()
    }

    /// Carries out what is under way, writes both tables, and gives the directory back. Later calls answer
    /// [`NvmeError::Closed`]; closing again does nothing. Dropping the slab does the same, but can't tell of a
    /// failure.
    ///
    /// Where outcomes are handed out (in what is chained to a transfer) nothing is waited for: the slab ends soon
    /// after, on another thread, and until then its directory is still locked.
    ///
    /// # Errors
    /// As [`BlockSlab::flush`]; nothing acknowledged as durable is lost, the next open replays the logs.
    pub fn close(&self) -> Result<(), NvmeError> {
        if self.shared.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.shared.queue.close();
        let thread = self.thread.lock();
        let thread = thread.unwrap_or_else(PoisonError::into_inner).take();
        if outcome_thread::is_current() || self.shared.journal.is_held_here() {
            // Whoever would be waited for may be waiting for this thread.
            self.shared.end_elsewhere(thread.is_some());
            return Ok(());
        }
        match thread {
            Some(thread) => {
                if thread.join().is_err() {
                    let reason = "the slab's thread panicked".to_owned();
                    return Err(NvmeError::Poisoned { reason });
                }
            }
            None => self.shared.work(),
        }
        let ending = self.shared.ending.lock();
        ending.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for BlockSlab {
    fn drop(&mut self) {
        // A failure here loses nothing: the logs are complete without the tables.
        drop(self.close());
    }
}

impl fmt::Debug for BlockSlab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockSlab")
            .field("volume", &self.shared.volume)
            .field("usage", &self.shared.table.usage())
            .finish_non_exhaustive()
    }
}
