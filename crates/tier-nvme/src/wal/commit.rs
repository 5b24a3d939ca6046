//! Appending, and carrying out what the pipeline says is next.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use core_view::BufferMut;
use core_view::contract::{ContractError, ErrorKind, Failure, Transfer};

use super::config::Overload;
use super::followers::Acknowledgement;
use super::pipeline::{Action, Pipeline, Told};
use super::stats::Counters;
use super::submission::Turn;
use super::{Lsn, Shared};
use crate::NvmeError;
use crate::format::{ChainLink, record_bytes};

/// How long a waiting thread pushes the volume before it looks again.
const DRIVE_SLICE: Duration = Duration::from_millis(1);

/// Lets the next thread carry out actions, also if this one panics.
struct Pumping<'a>(&'a Shared);

impl Drop for Pumping<'_> {
    fn drop(&mut self) {
        self.0.lock().is_pumping = false;
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Pipeline> {
        self.pipeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to change, pushing the volume forward where it asks for that.
    fn wait<'a>(&'a self, mut pipeline: MutexGuard<'a, Pipeline>) -> MutexGuard<'a, Pipeline> {
        if let Some(drive) = &self.drive {
            drop(pipeline);
            drive.drive(Some(DRIVE_SLICE));
            return self.lock();
        }
        pipeline.waiters += 1;
        let mut pipeline = self
            .changed
            .wait(pipeline)
            .unwrap_or_else(PoisonError::into_inner);
        pipeline.waiters -= 1;
        pipeline
    }

    /// Puts records behind one another into one group, and sees to it that it is written. The transfer
    /// gives the LSN of the last one.
    pub(super) fn append(self: &Arc<Self>, payloads: &[&[u8]]) -> Result<Transfer<Lsn>, NvmeError> {
        self.place(payloads, |pipeline, lsn| {
            let (transfer, completer) = match &self.drive {
                Some(drive) => Transfer::driven(Arc::clone(drive)),
                None => Transfer::pair(),
            };
            pipeline.acknowledge(Acknowledgement::Transfer(lsn, completer));
            transfer
        })
    }

    /// As [`append`](Self::append), and waits until the records are durable.
    pub(super) fn append_and_wait(self: &Arc<Self>, payloads: &[&[u8]]) -> Result<Lsn, NvmeError> {
        if self.config.manual() || self.drive.is_some() {
            let transfer = self.append(payloads)?;
            self.settle(&transfer);
            return Ok(transfer.wait()?);
        }
        let follow = |pipeline: &mut Pipeline, lsn| (lsn, pipeline.follow());
        let (lsn, followers) = self.place(payloads, follow)?;
        followers.wait().map_err(NvmeError::Transfer)?;
        Ok(lsn)
    }

    /// Puts records into the open group; `remember` gets the LSN of the last one.
    fn place<T>(
        self: &Arc<Self>,
        payloads: &[&[u8]],
        remember: impl FnOnce(&mut Pipeline, Lsn) -> T,
    ) -> Result<T, NvmeError> {
        self.check_writable()?;
        let bytes = self.checked_bytes(payloads)?;
        let mut pipeline = self.room_for(bytes)?;
        let lsn = pipeline.push(payloads, bytes)?;
        let remembered = remember(&mut pipeline, lsn);
        let wants_spare = pipeline.wants_spare();
        drop(pipeline);
        Counters::add(&self.counters.records, payloads.len() as u64);
        let payload_bytes = payloads.iter().map(|payload| payload.len()).sum::<usize>();
        Counters::add(&self.counters.payload_bytes, payload_bytes as u64);
        self.pump();
        if wants_spare {
            self.make_spare_ahead();
        }
        Ok(remembered)
    }

    /// Refuses what would change a log that is open for reading.
    pub(super) fn check_writable(&self) -> Result<(), NvmeError> {
        match &self.read_only {
            None => Ok(()),
            Some(reason) => Err(NvmeError::ReadOnly {
                path: self.location(),
                reason: reason.clone(),
            }),
        }
    }

    /// Bytes of all records, if they fit into one group.
    fn checked_bytes(&self, payloads: &[&[u8]]) -> Result<usize, NvmeError> {
        let max = self.config.group_bytes_max() - crate::format::GROUP_HEADER_BYTES;
        let bytes = payloads.iter().try_fold(0_usize, |sum, payload| {
            sum.checked_add(record_bytes(payload.len())?)
        });
        match bytes {
            Some(bytes) if bytes <= max && !payloads.is_empty() => Ok(bytes),
            Some(0) => Err(NvmeError::Invalid {
                field: "batch",
                reason: "it has no records".to_owned(),
            }),
            _ => Err(NvmeError::Invalid {
                field: "record",
                reason: format!(
                    "the records do not fit into {max} bytes, 16 of header for each included; \
                     split them or make the files larger"
                ),
            }),
        }
    }

    /// Waits for memory and a file in which `bytes` have room.
    fn room_for(self: &Arc<Self>, bytes: usize) -> Result<MutexGuard<'_, Pipeline>, NvmeError> {
        let mut is_stalled = false;
        let mut pipeline = self.lock();
        loop {
            pipeline.check_writable()?;
            pipeline.close_full_group(bytes);
            if !pipeline.has_memory(bytes, &self.config) {
                if !std::mem::replace(&mut is_stalled, true) {
                    Counters::add(&self.counters.stalls, 1);
                }
                pipeline = self.wait_for_memory(pipeline)?;
            } else if pipeline.has_room(bytes) {
                return Ok(pipeline);
            } else if let Some(file) = pipeline.spares.pop_front() {
                pipeline.roll_to(file);
            } else {
                drop(pipeline);
                self.make_spare()?;
                pipeline = self.lock();
            }
        }
    }

    fn wait_for_memory<'a>(
        self: &'a Arc<Self>,
        pipeline: MutexGuard<'a, Pipeline>,
    ) -> Result<MutexGuard<'a, Pipeline>, NvmeError> {
        if self.config.overload() == Overload::Refuse {
            let error = ContractError::new(ErrorKind::Busy, "append to log").detail(format!(
                "{} bytes are on their way to the device; try again",
                pipeline.pool.used_bytes()
            ));
            return Err(NvmeError::Transfer(error));
        }
        Ok(self.wait_or_step(pipeline))
    }

    /// Carries out actions until there is nothing to do but to wait for the device.
    pub(super) fn pump(self: &Arc<Self>) {
        if self.config.manual() {
            return;
        }
        let mut pipeline = self.lock();
        if std::mem::replace(&mut pipeline.is_pumping, true) {
            // That thread looks again before it leaves.
            return;
        }
        drop(pipeline);
        let pumping = Pumping(self);
        loop {
            let mut pipeline = self.lock();
            let Some(action) = pipeline.next_action(Instant::now(), None) else {
                pipeline.is_pumping = false;
                drop(pipeline);
                std::mem::forget(pumping);
                return;
            };
            drop(pipeline);
            self.execute(action);
        }
    }
}

impl Shared {
    /// Does the next thing, whoever else would have; `false` if there is none.
    pub(super) fn step(self: &Arc<Self>, patient: bool) -> bool {
        let action = self.lock().next_action(Instant::now(), Some(patient));
        action.map(|action| self.execute(action)).is_some()
    }

    fn execute(self: &Arc<Self>, action: Action) {
        match action {
            Action::Write(group) => self.write(group, Turn::First),
            Action::Sync(file) => self.sync_file(file, Turn::First),
            Action::Tell(told) => {
                tell(told);
                self.notify(&self.lock());
            }
        }
    }

    fn notify(&self, pipeline: &Pipeline) {
        if pipeline.waiters > 0 {
            self.changed.notify_all();
        }
    }

    pub(super) fn write_ended(
        self: &Arc<Self>,
        link: ChainLink,
        acknowledgements: Vec<Acknowledgement>,
        chunks: Vec<BufferMut>,
        outcome: Result<(), Failure>,
    ) {
        let mut pipeline = self.lock();
        let keep_bytes = self.config.buffer_bytes();
        pipeline.write_ended(link, acknowledgements, chunks, outcome, keep_bytes);
        self.notify(&pipeline);
        drop(pipeline);
        self.pump();
    }

    pub(super) fn sync_ended(self: &Arc<Self>, outcome: Result<(), Failure>) {
        if outcome.is_ok() {
            Counters::add(&self.counters.syncs, 1);
        }
        let mut pipeline = self.lock();
        pipeline.sync_ended(Instant::now(), outcome);
        self.notify(&pipeline);
        drop(pipeline);
        self.pump();
    }

    /// Waits until every record before `lsn` is durable.
    pub(super) fn wait_durable(self: &Arc<Self>, lsn: u64) -> Result<(), NvmeError> {
        let mut pipeline = self.lock();
        loop {
            if pipeline.durable.next_lsn >= lsn {
                return Ok(());
            }
            pipeline.check_poison()?;
            pipeline = self.wait_or_step(pipeline);
        }
    }

    /// Waits for something to change; where nothing changes by itself, does the next thing.
    fn wait_or_step<'a>(
        self: &'a Arc<Self>,
        pipeline: MutexGuard<'a, Pipeline>,
    ) -> MutexGuard<'a, Pipeline> {
        if !self.config.manual() {
            return self.wait(pipeline);
        }
        drop(pipeline);
        let has_stepped = self.step(false);
        let pipeline = self.lock();
        if has_stepped {
            return pipeline;
        }
        self.wait(pipeline)
    }

    /// Steps until `transfer` is done, where nothing goes on by itself.
    pub(super) fn settle(self: &Arc<Self>, transfer: &Transfer<Lsn>) {
        while self.config.manual() && !transfer.is_done() {
            drop(self.wait_or_step(self.lock()));
        }
    }

    /// Writes what is left and a mark, waits for all of it, and lets go of the files.
    pub(super) fn close(self: &Arc<Self>) -> Result<(), NvmeError> {
        let mut pipeline = self.lock();
        if std::mem::replace(&mut pipeline.is_closed, true) {
            return Ok(());
        }
        self.notify(&pipeline);
        // A mark names what is durable when it is written.
        pipeline = self.drain(pipeline);
        let marked = match (&self.read_only, &pipeline.poison) {
            (None, None) => pipeline.push_mark(),
            _ => Ok(()),
        };
        let pipeline = self.drain(pipeline);
        let result = pipeline.check_poison().and(marked);
        pipeline.close_files();
        result
    }

    /// Waits until nothing is on its way.
    fn drain<'a>(
        self: &'a Arc<Self>,
        pipeline: MutexGuard<'a, Pipeline>,
    ) -> MutexGuard<'a, Pipeline> {
        drop(pipeline);
        self.pump();
        let mut pipeline = self.lock();
        while pipeline.is_in_flight() || !pipeline.is_idle() {
            pipeline = self.wait_or_step(pipeline);
        }
        pipeline
    }
}

fn tell(told: Vec<Told>) {
    for Told {
        acknowledgements,
        outcome,
    } in told
    {
        for acknowledgement in acknowledgements {
            acknowledgement.tell(&outcome);
        }
    }
}
