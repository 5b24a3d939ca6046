//! What everything that gives out [`Transfer`]s owes those who wait.

use std::future::Future;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::verdict::{FAULTS, PATIENCE, broken, check_failure, check_refused, places, until, wait};
use super::{Quarantine, block_on};
use crate::BufferMut;
use crate::contract::mock::{Dice, MockOperations};
use crate::contract::{ErrorKind, Failure, Transfer};

type Started = Transfer<Vec<BufferMut>>;
type Outcome = Result<Vec<BufferMut>, Failure>;

/// Starts operations for the suite to wait for.
pub trait TransferSource: Send + Sync {
    /// Starts an operation that gives `buffers` back in order.
    fn start(&self, buffers: Vec<BufferMut>) -> Transfer<Vec<BufferMut>>;

    /// Starts an operation that does not end before the function that comes with it is called, unless
    /// it is cancelled; `None` if that can't be arranged.
    fn hold(&self, buffers: Vec<BufferMut>) -> Option<(Started, Box<dyn FnOnce() + Send>)> {
        drop(buffers);
        None
    }

    /// Starts an operation whose worker goes away; `None` if that can't be arranged.
    fn abandon(&self, buffers: Vec<BufferMut>) -> Option<Transfer<Vec<BufferMut>>> {
        drop(buffers);
        None
    }
}

impl TransferSource for MockOperations {
    fn start(&self, buffers: Vec<BufferMut>) -> Transfer<Vec<BufferMut>> {
        MockOperations::start(self, buffers)
    }

    fn hold(&self, buffers: Vec<BufferMut>) -> Option<(Started, Box<dyn FnOnce() + Send>)> {
        let (transfer, held) = MockOperations::hold(self, buffers);
        Some((transfer, Box::new(move || held.release())))
    }

    fn abandon(&self, buffers: Vec<BufferMut>) -> Option<Transfer<Vec<BufferMut>>> {
        Some(MockOperations::abandon(self, buffers))
    }
}

const BUFFERS: usize = 3;
const BUFFER_BYTES: usize = 512;
const SOON: Duration = Duration::from_millis(5);
/// A deadline may be passed by this much on a busy machine.
const LATE: Duration = Duration::from_secs(10);

/// Runs the suite over operations that `source` starts.
///
/// ```
/// use core_view::contract::conformance;
/// use core_view::contract::mock::{MockOperations, Schedule};
///
/// conformance::transfer(&MockOperations::new(Schedule::driven(7)));
/// ```
///
/// # Panics
/// If the contract is broken.
pub fn transfer(source: &dyn TransferSource) {
    let suite = Suite {
        source,
        quarantine: Quarantine::default(),
    };
    for _ in 0..8 {
        suite.every_way_to_wait();
    }
    suite.dropped_in_flight();
    suite.held_memory_is_not_freed();
    suite.deadlines();
    suite.cancellation();
    suite.changing_tasks();
    suite.abandoned();
    suite.many_at_once();
    suite.settle();
}

struct Suite<'a> {
    source: &'a dyn TransferSource,
    quarantine: Quarantine,
}

impl Suite<'_> {
    fn buffers(&self) -> Vec<BufferMut> {
        let sizes = (1..=BUFFERS).map(|i| i * BUFFER_BYTES);
        sizes.map(|len| self.quarantine.buffer(len)).collect()
    }

    /// Starts an operation; its buffers are at the places that are returned.
    fn start(&self) -> (Started, Vec<(usize, usize)>) {
        let buffers = self.buffers();
        let places_given = places(&buffers);
        (self.source.start(buffers), places_given)
    }

    fn settle(&self) {
        self.quarantine.settle(|| {
            let (transfer, places_given) = self.start();
            check("a push", wait("a push", transfer), &places_given, &[]);
        });
    }

    fn every_way_to_wait(&self) {
        let (transfer, given) = self.start();
        check("wait", wait("wait", transfer), &given, &[]);

        let (mut transfer, given) = self.start();
        let started = Instant::now();
        let outcome = loop {
            match transfer.wait_for(Duration::from_micros(50)) {
                Ok(outcome) => break outcome,
                Err(again) => transfer = again,
            }
            assert!(
                started.elapsed() < PATIENCE,
                "short waits: the transfer hangs"
            );
        };
        check("short waits", outcome, &given, &[]);

        let (transfer, given) = self.start();
        check("await", block_on(transfer), &given, &[]);

        let (transfer, given) = self.start();
        let mapped = transfer.map_outcome(|outcome| outcome);
        check("map", wait("map", mapped), &given, &[]);

        let (sender, receiver) = mpsc::channel();
        let (transfer, given) = self.start();
        transfer.on_complete(move |outcome| drop(sender.send(outcome)));
        let outcome = until("chain", || {
            // Others that are waited for push what nobody waits for.
            drop(self.start().0.wait());
            receiver.recv_timeout(SOON).ok()
        });
        check("chain", outcome, &given, &[]);

        let (transfers, given): (Vec<_>, Vec<_>) = (0..4).map(|_| self.start()).unzip();
        let outcomes = wait("join", Transfer::join(transfers));
        let Ok(outcomes) = outcomes else {
            broken("a joined transfer failed as a whole")
        };
        assert_eq!(outcomes.len(), given.len(), "join: an outcome is missing");
        for (outcome, given) in outcomes.into_iter().zip(given) {
            check("join", outcome, &given, &[]);
        }
    }

    /// What nobody waits for goes on, and frees its memory once, later.
    fn dropped_in_flight(&self) {
        for _ in 0..32 {
            drop(self.start().0);
        }
        self.settle();
    }

    fn held_memory_is_not_freed(&self) {
        let buffers = self.buffers();
        let before = self.quarantine.in_use();
        let Some((transfer, release)) = self.source.hold(buffers) else {
            return;
        };
        assert!(!transfer.is_done(), "a held operation is done");
        let waited = transfer.wait_for(SOON);
        let Err(transfer) = waited else {
            broken("a held operation ended before it was let go")
        };
        drop(transfer);
        thread::sleep(SOON);
        assert_eq!(
            self.quarantine.in_use(),
            before,
            "memory was freed while the operation had it"
        );
        release();
        self.settle();
    }

    fn deadlines(&self) {
        for how in ["wait", "await", "short waits"] {
            let buffers = self.buffers();
            let given = places(&buffers);
            let Some((transfer, release)) = self.source.hold(buffers) else {
                return;
            };
            let started = Instant::now();
            let transfer = transfer.with_deadline(started + SOON);
            let outcome = match how {
                "wait" => transfer.wait(),
                "await" => block_on(transfer),
                _ => wait("deadline", transfer),
            };
            let late = started.elapsed();
            assert!(late >= SOON, "{how}: timed out {late:?} after the start");
            assert!(late < LATE, "{how}: the deadline was missed by {late:?}");
            check_refused(how, outcome, &given, &[&[ErrorKind::TimedOut]]);
            release();
            self.settle();
        }
        let (transfer, given) = self.start();
        let outcome = transfer.with_deadline(Instant::now()).wait();
        check(
            "a deadline at once",
            outcome,
            &given,
            &[ErrorKind::TimedOut],
        );
        self.settle();
    }

    fn cancellation(&self) {
        let buffers = self.buffers();
        let given = places(&buffers);
        if let Some((transfer, release)) = self.source.hold(buffers) {
            transfer.cancel();
            transfer.cancel();
            let outcome = match transfer.wait_for(20 * SOON) {
                Ok(outcome) => outcome,
                Err(transfer) => {
                    release();
                    wait("cancel and let go", transfer)
                }
            };
            check("cancel", outcome, &given, &[ErrorKind::Cancelled]);
        }
        for _ in 0..16 {
            let (transfer, given) = self.start();
            transfer.cancel();
            let outcome = wait("cancel at once", transfer);
            check("cancel at once", outcome, &given, &[ErrorKind::Cancelled]);
        }
        self.settle();
    }

    /// The task that polled last is woken, not one before it.
    fn changing_tasks(&self) {
        let buffers = self.buffers();
        let given = places(&buffers);
        let Some((mut transfer, release)) = self.source.hold(buffers) else {
            return;
        };
        let polled = thread::scope(|scope| {
            let elsewhere = scope.spawn(|| {
                let mut task = std::task::Context::from_waker(std::task::Waker::noop());
                std::pin::Pin::new(&mut transfer)
                    .poll(&mut task)
                    .is_pending()
            });
            elsewhere.join()
        });
        assert!(matches!(polled, Ok(true)), "a held operation is done");
        let releaser = thread::spawn(move || {
            thread::sleep(SOON);
            release();
        });
        check("another task", block_on(transfer), &given, &[]);
        assert!(releaser.join().is_ok(), "letting go panicked");
    }

    fn abandoned(&self) {
        for how in ["wait", "await"] {
            let buffers = self.buffers();
            let given = places(&buffers);
            let Some(transfer) = self.source.abandon(buffers) else {
                return;
            };
            let outcome = match how {
                "wait" => wait("abandoned", transfer),
                _ => block_on(transfer),
            };
            check_refused("abandoned", outcome, &given, &[&[ErrorKind::Abandoned]]);
        }
        self.settle();
    }

    fn many_at_once(&self) {
        thread::scope(|scope| {
            for seed in 0..4 {
                scope.spawn(move || {
                    let mut dice = Dice::new(seed);
                    for _ in 0..40 {
                        let (transfer, given) = self.start();
                        self.one_of_many(dice.below(6), transfer, &given);
                    }
                });
            }
        });
        self.settle();
    }

    fn one_of_many(&self, how: u64, transfer: Started, given: &[(usize, usize)]) {
        let soon = Instant::now() + Duration::from_micros(100);
        let stopped = &[ErrorKind::Cancelled, ErrorKind::TimedOut];
        let outcome = match how {
            0 => return drop(transfer),
            1 => return transfer.on_complete(drop),
            2 => {
                transfer.cancel();
                wait("many: cancel", transfer)
            }
            3 => transfer.with_deadline(soon).wait(),
            4 => block_on(transfer.with_deadline(soon)),
            _ => wait("many", transfer),
        };
        check("many", outcome, given, stopped);
    }
}

fn check(what: &str, outcome: Outcome, given: &[(usize, usize)], kinds: &[ErrorKind]) {
    match outcome {
        Ok(buffers) => assert_eq!(places(&buffers), given, "{what}: other buffers came back"),
        Err(failure) => drop(check_failure(what, failure, given, &[FAULTS, kinds])),
    }
}
