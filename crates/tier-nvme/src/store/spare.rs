//! Segments that are ready before they are needed, and files that are used again.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Shared;
use super::log::{Log, Segment, write_page};
use crate::format::{PAGE_BYTES, SegmentHeader, segment_name};
use crate::{FileName, NvmeError, VolumeFile};

/// Files that are kept when nothing lives in them any more.
pub(super) const KEPT_MAX: usize = 2;

/// Free space, in segments, below which none is made ahead: something else may need it first.
const FREE_SEGMENTS_MIN: u64 = 4;

/// What is there for the log to go on with.
#[derive(Debug, Default)]
pub(super) struct Spares {
    state: Mutex<State>,
    /// A segment that was being made is ready, or is not going to be.
    settled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Segments that were given up; their files have their space, and it has been written before.
    kept: Vec<Kept>,
    /// The next segment of the log.
    ready: Option<Arc<Segment>>,
    making: bool,
    /// The active segment for which a next one was made or could not be.
    made_for: u64,
}

#[derive(Debug)]
struct Kept {
    id: u64,
    file: Arc<dyn VolumeFile>,
}

impl Spares {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Files that are there beside those of the log.
    pub(super) fn count(&self) -> u64 {
        let state = self.lock();
        state.kept.len() as u64 + u64::from(state.ready.is_some())
    }

    /// The segment that was made ahead, once it is not being made any more.
    fn take_ready(&self) -> Option<Arc<Segment>> {
        let mut state = self.lock();
        while state.making {
            state = self
                .settled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.ready.take()
    }
}

/// Ends the making of a segment ahead, however it ends.
struct Making<'a> {
    spares: &'a Spares,
    ready: Option<Arc<Segment>>,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let mut state = self.spares.lock();
        state.making = false;
        state.ready = self.ready.take();
        drop(state);
        self.spares.settled.notify_all();
    }
}

impl Shared {
    /// Takes a segment that nobody pins, needs or finds any more: its file is kept for the log to go on in, or
    /// removed.
    pub(super) fn give_up(&self, segment: Arc<Segment>) {
        let id = segment.id;
        // Somebody who is reading it would find other bytes; a removed file stays as it is for him.
        let file = Arc::try_unwrap(segment).ok().and_then(|segment| {
            let file = segment.file?;
            (Arc::strong_count(&file) == 1).then_some(file)
        });
        if let Some(file) = file {
            let mut state = self.spares.lock();
            // What is kept back for a full disk comes first: it is made of the space that this gives.
            if state.kept.len() < KEPT_MAX && self.reserve.is_whole() {
                state.kept.push(Kept { id, file });
                return;
            }
        }
        self.remove_segment(id);
    }

    /// A file that stays behind takes space and does no harm; the next open removes it.
    fn remove_segment(&self, id: u64) {
        if let Ok(name) = segment_name(id) {
            drop(self.volume.remove(&name));
        }
    }

    /// The next segment of the log, made ahead or now, and whether it is what was kept back for a full disk:
    /// that is taken for what gives space back alone.
    pub(super) fn next_segment(
        &self,
        log: &mut Log,
        frees_space: bool,
    ) -> Result<(Arc<Segment>, bool), NvmeError> {
        if let Some(segment) = self.spares.take_ready() {
            self.queue.set_short(false);
            return Ok((segment, false));
        }
        // A number is never used twice, whatever becomes of the file.
        log.segment_id_max += 1;
        let id = log.segment_id_max;
        let made = self.make_segment(id);
        let is_full = matches!(made, Err(NvmeError::NoSpace { .. }));
        self.queue.set_short(is_full);
        if !is_full {
            return Ok((made?, false));
        }
        let reserve = match frees_space {
            true => self.reserve.take_segment(self, &segment_name(id)?)?,
            false => None,
        };
        match reserve {
            Some(file) => Ok((self.begin_segment(id, file)?, true)),
            None => made
                .map(|segment| (segment, false))
                .map_err(|error| error.on(&*self.volume)),
        }
    }

    /// Whether the log will need another segment before long, and there is none.
    pub(super) fn preparation_is_due(&self) -> bool {
        let Ok(log) = self.log.try_lock() else {
            return false;
        };
        self.is_running_out(&log)
    }

    fn is_running_out(&self, log: &Log) -> bool {
        let Some(active) = &log.active else {
            return false;
        };
        let state = self.spares.lock();
        log.offset_bytes > self.segment_bytes / 2
            && !state.making
            && state.ready.is_none()
            && state.made_for != active.id
    }

    /// Makes the next segment ahead, beside commits. Where that fails, whoever needs it tries again and is
    /// told why.
    pub(super) fn prepare_segment(&self) {
        let mut log = self.end_of_log();
        if !self.is_running_out(&log) {
            return;
        }
        let mut state = self.spares.lock();
        state.made_for = log.active.as_ref().map_or(0, |active| active.id);
        let free_bytes = self.volume.available_bytes().unwrap_or(u64::MAX);
        if state.kept.is_empty() && free_bytes / FREE_SEGMENTS_MIN < self.segment_bytes {
            return;
        }
        state.making = true;
        drop(state);
        log.segment_id_max += 1;
        let id = log.segment_id_max;
        drop(log);
        let mut making = Making {
            spares: &self.spares,
            ready: None,
        };
        making.ready = self.make_segment(id).ok();
        if making.ready.is_some() {
            self.counters
                .segments_prepared
                .fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes a segment with its header, durably, in a file that was given up if there is one.
    fn make_segment(&self, id: u64) -> Result<Arc<Segment>, NvmeError> {
        let name = segment_name(id)?;
        let kept = self.spares.lock().kept.pop();
        let used_again = match kept {
            Some(kept) => self.use_again(&name, kept)?,
            None => None,
        };
        let Some(file) = used_again else {
            let file = self.volume.create(&name, self.segment_bytes)?;
            return self.begin_segment(id, file);
        };
        let segment = self.begin_segment(id, file)?;
        self.counters
            .segments_recycled
            .fetch_add(1, Ordering::Relaxed);
        Ok(segment)
    }

    /// Makes a file a segment, with its header, durably.
    fn begin_segment(&self, id: u64, file: Arc<dyn VolumeFile>) -> Result<Arc<Segment>, NvmeError> {
        let header = SegmentHeader {
            store_id: self.store_id,
            segment_id: id,
            segment_bytes: self.segment_bytes,
        };
        let durable = write_page(&*file, 0, &header.encode()).and_then(|()| {
            file.sync().wait()?; // mutant: no-segment-sync
            self.volume.sync_directory()?; // mutant: no-dirsync
            Ok(())
        });
        // Nothing was acknowledged on this file; recovery would remove it as well.
        durable.inspect_err(|_| self.remove_segment(id))?;
        self.counters.segments_made.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Segment::new(id, Some(file), PAGE_BYTES as u64)))
    }

    /// Gives a file another name, unless another process may be reading it. What it still holds names the old number, and so is nothing.
    ///
    /// The name comes first, durably, and the header after it: a checkpoint may still list the old number, as
    /// one in which nothing lives, and what has that name has to be whole.
    fn use_again(
        &self,
        name: &FileName,
        kept: Kept,
    ) -> Result<Option<Arc<dyn VolumeFile>>, NvmeError> {
        let Some(_alone) = self.volume.keep_readers_out() else {
            self.remove_segment(kept.id);
            return Ok(None);
        };
        let old_name = segment_name(kept.id)?;
        // The handle in hand would have the old name in its messages.
        drop(kept.file);
        let renamed = self.volume.rename(&old_name, name);
        renamed.inspect_err(|_| self.remove_segment(kept.id))?;
        let durable = self.volume.sync_directory();
        let opened = durable.and_then(|()| self.volume.open(name));
        opened
            .inspect_err(|_| drop(self.volume.remove(name)))
            .map(Some)
    }

    /// Removes what the log does not need now: when the store is closed, or when something else needs the space.
    /// Tells whether there was anything.
    pub(super) fn remove_spares(&self) -> bool {
        let mut state = self.spares.lock();
        let kept = std::mem::take(&mut state.kept);
        let ready = state.ready.take();
        drop(state);
        let kept = kept.into_iter().map(|kept| kept.id);
        let ids: Vec<_> = kept.chain(ready.map(|ready| ready.id)).collect();
        ids.iter().for_each(|&id| self.remove_segment(id));
        !ids.is_empty()
    }
}
