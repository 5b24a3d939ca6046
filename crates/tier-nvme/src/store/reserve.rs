//! Files kept back for a full disk: a segment, into which deletes and compaction go on, and room for the two
//! checkpoints after which space comes back.
//!
//! They are made when half of the first segment is written, and again when they were used and there is space. A
//! reserve is taken by giving its file another name, so that nobody can take the space in between.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::checkpoint::remove_if_there;
use super::{NvmeError, Shared};
use crate::format::{SegmentRecord, checkpoint_file_bytes};
use crate::{FileName, Volume, VolumeFile};

/// The segment, and the two checkpoints.
pub(super) const RESERVE_NAMES: [&str; 3] = ["RESERVE-S", "RESERVE-A", "RESERVE-B"];

/// How much larger than the checkpoint of now the room for one is made: it need not be made again soon.
const GROWTH: u64 = 2;
/// Least room for a checkpoint, in bytes.
const CHECKPOINT_BYTES_MIN: u64 = 64 << 10;

/// How much more has to be free than is kept back, unless it was kept back before: on a small disk it would
/// cost more than it is good for.
const SHARE: u64 = 3;

/// What is kept back.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// Bytes of each file; 0 for one that is not there.
    files: Mutex<[u64; 3]>,
    /// Whether all three are there.
    whole: AtomicBool,
    /// Bytes of a checkpoint for which there is room.
    checkpoint_bytes: AtomicU64,
    /// One more than the number of segments removed when there was no space for it.
    failed_at: AtomicU64,
}

impl Reserve {
    fn lock(&self) -> MutexGuard<'_, [u64; 3]> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an earlier opening kept back.
    pub(super) fn find(volume: &dyn Volume) -> Result<Self, NvmeError> {
        let reserve = Self::default();
        for (number, name) in RESERVE_NAMES.into_iter().enumerate() {
            match volume.open(&FileName::new(name)?) {
                Ok(file) => reserve.lock()[number] = file.len_bytes()?,
                Err(NvmeError::FileNotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(reserve)
    }

    /// Bytes kept back.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().iter().sum()
    }

    /// Whether nothing is missing.
    pub(super) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    /// Whether there is a segment for deletes and compaction.
    pub(super) fn has_segment(&self) -> bool {
        self.lock()[0] > 0
    }

    /// The segment that is kept back, under its new name.
    pub(super) fn take_segment(
        &self,
        shared: &Shared,
        name: &FileName,
    ) -> Result<Option<Arc<dyn VolumeFile>>, NvmeError> {
        self.take(shared, &[0], name, shared.segment_bytes)
    }

    /// Room for a checkpoint, under its new name.
    pub(super) fn take_checkpoint(
        &self,
        shared: &Shared,
        name: &FileName,
        len_bytes: u64,
    ) -> Result<Option<Arc<dyn VolumeFile>>, NvmeError> {
        let file = self.take(shared, &[1, 2], name, len_bytes)?;
        if file.is_some() {
            // If a power loss kept the next renaming and not this one, the file would be a checkpoint and kept
            // back at once, and be overwritten.
            shared.volume.sync_directory()?;
        }
        Ok(file)
    }

    fn take(
        &self,
        shared: &Shared,
        numbers: &[usize],
        name: &FileName,
        len_bytes: u64,
    ) -> Result<Option<Arc<dyn VolumeFile>>, NvmeError> {
        let mut files = self.lock();
        let Some(&number) = numbers.iter().find(|&&number| files[number] >= len_bytes) else {
            return Ok(None);
        };
        shared
            .volume
            .rename(&FileName::new(RESERVE_NAMES[number])?, name)?;
        files[number] = 0;
        self.whole.store(false, Ordering::Release);
        shared
            .counters
            .reserves_used
            .fetch_add(1, Ordering::Relaxed);
        shared.volume.open(name).map(Some)
    }
}

impl Shared {
    fn checkpoint_bytes(&self) -> u64 {
        let segments_bytes = self.segments.count() * SegmentRecord::BYTES as u64;
        checkpoint_file_bytes(self.index.record_bytes() + segments_bytes).unwrap_or(u64::MAX)
    }

    /// Whether something should be kept back that is not, and may be to be had.
    pub(super) fn reserve_is_due(&self) -> bool {
        let reserve = &self.reserve;
        let is_enough = reserve.whole.load(Ordering::Acquire)
            && reserve.checkpoint_bytes.load(Ordering::Acquire) >= self.checkpoint_bytes();
        let half_bytes = self.segment_bytes / 2;
        let is_large = || {
            self.segments.count() > 1
                || self.counters.bytes_written.load(Ordering::Relaxed) > half_bytes
        };
        let removed = self.counters.segments_removed.load(Ordering::Relaxed);
        !is_enough && reserve.failed_at.load(Ordering::Acquire) != removed + 1 && is_large()
    }

    /// Makes what should be kept back where the disk has plenty.
    pub(super) fn make_reserve(&self) -> Result<(), NvmeError> {
        let wanted = self.segment_bytes + 2 * GROWTH * self.checkpoint_bytes();
        let available = self.volume.available_bytes();
        if available.is_some_and(|available| available < SHARE * wanted) {
            self.reserve_failed();
            return Ok(());
        }
        self.fill_reserve()
    }

    fn reserve_failed(&self) {
        let removed = self.counters.segments_removed.load(Ordering::Relaxed);
        self.reserve.failed_at.store(removed + 1, Ordering::Release);
    }

    /// Makes what should be kept back, as far as there is space for it.
    pub(super) fn fill_reserve(&self) -> Result<(), NvmeError> {
        let needed = self.checkpoint_bytes().max(CHECKPOINT_BYTES_MIN / GROWTH);
        let made = needed.saturating_mul(GROWTH);
        let plan = [
            (self.segment_bytes, self.segment_bytes),
            (needed, made),
            (needed, made),
        ];
        let mut files = self.reserve.lock();
        let (mut is_new, mut is_full) = (false, false);
        for (number, (least, made)) in plan.into_iter().enumerate() {
            if files[number] >= least {
                continue;
            }
            let name = FileName::new(RESERVE_NAMES[number])?;
            files[number] = 0;
            is_new = true;
            // One that is too short may be there, also one that a power loss left without its length.
            let file = remove_if_there(&*self.volume, &name)
                .and_then(|()| self.volume.create(&name, made))
                .and_then(|file| Ok(file.sync().wait()?));
            if let Err(error) = file {
                self.reserve_failed();
                if !matches!(error, NvmeError::NoSpace { .. }) {
                    return Err(error);
                }
                is_full = true;
                break;
            }
            files[number] = made;
        }
        if is_new {
            // It would not be there after a power loss; others may count on what this sync was to do.
            self.volume
                .sync_directory()
                .inspect_err(|error| self.poison(error))?;
        }
        let room = files[1].min(files[2]);
        self.reserve.checkpoint_bytes.store(room, Ordering::Release);
        self.reserve.whole.store(!is_full, Ordering::Release);
        Ok(())
    }
}
