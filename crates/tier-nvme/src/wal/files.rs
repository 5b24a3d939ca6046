//! The files of a log: made ready ahead of need, given back or used again when they are not needed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core_view::BufferMut;

use super::stats::Counters;
use super::{Lsn, Shared, WalConfig};
use crate::format::{ChainLink, PAGE_BYTES};
use crate::{FileName, NvmeError, Volume, VolumeFile};

/// Bytes of zeros that are written in one operation.
const FILL_BYTES: usize = 1 << 20;

/// A file of the log.
#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) number: u64,
    pub(super) name: FileName,
    pub(super) file_bytes: u64,
    /// Absent once the log is closed: the next user of the directory waits until nobody has it open.
    handle: Mutex<Option<Arc<dyn VolumeFile>>>,
}

impl LogFile {
    pub(super) fn new(number: u64, file: Arc<dyn VolumeFile>, file_bytes: u64) -> Self {
        Self {
            number,
            name: file.name().clone(),
            file_bytes,
            handle: Mutex::new(Some(file)),
        }
    }

    /// The open file.
    pub(super) fn handle(&self) -> Result<Arc<dyn VolumeFile>, NvmeError> {
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        handle.clone().ok_or(NvmeError::Closed)
    }

    pub(super) fn close(&self) {
        drop(
            self.handle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }
}

/// A file that has groups in it.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    pub(super) file: Arc<LogFile>,
    /// LSN of its first record.
    pub(super) first_lsn: u64,
    /// Where the log was when the file was begun; not known before its first group is written.
    pub(super) start: Option<ChainLink>,
}

/// Held by whoever changes which files there are.
#[derive(Debug, Default)]
pub(super) struct Roster {
    /// A change was made, and the directory was not synced since.
    is_dirty: bool,
    /// Files that got a new name since: they can be used once it is durable.
    renamed: Vec<Arc<LogFile>>,
}

impl Roster {
    fn sync(&mut self, shared: &Shared) -> Result<(), NvmeError> {
        self.is_dirty = true;
        shared.volume.sync_directory()?; // mutant: wal-no-dirsync
        self.is_dirty = false;
        shared.lock().spares.extend(self.renamed.drain(..));
        Ok(())
    }
}

/// Zeroed memory that starts on a page.
pub(super) fn page_buffer(len_bytes: usize) -> Result<BufferMut, NvmeError> {
    BufferMut::zeroed(len_bytes, PAGE_BYTES).map_err(|error| NvmeError::Transfer(error.into()))
}

/// Writes one page.
pub(super) fn write_page(
    file: &dyn VolumeFile,
    offset_bytes: u64,
    page: &[u8],
) -> Result<(), NvmeError> {
    let mut source = page_buffer(PAGE_BYTES)?;
    source
        .iter_mut()
        .zip(page)
        .for_each(|(byte, &new)| *byte = new);
    file.write(offset_bytes, source).wait()?;
    Ok(())
}

/// Creates a file at its full size, its bytes on the device; the directory is not synced.
pub(super) fn create_file(
    volume: &dyn Volume,
    config: &WalConfig,
    number: u64,
) -> Result<LogFile, NvmeError> {
    let name = config.file_name(number)?;
    let file = volume.create(&name, config.file_bytes())?;
    let filled = fill(&*file, config).and_then(|()| {
        file.sync().wait()?;
        Ok(())
    });
    if let Err(error) = filled {
        // Nothing was acknowledged in this file; opening would remove it as well.
        drop(volume.remove(&name));
        return Err(error);
    }
    Ok(LogFile::new(number, file, config.file_bytes()))
}

fn fill(file: &dyn VolumeFile, config: &WalConfig) -> Result<(), NvmeError> {
    if !config.prefill() {
        return Ok(());
    }
    let mut zeros = page_buffer(FILL_BYTES.min(config.file_bytes() as usize))?;
    let mut offset = 0;
    while offset < config.file_bytes() {
        let left = config.file_bytes() - offset;
        if left < zeros.len() as u64 {
            drop(zeros.split_off(left as usize));
        }
        offset += zeros.len() as u64;
        zeros = file.write(offset - zeros.len() as u64, zeros).wait()?;
    }
    Ok(())
}

impl Shared {
    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the next file ready, unless one is.
    pub(super) fn make_spare(&self) -> Result<(), NvmeError> {
        self.make_spare_holding(&mut self.roster())
    }

    /// As `make_spare`, ahead of need: not if somebody else is at it, and without telling of a failure.
    pub(super) fn make_spare_ahead(&self) {
        let made = match self.roster.try_lock() {
            Ok(mut roster) => self.make_spare_holding(&mut roster),
            Err(_) => Ok(()),
        };
        if made.is_err() {
            // Whoever needs the file is told why there is none.
            Counters::add(&self.counters.files_refused, 1);
        }
    }

    fn make_spare_holding(&self, roster: &mut Roster) -> Result<(), NvmeError> {
        if roster.is_dirty {
            roster.sync(self)?;
        }
        let number = {
            let pipeline = self.lock();
            pipeline.check_writable()?;
            if !pipeline.spares.is_empty() {
                return Ok(());
            }
            pipeline.number_max + 1
        };
        let file = create_file(&*self.volume, &self.config, number)?;
        if let Err(error) = roster.sync(self) {
            drop(self.volume.remove(&file.name));
            return Err(error);
        }
        Counters::add(&self.counters.files_made, 1);
        let mut pipeline = self.lock();
        pipeline.number_max = number;
        pipeline.spares.push_back(Arc::new(file));
        Ok(())
    }

    /// Gives back the files that hold only records before `lsn`, the oldest first, each durably: a log
    /// never has a gap. Returns how many.
    pub(super) fn truncate_before(&self, lsn: Lsn) -> Result<u64, NvmeError> {
        let mut roster = self.roster();
        let mut count = 0;
        loop {
            if roster.is_dirty {
                // The next one may go only when this is certain.
                roster.sync(self)?;
            }
            let Some((oldest, number)) = self.take_spent(lsn)? else {
                return Ok(count);
            };
            self.retire(&mut roster, oldest, number)?;
            count += 1;
        }
    }

    /// Takes the oldest file out, if it holds only records before `lsn`, with the number under which it is
    /// to be used again, if it is.
    fn take_spent(&self, lsn: Lsn) -> Result<Option<(Begun, Option<u64>)>, NvmeError> {
        let mut pipeline = self.lock();
        pipeline.check_writable()?;
        let durable_lsn = pipeline.durable.next_lsn;
        // What follows must be on the device, or the log would begin anew after a power loss.
        let is_spent = pipeline
            .begun
            .get(1)
            .is_some_and(|second| second.first_lsn <= lsn.get() && second.first_lsn < durable_lsn);
        if !is_spent {
            return Ok(None);
        }
        let oldest = pipeline.begun.pop_front();
        Ok(oldest.map(|oldest| {
            let is_spare = pipeline.spares.len() < self.config.spare_files()
                && oldest.file.file_bytes == self.config.file_bytes()
                && Arc::strong_count(&oldest.file) == 1;
            let number = pipeline.number_max + 1;
            (oldest, is_spare.then_some(number))
        }))
    }

    /// Removes a file, or gives it a number for later.
    fn retire(
        &self,
        roster: &mut Roster,
        oldest: Begun,
        number: Option<u64>,
    ) -> Result<(), NvmeError> {
        let changed = match number {
            None => self.volume.remove(&oldest.file.name),
            Some(number) => self.rename(roster, &oldest, number),
        };
        if let Err(error) = changed {
            // It is still there: without it, there would be a gap once the next one goes.
            self.lock().begun.push_front(oldest);
            return Err(error);
        }
        let counter = match number {
            None => &self.counters.files_removed,
            Some(_) => &self.counters.files_recycled,
        };
        Counters::add(counter, 1);
        roster.sync(self)
    }

    /// Gives a file the next number; an error says that it has its old one.
    fn rename(&self, roster: &mut Roster, oldest: &Begun, number: u64) -> Result<(), NvmeError> {
        let target = self.config.file_name(number)?;
        self.volume.rename(&oldest.file.name, &target)?;
        match self.volume.open(&target) {
            Ok(file) => {
                self.lock().number_max = number;
                let file = LogFile::new(number, file, oldest.file.file_bytes);
                roster.renamed.push(Arc::new(file));
                Ok(())
            }
            Err(error) => {
                self.volume.rename(&target, &oldest.file.name)?;
                Err(error)
            }
        }
    }
}
