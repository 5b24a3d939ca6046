//! Wakes tasks at a moment, for futures that know no runtime.
//!
//! One thread for the process, started at the first use and asleep while nothing is due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How often an operation that only its waiters push forward is polled.
pub(super) const DRIVE_INTERVAL: Duration = Duration::from_micros(200);

/// Alarms of operations that are gone are swept out once there are this many.
const SWEEP_COUNT_MIN: usize = 1024;

/// Something with a task to wake.
pub(super) trait Alarmed: Send + Sync {
    /// Wakes the task; the alarm is over then.
    fn wake(&self);
}

struct Alarm {
    at: Instant,
    order: u64,
    target: Weak<dyn Alarmed>,
}

impl PartialEq for Alarm {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Alarm {}

impl PartialOrd for Alarm {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Alarm {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

#[derive(Default)]
struct Alarms {
    due: BinaryHeap<Reverse<Alarm>>,
    next_order: u64,
    sweep_count: usize,
    running: bool,
}

#[derive(Default)]
struct Clock {
    alarms: Mutex<Alarms>,
    changed: Condvar,
}

/// Wakes `target` at `at`, or a little later; returns whether it will.
///
/// `false` means that the thread can't be started; the caller has to be polled some other way. The
/// caller sees to it that a target has few alarms at a time.
pub(super) fn wake_at(at: Instant, target: Weak<dyn Alarmed>) -> bool {
    static CLOCK: OnceLock<Clock> = OnceLock::new();
    let clock = CLOCK.get_or_init(Clock::default);
    let mut alarms = clock.lock();
    if !alarms.running {
        let thread = std::thread::Builder::new().name("stepwell-deadlines".into());
        if thread.spawn(move || clock.run()).is_err() {
            return false;
        }
        alarms.running = true;
    }
    if alarms.due.len() >= alarms.sweep_count.max(SWEEP_COUNT_MIN) {
        alarms.due.retain(|alarm| alarm.0.target.strong_count() > 0);
        alarms.sweep_count = 2 * alarms.due.len();
    }
    let order = alarms.next_order;
    alarms.next_order += 1;
    let first = alarms.due.peek().is_none_or(|first| at < first.0.at);
    alarms.due.push(Reverse(Alarm { at, order, target }));
    drop(alarms);
    if first {
        clock.changed.notify_one();
    }
    true
}

impl Clock {
    fn lock(&self) -> MutexGuard<'_, Alarms> {
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut alarms = self.lock();
        loop {
            let now = Instant::now();
            let next = alarms.due.peek().map(|alarm| alarm.0.at);
            alarms = match next {
                Some(at) if at <= now => {
                    let target = alarms.due.pop().and_then(|alarm| alarm.0.target.upgrade());
                    drop(alarms);
                    // A task's waker may panic: that must not stop the alarms of everybody else.
                    let _ = catch_unwind(AssertUnwindSafe(|| {
                        if let Some(target) = target {
                            target.wake();
                        }
                    }));
                    self.lock()
                }
                Some(at) => {
                    self.changed
                        .wait_timeout(alarms, at - now)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self
                    .changed
                    .wait(alarms)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}
