//! Handing groups and syncs to the volume, a second time if it has no room for them at first.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use core_view::BufferMut;
use core_view::contract::{ContractError, ErrorKind, Failure, Transfer};

use super::Shared;
use super::files::{LogFile, page_buffer};
use super::group::SealedGroup;
use super::stats::Counters;
use crate::format::{ChainLink, PAGE_BYTES, WalFileHeader};
use crate::{NvmeError, VolumeFile};

/// Whether something was tried before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    First,
    Second,
}

impl Turn {
    /// Whether a failure is no more than a lack of room that may pass.
    fn may_be_followed_by_another<T>(self, outcome: &Result<T, Failure>) -> bool {
        let is_busy = |failure: &Failure| failure.kind() == ErrorKind::Busy;
        self == Self::First && outcome.as_ref().is_err_and(is_busy)
    }
}

impl Shared {
    pub(super) fn write(self: &Arc<Self>, group: SealedGroup, turn: Turn) {
        let submitted = group.file.handle().and_then(|handle| {
            let first = match group.file_header {
                Some(start) => Some(self.file_header(&group, start)?),
                None => None,
            };
            Ok((handle, first))
        });
        let (handle, first) = match submitted {
            Ok(submitted) => submitted,
            Err(error) => {
                let failure = Failure::from(ContractError::from(error));
                return self.group_ended(group, Err(failure));
            }
        };
        let has_header = first.is_some();
        let front_bytes = if has_header { PAGE_BYTES as u64 } else { 0 };
        let at = group.header.place.offset_bytes - front_bytes;
        let (sources, group) = group.split();
        let sources = first.into_iter().chain(sources).collect();
        let shared = Arc::clone(self);
        handle
            .write_vectored(at, sources)
            .on_complete(move |outcome| {
                let is_put_off = turn.may_be_followed_by_another(&outcome);
                let (mut sources, outcome) = match outcome {
                    Ok(sources) => (sources, Ok(())),
                    Err(failure) => {
                        let (error, buffers) = failure.into_parts();
                        (buffers.reclaim(), Err(Failure::from(error)))
                    }
                };
                if has_header && !sources.is_empty() {
                    sources.remove(0);
                }
                let group = group.with_chunks(sources);
                if is_put_off && group.is_whole() {
                    shared.again(move |shared| shared.write(group, Turn::Second));
                } else {
                    shared.group_ended(group, outcome);
                }
            });
    }

    fn group_ended(self: &Arc<Self>, group: SealedGroup, outcome: Result<(), Failure>) {
        Counters::add(&self.counters.groups, 1);
        Counters::add(&self.counters.written_bytes, group.header.disk_bytes());
        let link = ChainLink::after(&group.header);
        let (chunks, acknowledgements) = group.into_parts();
        self.write_ended(link, acknowledgements, chunks, outcome);
    }

    /// The header page of a file that is begun at `start`.
    fn file_header(&self, group: &SealedGroup, start: ChainLink) -> Result<BufferMut, NvmeError> {
        let header = WalFileHeader {
            log_id: group.header.place.log_id,
            number: group.file.number,
            file_bytes: group.file.file_bytes,
            start,
            incompatible: 0,
            compatible: 0,
        };
        let mut page = page_buffer(PAGE_BYTES)?;
        page.copy_from_slice(&header.encode());
        Ok(page)
    }

    pub(super) fn sync_file(self: &Arc<Self>, file: Arc<LogFile>, turn: Turn) {
        let handle = match file.handle() {
            Ok(handle) => handle,
            Err(error) => return self.sync_ended(Err(ContractError::from(error).into())),
        };
        let shared = Arc::clone(self);
        sync(&*handle).on_complete(move |outcome| {
            if turn.may_be_followed_by_another(&outcome) {
                shared.again(move |shared| shared.sync_file(file, Turn::Second));
            } else {
                shared.sync_ended(outcome);
            }
        });
    }

    /// Tries something again where it may wait for room: the thread that was told of the first attempt may
    /// be the engine's own, which can't wait for itself.
    fn again(self: &Arc<Self>, attempt: impl FnOnce(&Arc<Self>) + Send + 'static) {
        Counters::add(&self.counters.retries, 1);
        if !self.volume.runs_threads() {
            return attempt(self);
        }
        let attempt = Arc::new(Mutex::new(Some(attempt)));
        let shared = Arc::clone(self);
        let theirs = Arc::clone(&attempt);
        let spawned = thread::Builder::new()
            .name("stepwell-wal-again".to_owned())
            .spawn(move || shared.carry_out(&theirs));
        if spawned.is_err() {
            self.carry_out(&attempt);
        }
    }

    fn carry_out(self: &Arc<Self>, attempt: &Mutex<Option<impl FnOnce(&Arc<Self>)>>) {
        let attempt = attempt
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(attempt) = attempt {
            attempt(self);
        }
    }
}

fn sync(file: &dyn VolumeFile) -> Transfer<()> {
    let mut synced = Transfer::ready(Ok(()));
    if synced.is_done() {
        // mutant: wal-no-fdatasync
        synced = file.sync();
    }
    synced
}
