//! Pushing changes forward: a thread of the slab's own, or whoever waits.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use core_view::contract::{Completer, ContractError, Drive, Transfer};

use super::Shared;
use super::journal::{Journal, JournalGuard};
use super::queue::{ItemState, PutItem, PutJob, Ready, Work};
use super::slots::SlotId;
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

    /// Does the next thing that is to be done; in the middle of doing one, on the same thread, nothing.
    pub(super) fn turn(self: &Arc<Self>) -> Turn {
        if self.journal.is_held_here() {
            return Turn::Rested;
        }
        let turn = self.take_turn();
        self.end_if_due();
        turn
    }

    fn take_turn(self: &Arc<Self>) -> Turn {
        let mut journal = self.journal();
        match self.queue.next() {
            Work::Nothing => Turn::Rested,
            Work::Over => Turn::Over,
            Work::Commit(mut group) => {
                let committed = self.contain(|| {
                    self.commit(&mut journal, &mut group);
                    Ok(())
                });
                if let Err(error) = committed {
                    self.lose_group(&mut group, &error);
                }
                // Also of what failed: its buffers go back to the callers.
                self.land(&mut group);
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
            if let Ready::Put(job) = &ready {
                self.queue.leave(job.bytes);
            }
            self.tell(ready);
        }
        self.queue.stir();
    }

    /// Finds slots for a put that found none when it came.
    fn place(self: &Arc<Self>, mut journal: JournalGuard<'_>, mut job: PutJob) {
        let waiting = |item: &&PutItem| matches!(item.state, ItemState::Waiting);
        let count = job.items.iter().filter(waiting).count();
        let taken = self.contain(|| self.make_room(&mut journal, count));
        drop(journal);
        match taken {
            Err(error) => {
                job.fail(&ContractError::from(error));
                return self.queue.submitted(job);
            }
            Ok(Some(slots)) => return self.write_payloads(job, slots),
            Ok(None) => {}
        }
        let read_still = self.slots.has_read_still();
        if let Err(job) = self.queue.rest(job, read_still) {
            let slots = self.slots.take_some(count);
            self.write_payloads(job, slots);
        }
    }

    /// Takes so many slots, making segments if need be; `None` if the bound or the disk allows no more.
    fn make_room(
        &self,
        journal: &mut Journal,
        count: usize,
    ) -> Result<Option<Vec<SlotId>>, NvmeError> {
        loop {
            if let Some(taken) = self.slots.take(count) {
                return Ok(Some(taken));
            }
            match self.check_poison().and_then(|()| self.grow(journal)) {
                Ok(true) => {}
                Ok(false) => {
                    // What was freed without a sync is free after one.
                    if journal.freed.is_empty() || self.sync(journal).is_err() {
                        return Ok(None);
                    }
                }
                Err(NvmeError::NoSpace { .. }) => return Ok(None),
                Err(failed) => return Err(failed),
            }
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

    /// Makes everything durable that was acknowledged.
    pub(super) fn flush(&self) -> Result<(), NvmeError> {
        let mut journal = self.journal();
        self.check_changeable()?;
        self.contain(|| self.sync(&mut journal))
    }

    /// Sees to it that a slab which was closed ends, without waiting for that.
    pub(super) fn end_elsewhere(self: &Arc<Self>, has_thread: bool) {
        if has_thread {
            return;
        }
        if self.journal.is_held_here() {
            self.end_is_due.store(true, Ordering::Release);
            return;
        }
        let shared = Arc::clone(self);
        let ending = thread::Builder::new().name("stepwell-slab-end".to_owned());
        // Without a thread the logs are left as a killed process leaves them; nothing in them is lost.
        drop(ending.spawn(move || shared.work()));
    }

    /// Ends a slab that was closed while this thread was at work on it.
    pub(super) fn end_if_due(self: &Arc<Self>) {
        if self.end_is_due.swap(false, Ordering::AcqRel) {
            self.work();
        }
    }

    /// Writes the tables with the mark of a clean close, and gives the directory back.
    fn end(&self) {
        let mut journal = self.journal();
        let result = if self.read_only.is_some() {
            Ok(())
        } else {
            self.check_poison()
                .and_then(|()| self.contain(|| self.write_tables(&mut journal, true)))
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
