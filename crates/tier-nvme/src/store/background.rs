//! The thread that does what is due beside reads and writes; it sleeps while nothing is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Shared;
use super::maintenance::BackgroundStep;

/// How the thread is told, and where it is waited for.
#[derive(Debug, Default)]
pub(super) struct Background {
    signal: Mutex<Signal>,
    changed: Condvar,
    /// Whether there is such a thread.
    running: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Signal {
    due: bool,
    stop: bool,
}

impl Background {
    /// Starts the thread. Where that fails, writers do the work.
    pub(super) fn start(shared: &Arc<Shared>) {
        let worker = Arc::clone(shared);
        let spawned = std::thread::Builder::new()
            .name("stepwell-store".to_owned())
            .spawn(move || work(&worker));
        if let Ok(thread) = spawned {
            let background = &shared.background;
            background.running.store(true, Ordering::Release);
            *lock(&background.thread) = Some(thread);
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// Lets the thread see what is due.
    pub(super) fn wake(&self) {
        lock(&self.signal).due = true;
        self.changed.notify_all();
    }

    /// Ends the thread after the step that it is in.
    pub(super) fn stop(&self) {
        lock(&self.signal).stop = true;
        self.changed.notify_all();
        self.running.store(false, Ordering::Release);
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // One that panicked has ended as well.
            drop(thread.join());
        }
    }

    /// Waits until something is due, or until `timeout` is over; `false` if the thread is to end.
    fn wait(&self, timeout: Option<Duration>) -> bool {
        let mut signal = lock(&self.signal);
        loop {
            if signal.stop {
                return false;
            }
            if timeout.is_none() && signal.due {
                signal.due = false;
                return true;
            }
            let Some(timeout) = timeout else {
                signal = self
                    .changed
                    .wait(signal)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let idle = |signal: &mut Signal| !signal.stop;
            let (signal, _) = self
                .changed
                .wait_timeout_while(signal, timeout, idle)
                .unwrap_or_else(PoisonError::into_inner);
            return !signal.stop;
        }
    }

    fn is_stopped(&self) -> bool {
        lock(&self.signal).stop
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(shared: &Shared) {
    let begun = Instant::now();
    while shared.background.wait(None) {
        while !shared.background.is_stopped() {
            match shared.step_background(begun.elapsed()) {
                Ok(BackgroundStep::Again) => {}
                Ok(BackgroundStep::NotBefore(time)) => {
                    let pause = time.saturating_sub(begun.elapsed());
                    shared.background.wait(Some(pause));
                }
                Ok(BackgroundStep::Idle) => break,
                Err(_) => {
                    // It is tried again after the next commit.
                    shared
                        .counters
                        .background_failures
                        .fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
        }
    }
}
