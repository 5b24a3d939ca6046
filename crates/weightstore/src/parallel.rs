//! Runs independent work on several threads.

#[cfg(feature = "native")]
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
#[cfg(feature = "native")]
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
#[cfg(feature = "native")]
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};

use crate::threads;

/// As many threads as `tasks` can keep busy on this machine.
pub(crate) fn threads_for(tasks: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    tasks.min(cores)
}

/// The results of `work` on each item, in order, computed by up to `threads` threads, of which the calling one is the
/// first: where no other can be started, it does everything.
pub(crate) fn map<T: Send, R: Send>(
    threads: usize,
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let threads = threads.min(items.len());
    if threads <= 1 {
        return items.into_iter().map(work).collect();
    }
    let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
    let queue = Mutex::new(items.into_iter().zip(results.iter_mut()));
    let work_off = || {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((item, slot)) = next else { return };
            *slot = Some(work(item));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            if threads::start(scope, "weights", work_off).is_err() {
                break;
            }
        }
        work_off();
    });
    // A worker that panicked has ended the scope with its panic, so every slot is filled.
    results.into_iter().flatten().collect()
}

/// Runs `work` on the items on `threads` threads and hands the results to `consume` in order.
///
/// At most `window` items are under way or waiting for their turn. `items` and `consume` run on the
/// calling thread; with one thread, or where none can be started, `work` does too, and one item follows the other.
///
/// # Errors
/// The first error of `items`, `work` or `consume`, in the order of the items.
#[cfg(feature = "native")]
pub(crate) fn stream<T: Send, R: Send, E: Send>(
    threads: usize,
    window: usize,
    mut items: impl Iterator<Item = Result<T, E>>,
    work: impl Fn(T) -> Result<R, E> + Sync,
    mut consume: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E> {
    if threads <= 1 {
        return items.try_for_each(|item| consume(work(item?)?));
    }
    let (job_sender, job_receiver) = mpsc::channel::<(usize, T)>();
    let (done_sender, done_receiver) = mpsc::channel();
    let jobs = Mutex::new(job_receiver);
    std::thread::scope(|scope| {
        let mut started = 0;
        for _ in 0..threads {
            let done_sender = done_sender.clone();
            let (jobs, work) = (&jobs, &work);
            let thread = threads::start(scope, "weights", move || {
                while let Some((index, item)) = next_job(jobs) {
                    let result = match catch_unwind(AssertUnwindSafe(|| work(item))) {
                        Ok(result) => result,
                        Err(panic) => {
                            // Those of the other threads would wait for this one for ever.
                            drop(done_sender.send((index, None)));
                            resume_unwind(panic)
                        }
                    };
                    if done_sender.send((index, Some(result))).is_err() {
                        return;
                    }
                }
            });
            started += usize::from(thread.is_ok());
        }
        if started == 0 {
            return items.try_for_each(|item| consume(work(item?)?));
        }
        drop(done_sender);
        // Dropped on every way out, which ends the workers.
        let job_sender = job_sender;
        let (mut sent, mut consumed) = (0, 0);
        let mut early = BTreeMap::new();
        let mut exhausted = false;
        loop {
            while !exhausted && sent < consumed + window.max(1) {
                match items.next().transpose()? {
                    Some(item) => {
                        // The workers are there until the sender is dropped, or have panicked, which
                        // shows when no result comes.
                        if job_sender.send((sent, item)).is_err() {
                            return Ok(());
                        }
                        sent += 1;
                    }
                    None => exhausted = true,
                }
            }
            if consumed == sent {
                return Ok(());
            }
            // Of a thread that panicked there is none, which shows when the threads are joined.
            let Ok((index, Some(result))) = done_receiver.recv() else {
                return Ok(());
            };
            early.insert(index, result);
            while let Some(result) = early.remove(&consumed) {
                consumed += 1;
                consume(result?)?;
            }
        }
    })
}

/// The next job, `None` once no more can come.
#[cfg(feature = "native")]
pub(crate) fn next_job<T>(jobs: &Mutex<mpsc::Receiver<T>>) -> Option<T> {
    jobs.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .recv()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::scarcity;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        for threads in [0, 1, 2, 7] {
            let doubled = map(threads, (0..1000).collect(), |i: u32| 2 * i);
            assert_eq!(doubled, (0..1000).map(|i| 2 * i).collect::<Vec<_>>());
        }
        assert!(map(4, Vec::new(), |i: u32| i).is_empty());
    }

    #[test]
    fn a_map_does_without_threads_that_can_not_be_started() {
        for threads in 0..4 {
            let doubled = scarcity::with_threads(threads, || {
                let first = map(3, (0..1000).collect(), |i: u32| 2 * i);
                (first, map(3, (0..10).collect(), |i: u32| 3 * i))
            });
            assert_eq!(doubled.0, (0..1000).map(|i| 2 * i).collect::<Vec<_>>());
            assert_eq!(doubled.1, (0..10).map(|i| 3 * i).collect::<Vec<_>>());
        }
    }

    #[cfg(feature = "native")]
    #[test]
    fn a_stream_does_without_threads_that_can_not_be_started() {
        for threads in 0..4 {
            let mut seen = Vec::new();
            let outcome = scarcity::with_threads(threads, || {
                stream(
                    3,
                    4,
                    (0..100).map(Ok),
                    |i| if i == 50 { Err("no") } else { Ok(i) },
                    |i| {
                        seen.push(i);
                        Ok(())
                    },
                )
            });
            assert_eq!(outcome, Err("no"));
            assert_eq!(seen, (0..50).collect::<Vec<_>>());
        }
    }

    #[cfg(feature = "native")]
    #[test]
    fn a_stream_ends_by_the_panic_of_a_thread() {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let outcome = catch_unwind(|| {
                let work = |i| match i {
                    5 => panic!("of this item"),
                    i => Ok(i),
                };
                stream(2, 4, (0..100).map(Ok::<u32, ()>), work, |_| Ok(()))
            });
            sender.send(outcome.is_err()).unwrap();
        });
        let patience = std::time::Duration::from_secs(20);
        assert_eq!(receiver.recv_timeout(patience), Ok(true));
    }

    #[cfg(feature = "native")]
    #[test]
    fn a_stream_keeps_the_order_and_the_window() {
        use std::sync::atomic::{AtomicUsize, Ordering};

        for (threads, most) in [(3, 7), (1, 1), (0, 1)] {
            let under_way = AtomicUsize::new(0);
            let mut seen = Vec::new();
            let items = (0..500).inspect(|_| {
                under_way.fetch_add(1, Ordering::SeqCst);
            });
            let outcome = stream(
                threads,
                7,
                items.map(Ok::<usize, String>),
                |i| {
                    assert!(under_way.load(Ordering::SeqCst) <= most);
                    Ok(i * i)
                },
                |square| {
                    under_way.fetch_sub(1, Ordering::SeqCst);
                    seen.push(square);
                    Ok(())
                },
            );
            assert_eq!(outcome, Ok(()));
            assert_eq!(seen, (0..500).map(|i| i * i).collect::<Vec<_>>());
        }
    }

    #[cfg(feature = "native")]
    #[test]
    fn a_stream_ends_at_the_first_error() {
        for threads in [1, 2] {
            let mut seen = Vec::new();
            let outcome = stream(
                threads,
                4,
                (0..100).map(Ok),
                |i| if i == 20 { Err("no") } else { Ok(i) },
                |i| {
                    seen.push(i);
                    Ok(())
                },
            );
            assert_eq!(outcome, Err("no"));
            assert_eq!(seen, (0..20).collect::<Vec<_>>());
        }
    }
}
