//! Carries out operations as a schedule says.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::schedule::{FaultCounters, Order, count};
use super::{Dice, Schedule};
use crate::BufferMut;
use crate::contract::{ContractError, Drive, ErrorKind, Failure, Transfer};

/// So many operations are enough to choose the next among them.
const REORDER_COUNT: usize = 4;
/// So long an operation waits for others to be reordered with.
const REORDER_WAIT: Duration = Duration::from_micros(300);

/// A delayed operation is delayed by so many turns at most.
const DELAY_TURNS_MAX: u64 = 24;
/// Keeps the decisions about delays apart from all others of a seed.
const DELAY_SEED: u64 = 0x6465_6c61_7965_6421;

/// Takes operations in, and carries them out when their time has come; what is left when it is dropped
/// is carried out then, and what hangs is abandoned, with its buffers.
pub(super) struct Executor(Arc<Queue>);

struct Queue {
    schedule: Schedule,
    faults: Arc<FaultCounters>,
    submitted: AtomicU64,
    jobs: Mutex<Jobs>,
    changed: Condvar,
}

#[derive(Default)]
struct Jobs {
    queued: Vec<Job>,
    hung: Vec<Job>,
    closed: bool,
}

struct Job {
    number: u64,
    due: Instant,
    priority: u64,
    /// That have to pass before it is carried out.
    turns: u64,
    run: Box<dyn FnOnce(Ending) + Send>,
}

#[derive(Clone, Copy)]
enum Ending {
    CarryOut,
    Cancel,
    Abandon,
    Refuse,
}

/// An operation that waits to be let go.
#[derive(Debug)]
pub(super) struct Held {
    queue: Weak<Queue>,
    number: u64,
}

/// What an operation does with its input once its time has come.
pub(super) struct Work<I, T> {
    pub(super) operation: &'static str,
    pub(super) input: I,
    pub(super) give_back: fn(I) -> Vec<BufferMut>,
    pub(super) carry_out: Box<dyn FnOnce(I, Dice) -> Transfer<T> + Send>,
}

impl Executor {
    pub(super) fn new(schedule: Schedule) -> Self {
        let queue = Arc::new(Queue {
            schedule,
            faults: Arc::default(),
            submitted: AtomicU64::new(0),
            jobs: Mutex::new(Jobs::default()),
            changed: Condvar::new(),
        });
        if matches!(schedule.order, Order::Delayed(_) | Order::Reordering) {
            let worker = Arc::clone(&queue);
            let thread = std::thread::Builder::new().name("mock-tier".into());
            if thread.spawn(move || worker.run()).is_err() {
                // Without a thread, whoever waits carries the operations out.
                return Self::new(Schedule {
                    order: Order::Driven,
                    ..schedule
                });
            }
        }
        Self(queue)
    }

    pub(super) fn schedule(&self) -> &Schedule {
        &self.0.schedule
    }

    /// The faults that came about so far.
    pub(super) fn faults(&self) -> &Arc<FaultCounters> {
        &self.0.faults
    }

    /// The dice of an operation that is carried out by the caller itself.
    pub(super) fn dice(&self) -> Dice {
        Dice::nth(self.0.schedule.seed, self.0.number())
    }

    pub(super) fn submit<I: Send + 'static, T: Send + 'static>(
        &self,
        work: Work<I, T>,
    ) -> Transfer<T> {
        let number = self.0.number();
        let mut dice = Dice::nth(self.0.schedule.seed, number);
        let faults = self.0.schedule.faults;
        let (abandoned, hung) = (dice.chance(faults.abandoned), dice.chance(faults.hung));
        let mut delay = Dice::nth(self.0.schedule.seed ^ DELAY_SEED, number);
        let driven = self.0.schedule.order == Order::Driven;
        let delayed = driven && delay.chance(faults.delayed) && !abandoned && !hung;
        let turns = if delayed {
            1 + delay.below(DELAY_TURNS_MAX)
        } else {
            0
        };
        let (transfer, job) = self.0.prepare(number, turns, dice, work);
        if abandoned {
            count(&self.0.faults.abandoned);
            drop(job);
        } else {
            if hung {
                count(&self.0.faults.hung);
            } else if delayed {
                count(&self.0.faults.delayed);
            }
            self.0.accept(job, hung, self.0.schedule.queue_max);
        }
        transfer
    }

    /// As [`Executor::submit`], but without faults, and held until it is let go or cancelled.
    pub(super) fn hold<I: Send + 'static, T: Send + 'static>(
        &self,
        work: Work<I, T>,
    ) -> (Transfer<T>, Held) {
        let number = self.0.number();
        let dice = Dice::nth(self.0.schedule.seed, number);
        let (transfer, job) = self.0.prepare(number, 0, dice, work);
        self.0.lock().hung.push(job);
        let queue = Arc::downgrade(&self.0);
        (transfer, Held { queue, number })
    }

    /// Carries out one operation that is queued, chosen by the seed; `false` if there is none.
    pub(super) fn step(&self) -> bool {
        self.0.step()
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let mut jobs = self.0.lock();
        jobs.closed = true;
        let hung = std::mem::take(&mut jobs.hung);
        drop(jobs);
        self.0.changed.notify_all();
        for job in hung {
            (job.run)(Ending::Abandon);
        }
        // A worker, where there is one, empties the queue; here is nobody who would come back to it.
        if self.0.schedule.order == Order::Driven {
            while self.0.step() {}
        }
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.schedule.fmt(f)
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.schedule.fmt(f)
    }
}

impl Held {
    /// Lets the operation be carried out, unless it was cancelled.
    pub(super) fn release(self) {
        let Some(queue) = self.queue.upgrade() else {
            return;
        };
        let job = queue.lock().withdraw(self.number);
        if let Some(job) = job {
            queue.accept(job, false, usize::MAX);
        }
    }
}

impl Jobs {
    fn withdraw(&mut self, number: u64) -> Option<Job> {
        [&mut self.hung, &mut self.queued]
            .into_iter()
            .find_map(|jobs| {
                let at = jobs.iter().position(|job| job.number == number)?;
                Some(jobs.swap_remove(at))
            })
    }

    fn take_first(&mut self, key: impl Fn(&Job) -> (Instant, u64)) -> Option<Job> {
        let first = self
            .queued
            .iter()
            .enumerate()
            .min_by_key(|(_, job)| key(job));
        let at = first.map(|(at, _)| at)?;
        Some(self.queued.swap_remove(at))
    }

    /// Lets a turn pass for those that are delayed; whether there are such.
    fn pass_turn(&mut self) -> bool {
        let delayed = self.queued.iter_mut().filter(|job| job.turns > 0);
        delayed.map(|job| job.turns -= 1).count() > 0
    }

    /// One of those that are not delayed.
    fn take_driven(&mut self) -> Option<Job> {
        let ready = self.queued.iter().enumerate();
        let ready = ready.filter(|(_, job)| job.turns == 0);
        let (at, _) = ready.min_by_key(|(_, job)| job.priority)?;
        Some(self.queued.swap_remove(at))
    }

    fn take_by_priority(&mut self) -> Option<Job> {
        let epoch = self.queued.first().map(|job| job.due)?;
        self.take_first(|job| (epoch, job.priority))
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        self.submitted.fetch_add(1, Ordering::Relaxed)
    }

    fn prepare<I: Send + 'static, T: Send + 'static>(
        self: &Arc<Self>,
        number: u64,
        turns: u64,
        mut dice: Dice,
        work: Work<I, T>,
    ) -> (Transfer<T>, Job) {
        let (transfer, completer) = match self.schedule.order {
            Order::Driven => Transfer::driven(Arc::clone(self) as _),
            _ => Transfer::pair(),
        };
        let queue = Arc::downgrade(self);
        let stoppable = turns == 0;
        if stoppable {
            completer.on_cancel(move || {
                let Some(queue) = queue.upgrade() else { return };
                let job = queue.lock().withdraw(number);
                if let Some(job) = job {
                    (job.run)(Ending::Cancel);
                }
            });
        }
        let hold = match self.schedule.order {
            Order::Delayed(delay) => delay,
            _ => REORDER_WAIT,
        };
        let priority = dice.next_u64();
        let run = move |ending| {
            let stop = stoppable && completer.should_stop(Instant::now());
            let kind = match ending {
                Ending::CarryOut if !stop => {
                    return (work.carry_out)(work.input, dice).forward(completer);
                }
                Ending::CarryOut | Ending::Cancel => ErrorKind::Cancelled,
                Ending::Abandon => ErrorKind::Abandoned,
                Ending::Refuse => ErrorKind::Busy,
            };
            let error = ContractError::new(kind, work.operation)
                .detail("it was not begun, and nothing was changed");
            completer.complete(Err(Failure::new(error, (work.give_back)(work.input))));
        };
        let job = Job {
            number,
            due: Instant::now() + hold,
            priority,
            turns,
            run: Box::new(run),
        };
        (transfer, job)
    }

    /// Takes a job in, unless `queue_max` are in flight or there is nobody to carry it out later.
    fn accept(&self, job: Job, hung: bool, queue_max: usize) {
        let mut jobs = self.lock();
        let now = jobs.closed || (!hung && self.schedule.order == Order::Immediate);
        let full = jobs.queued.len() + jobs.hung.len() >= queue_max;
        if now || full {
            drop(jobs);
            let ending = if now {
                Ending::CarryOut
            } else {
                Ending::Refuse
            };
            return (job.run)(ending);
        }
        if hung {
            jobs.hung.push(job);
        } else {
            jobs.queued.push(job);
        }
        drop(jobs);
        self.changed.notify_one();
    }

    /// Carries out one that is not delayed, or lets a turn pass; `false` if none is queued.
    fn step(&self) -> bool {
        let mut jobs = self.lock();
        let passed = jobs.pass_turn();
        let job = jobs.take_driven();
        drop(jobs);
        let found = job.is_some();
        if let Some(job) = job {
            (job.run)(Ending::CarryOut);
        }
        found || passed
    }

    /// The worker's life: until the executor is dropped and the queue is empty.
    fn run(&self) {
        let mut jobs = self.lock();
        loop {
            let now = Instant::now();
            let due = jobs.queued.iter().map(|job| job.due).min();
            let reorder = self.schedule.order == Order::Reordering;
            let ready = jobs.closed
                || due.is_some_and(|due| due <= now)
                || (reorder && jobs.queued.len() >= REORDER_COUNT);
            let job = match ready {
                true if reorder => jobs.take_by_priority(),
                true => jobs.take_first(|job| (job.due, job.number)),
                false => None,
            };
            if let Some(job) = job {
                drop(jobs);
                (job.run)(Ending::CarryOut);
                jobs = self.lock();
                continue;
            }
            if jobs.closed {
                return;
            }
            jobs = match due {
                Some(due) => {
                    let woken = self
                        .changed
                        .wait_timeout(jobs, due.saturating_duration_since(now));
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let woken = self.changed.wait(jobs);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

impl Drive for Queue {
    fn drive(&self, timeout: Option<Duration>) {
        if self.step() {
            return;
        }
        let jobs = self.lock();
        let empty = |jobs: &mut Jobs| jobs.queued.is_empty();
        match timeout {
            Some(timeout) => drop(self.changed.wait_timeout_while(jobs, timeout, empty)),
            None => drop(self.changed.wait_while(jobs, empty)),
        }
        self.step();
    }
}
