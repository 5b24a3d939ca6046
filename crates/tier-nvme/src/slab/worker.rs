//! Pushing changes forward: a thread of the slab's own, or whoever waits.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use core_view::contract::{Completer, ContractError, Drive, Transfer};

use super::Shared;
use super::commit::Journal;
use super::queue::{ItemState, PutItem, PutJob, Ready, Work};
use crate::NvmeError;

/// What a turn of the worker did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Worked,
    /// There was nothing to do.
    Rested,
    /// There will be nothing to do any more.
    Over,
}

impl Shared {
    pub(super) fn transfer<T: Send + 'static>(self: &Arc<Self>) -> (Transfer<T>, Completer<T>) {
        if self.config.own_thread() {
            Transfer::pair()
        } else {
            Transfer::driven(Arc::new(Push(Arc::clone(self))))
        }
    }

    /// Does the next thing that is to be done.
    pub(super) fn turn(self: &Arc<Self>) -> Turn {
        let mut journal = self.journal();
        match self.queue.next() {
            Work::Nothing => Turn::Rested,
            Work::Over => Turn::Over,
            Work::Land(landing) => {
                drop(journal);
                landing();
                Turn::Worked
            }
            Work::Commit(mut group) => {
                self.commit(&mut journal, &mut group);
                drop(journal);
                self.finish_group(group);
                Turn::Worked
            }
            Work::Place(job) => {
                self.place(journal, job);
                Turn::Worked
            }
        }
    }

    /// Tells the callers, who may do anything: no lock is held.
    fn finish_group(&self, group: Vec<Ready>) {
        for ready in group {
            match ready {
                Ready::Put(job) => {
                    self.queue.leave(job.bytes);
                    job.finish();
                }
                Ready::Remove(job) => job.finish(),
            }
        }
        self.queue.stir();
    }

    /// Finds slots for a put that found none when it came.
    fn place(self: &Arc<Self>, mut journal: MutexGuard<'_, Journal>, mut job: PutJob) {
        let waiting = |item: &&PutItem| matches!(item.state, ItemState::Waiting);
        let count = job.items.iter().filter(waiting).count();
        let mut taken = self.slots.take(count);
        let mut error: Option<ContractError> = None;
        while taken.is_none() {
            let made = self.check_poison().and_then(|()| self.grow(&mut journal));
            match made {
                Ok(true) => {}
                Ok(false) => {
                    // What was freed without a sync is free after one.
                    if journal.freed.is_empty() || self.sync(&mut journal).is_err() {
                        break;
                    }
                }
                Err(NvmeError::NoSpace { .. }) => break,
                Err(failed) => {
                    error = Some(failed.into());
                    break;
                }
            }
            taken = self.slots.take(count);
        }
        drop(journal);
        if let Some(error) = error {
            job.fail(&error);
            return self.queue.written(job);
        }
        if let Some(slots) = taken {
            return self.write_payloads(job, slots);
        }
        let read_still = self.slots.has_read_still();
        if let Err(job) = self.queue.rest(job, read_still) {
            let slots = self.slots.take_some(count);
            self.write_payloads(job, slots);
        }
    }

    /// Works until the slab is closed and nothing is left, and ends it.
    pub(super) fn work(self: &Arc<Self>) {
        loop {
            match self.turn() {
                Turn::Worked => {}
                Turn::Rested => self.queue.wait(None),
                Turn::Over => break,
            }
        }
        self.end();
    }

    /// Without a thread of its own: does everything that can be done.
    pub(super) fn push_if_driven(self: &Arc<Self>) {
        if !self.config.own_thread() {
            while self.turn() == Turn::Worked {}
        }
    }

    /// Writes the tables with the mark of a clean close, and gives the directory back.
    fn end(&self) {
        let mut journal = self.journal();
        let result = if self.read_only.is_some() {
            Ok(())
        } else {
            self.check_poison()
                .and_then(|()| self.write_tables(&mut journal, true))
        };
        // The next user of the directory waits until nobody has these files open.
        self.slots.clear();
        drop(
            self.lock
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        drop(journal);
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = result;
    }
}

/// Lets whoever waits for a transfer do the work.
struct Push(Arc<Shared>);

impl Drive for Push {
    fn drive(&self, timeout: Option<Duration>) {
        if self.0.turn() != Turn::Worked {
            self.0.queue.wait(timeout);
        }
    }
}
