//! A write-ahead log on a volume, for those who keep their own structures and need every change to be
//! durable before they tell of it.
//!
//! Records that are appended at the same time share one write and one sync. No thread is needed: whoever
//! appends, and the engine's completions, carry the work on.

mod candidate;
mod commit;
mod config;
mod files;
mod followers;
mod group;
mod lsn;
mod pipeline;
mod recovery;
mod replay;
mod scan;
mod stats;
mod submission;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use core_view::contract::{ContractError, Drive, Transfer};

pub use config::{Overload, WalConfig};
pub use lsn::Lsn;
pub use recovery::WalRecovery;
pub use replay::{WalRecord, WalReplay};
pub use stats::WalStats;

use crate::{NvmeError, Volume, VolumeLock};
use files::Roster;
use pipeline::Pipeline;
use stats::Counters;

/// A durable sequence of records.
///
/// [`append`](Wal::append) returns when the record is on the device. After a power loss at any moment the
/// log holds every record that was acknowledged, in order and without a gap; of those that were not, it
/// holds the first few or none, each whole. All methods take `&self`, and appenders on many threads, or
/// with many records outstanding each, share the syncs.
///
/// ```
/// use tier_nvme::sim::SimVolume;
/// use tier_nvme::{Lsn, Wal, WalConfig};
///
/// let disk = SimVolume::new(7);
/// let wal = Wal::open(disk.handle(), WalConfig::new("EDGES-").with_file_bytes(1 << 20))?;
/// wal.append(b"edge 1 -> 2")?;
/// let last = wal.append_batch(&[b"edge 2 -> 3".as_slice(), b"edge 3 -> 1"])?;
/// disk.crash();
/// drop(wal);
///
/// let wal = Wal::open(disk.handle(), WalConfig::new("EDGES-"))?;
/// let records = wal.replay(Lsn::FIRST)?.collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(records.len(), 3);
/// assert_eq!((records[2].lsn, records[2].payload.as_slice()), (last, &b"edge 3 -> 1"[..]));
/// # Ok::<(), tier_nvme::NvmeError>(())
/// ```
pub struct Wal {
    shared: Arc<Shared>,
}

struct Shared {
    volume: Arc<dyn Volume>,
    config: WalConfig,
    pipeline: Mutex<Pipeline>,
    changed: Condvar,
    /// Taken before the pipeline's lock.
    roster: Mutex<Roster>,
    counters: Counters,
    recovery: WalRecovery,
    read_only: Option<String>,
    /// The volume's, where its completions are collected by whoever waits.
    drive: Option<Arc<dyn Drive>>,
    /// The volume's, if it is this log's.
    lock: Mutex<Option<Box<dyn VolumeLock>>>,
}

impl Shared {
    fn location(&self) -> String {
        let location = self.volume.report().location;
        format!("log {} in {location}", self.config.prefix())
    }
}

impl Wal {
    /// Opens a log, or makes one if there is none and the configuration allows it, and takes the volume's
    /// lock: for itself alone, or shared with others who read if it is opened for reading.
    ///
    /// # Errors
    /// [`NvmeError::Locked`]; [`NvmeError::NotAStore`] if there is none; [`NvmeError::NewerVersion`],
    /// [`NvmeError::UnknownFeatures`]; [`NvmeError::Corrupt`] if records that were acknowledged can't be
    /// had back; [`NvmeError::NoSpace`]; [`NvmeError::Invalid`]; [`NvmeError::Io`] and
    /// [`NvmeError::Transfer`].
    pub fn open(volume: Arc<dyn Volume>, config: WalConfig) -> Result<Self, NvmeError> {
        config.check()?;
        let lock = match (volume.is_writable(), config.read_only()) {
            (true, false) => Some(volume.lock()?),
            (true, true) => Some(volume.lock_shared()?),
            (false, _) => None,
        };
        Self::open_with(volume, config, lock)
    }

    /// As [`open`](Wal::open) on a volume whose lock the caller holds, as he does who has a store in it:
    /// [`NvmeStore::volume`](crate::NvmeStore::volume). Logs in one directory need prefixes of their own,
    /// none of which is the beginning of another's names.
    ///
    /// The log must be closed before the lock is given back.
    ///
    /// # Errors
    /// As [`open`](Wal::open), but for the lock.
    pub fn open_beside(volume: Arc<dyn Volume>, config: WalConfig) -> Result<Self, NvmeError> {
        config.check()?;
        Self::open_with(volume, config, None)
    }

    fn open_with(
        volume: Arc<dyn Volume>,
        config: WalConfig,
        lock: Option<Box<dyn VolumeLock>>,
    ) -> Result<Self, NvmeError> {
        Ok(Self {
            shared: Arc::new(recovery::open(volume, config, lock)?),
        })
    }

    /// Appends a record; it is durable when this returns.
    ///
    /// # Errors
    /// [`NvmeError::Invalid`] for a record that does not fit into a file; [`NvmeError::NoSpace`] if it
    /// needs a new file and there is no space for one, with nothing changed; [`NvmeError::ReadOnly`];
    /// [`NvmeError::Closed`]; [`ErrorKind::Busy`](core_view::contract::ErrorKind::Busy) by
    /// [`Overload::Refuse`]; [`NvmeError::Poisoned`] after a failed write or sync; the failure itself as
    /// [`NvmeError::Transfer`], which leaves it unknown whether the record is there after reopening.
    pub fn append(&self, payload: &[u8]) -> Result<Lsn, NvmeError> {
        self.append_batch(&[payload])
    }

    /// Appends records, all or none of which are there after a power loss; gives the LSN of the last.
    ///
    /// # Errors
    /// As [`append`](Wal::append); [`NvmeError::Invalid`] for a batch without records.
    pub fn append_batch(&self, payloads: &[&[u8]]) -> Result<Lsn, NvmeError> {
        self.shared.append_and_wait(payloads)
    }

    /// As [`append`](Wal::append), without waiting for the device: the record is durable once the transfer
    /// gives its LSN. Records become durable in the order of their LSNs.
    ///
    /// This may wait for a file to be made, and for memory unless the configuration says
    /// [`Overload::Refuse`]; so a callback of a transfer must not call it.
    pub fn append_async(&self, payload: &[u8]) -> Transfer<Lsn> {
        self.append_batch_async(&[payload])
    }

    /// As [`append_batch`](Wal::append_batch), without waiting for the device.
    pub fn append_batch_async(&self, payloads: &[&[u8]]) -> Transfer<Lsn> {
        match self.shared.append(payloads) {
            Ok(transfer) => transfer,
            Err(error) => Transfer::ready(Err(ContractError::from(error).into())),
        }
    }

    /// Waits until everything that was appended before is durable.
    ///
    /// # Errors
    /// [`NvmeError::Poisoned`] if a write or a sync failed.
    pub fn sync(&self) -> Result<(), NvmeError> {
        let next_lsn = self.shared.lock().next_lsn();
        self.shared.wait_durable(next_lsn)
    }

    /// The records from `from` on, up to the newest that is durable now, read group by group.
    ///
    /// # Errors
    /// [`NvmeError::Corrupt`] if the log does not hold the record `from`, nor ends right before it: it was
    /// truncated beyond it, or has lost it. [`NvmeError::Closed`].
    pub fn replay(&self, from: Lsn) -> Result<WalReplay, NvmeError> {
        self.shared.replay(from)
    }

    /// Gives back the space of records before `lsn`, as far as whole files hold nothing else; returns how
    /// many files went. It is durable when this returns.
    ///
    /// # Errors
    /// [`NvmeError::ReadOnly`], [`NvmeError::Closed`], [`NvmeError::Poisoned`]; [`NvmeError::Io`], after
    /// which the log goes on.
    pub fn truncate_before(&self, lsn: Lsn) -> Result<u64, NvmeError> {
        self.shared.check_writable()?;
        self.shared.truncate_before(lsn)
    }

    /// LSN of the oldest record that can be replayed.
    pub fn first_lsn(&self) -> Lsn {
        let pipeline = self.shared.lock();
        let first = pipeline.begun.front().map(|begun| begun.first_lsn);
        Lsn::new(first.unwrap_or(pipeline.durable.next_lsn))
    }

    /// LSN of the first record that is not known to be durable.
    pub fn durable_lsn(&self) -> Lsn {
        Lsn::new(self.shared.lock().durable.next_lsn)
    }

    /// LSN that the next record gets.
    pub fn next_lsn(&self) -> Lsn {
        Lsn::new(self.shared.lock().next_lsn())
    }

    /// Counts, sizes, and how much is on its way.
    pub fn stats(&self) -> WalStats {
        let pipeline = self.shared.lock();
        WalStats {
            files: pipeline.begun.len() as u64,
            files_spare: pipeline.spares.len() as u64,
            buffer_bytes: pipeline.pool.used_bytes() as u64,
            ..self.shared.counters.snapshot()
        }
    }

    /// What was found when the log was opened.
    pub fn recovery_report(&self) -> &WalRecovery {
        &self.shared.recovery
    }

    /// Does the next thing that there is to do, for a log with
    /// [`with_manual_steps`](WalConfig::with_manual_steps): a write, a sync or telling of it; `false` if
    /// there is none. `patient` puts a sync off while there is something to write.
    #[cfg(feature = "sim")]
    pub fn step(&self, patient: bool) -> bool {
        self.shared.step(patient)
    }

    /// Waits for what is on its way, writes that all of it is durable, and gives the files back, and the
    /// lock if the log took it. Later calls answer [`NvmeError::Closed`]; closing again does nothing.
    /// Dropping the log does the same, but can't tell of a failure.
    ///
    /// # Errors
    /// [`NvmeError::Poisoned`] if a write or a sync failed. Nothing that was acknowledged is lost.
    pub fn close(&self) -> Result<(), NvmeError> {
        let result = self.shared.close();
        let lock = &self.shared.lock;
        drop(lock.lock().unwrap_or_else(PoisonError::into_inner).take());
        result
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        // A failure here loses nothing: what was acknowledged is durable.
        drop(self.close());
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("volume", &self.shared.volume)
            .field("prefix", &self.shared.config.prefix())
            .field("next_lsn", &self.next_lsn())
            .finish_non_exhaustive()
    }
}
