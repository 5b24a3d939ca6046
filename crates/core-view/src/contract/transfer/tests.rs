use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use super::*;
use crate::BufferMut;

const SOON: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(20);

/// Locks the transfer when it is dropped, as foreign values may by their own ways.
struct Nosy(Arc<Shared<u32>>);

impl Drop for Nosy {
    fn drop(&mut self) {
        drop(self.0.lock());
    }
}

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {}
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn poll<T: Send + 'static>(transfer: &mut Transfer<T>, waker: &Waker) -> Poll<Outcome<T>> {
    Pin::new(transfer).poll(&mut Context::from_waker(waker))
}

fn block_on<T: Send + 'static>(mut transfer: Transfer<T>) -> Outcome<T> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(outcome) = poll(&mut transfer, &waker) {
            return outcome;
        }
        thread::park();
    }
}

/// Runs `work` on a thread of its own, so that a deadlock fails the test rather than hang it.
fn finishes<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    receiver
        .recv_timeout(LONG)
        .expect("it hangs or has panicked")
}

#[test]
fn foreign_values_are_dropped_outside_the_lock() {
    finishes(|| {
        let (mut transfer, completer) = Transfer::<u32>::pair();
        for _ in 0..2 {
            let nosy = Nosy(Arc::clone(&transfer.shared));
            completer.on_cancel(move || drop(nosy));
            let waker = Waker::from(Arc::new(Nosy(Arc::clone(&transfer.shared))));
            assert!(poll(&mut transfer, &waker).is_pending());
        }
        let (sender, receiver) = mpsc::channel();
        transfer.on_complete(move |outcome| sender.send(outcome.unwrap()).unwrap());
        completer.complete(Ok(3));
        assert_eq!(receiver.recv().unwrap(), 3);
    });
}

#[test]
fn an_outcome_is_given_once_and_later_calls_say_so() {
    finishes(|| {
        let mut transfer = Transfer::ready(Ok(1));
        assert!(poll(&mut transfer, Waker::noop()).is_ready());
        let Poll::Ready(Err(again)) = poll(&mut transfer, Waker::noop()) else {
            panic!("the outcome was there twice");
        };
        assert_eq!(again.kind(), ErrorKind::InvalidInput);
        assert_eq!(transfer.wait().unwrap_err().kind(), ErrorKind::InvalidInput);
        let mut transfer = Transfer::ready(Ok(1));
        assert!(poll(&mut transfer, Waker::noop()).is_ready());
        let (sender, receiver) = mpsc::channel();
        transfer.on_complete(move |outcome| sender.send(outcome.map_err(|e| e.kind())).unwrap());
        assert_eq!(receiver.recv().unwrap(), Err(ErrorKind::InvalidInput));
    });
}

/// Completes in its first push, as another thread's push would, and then sleeps: nothing else comes.
struct Collected(Mutex<Option<Completer<u32>>>);

impl Drive for Collected {
    fn drive(&self, timeout: Option<Duration>) {
        let completer = self.0.lock().unwrap().take();
        if let Some(completer) = completer {
            completer.complete(Ok(9));
        }
        thread::sleep(timeout.unwrap_or(Duration::MAX));
    }
}

#[test]
fn a_completion_that_another_push_collected_is_noticed() {
    let drive = Arc::new(Collected(Mutex::new(None)));
    let (transfer, completer) = Transfer::driven(Arc::clone(&drive) as _);
    *drive.0.lock().unwrap() = Some(completer);
    assert_eq!(finishes(move || transfer.wait().unwrap()), 9);
}

#[test]
fn even_a_wait_of_no_time_pushes_the_drive() {
    let drive = Arc::new(Collected(Mutex::new(None)));
    let (transfer, completer) = Transfer::driven(Arc::clone(&drive) as _);
    *drive.0.lock().unwrap() = Some(completer);
    let outcome = transfer.wait_for(Duration::ZERO).expect("it was pushed");
    assert_eq!(outcome.unwrap(), 9);
}

#[test]
fn a_deadline_stops_what_was_dropped_and_what_was_chained() {
    for chained in [false, true] {
        let (transfer, completer) = Transfer::<u32>::pair();
        let (sender, receiver) = mpsc::channel();
        completer.on_cancel(move || sender.send(()).unwrap());
        let transfer = transfer.with_deadline(Instant::now() + SOON);
        let (kinds, kind) = mpsc::channel();
        if chained {
            transfer.on_complete(move |outcome| kinds.send(outcome.unwrap_err().kind()).unwrap());
        } else {
            drop(transfer);
        }
        receiver.recv_timeout(LONG).expect("it is asked to stop");
        completer.complete(Err(ContractError::new(ErrorKind::Cancelled, "test").into()));
        if chained {
            assert_eq!(kind.recv().unwrap(), ErrorKind::TimedOut);
        }
    }
}

#[test]
fn an_operation_that_stops_at_its_deadline_gives_its_buffers_back_as_timed_out() {
    for awaited in [false, true] {
        let (transfer, completer) = Transfer::<u32>::pair();
        let slot = Arc::new(Mutex::new(None));
        let hook = Arc::clone(&slot);
        completer.on_cancel(move || {
            let completer: Completer<u32> = hook.lock().unwrap().take().unwrap();
            let error = ContractError::new(ErrorKind::Cancelled, "test");
            completer.complete(Err(Failure::new(
                error,
                vec![BufferMut::from_vec(vec![0; 9])],
            )));
        });
        *slot.lock().unwrap() = Some(completer);
        let transfer = transfer.with_deadline(Instant::now() + SOON);
        let failure = if awaited {
            block_on(transfer).unwrap_err()
        } else {
            transfer.wait().unwrap_err()
        };
        assert_eq!(failure.kind(), ErrorKind::TimedOut);
        assert_eq!(failure.into_parts().1.len(), 1);
    }
}

#[test]
fn a_deadline_drawn_nearer_after_a_poll_is_heeded() {
    let (mut transfer, completer) = Transfer::<u32>::pair();
    transfer = transfer.with_deadline(Instant::now() + 10 * LONG);
    assert!(poll(&mut transfer, Waker::noop()).is_pending());
    let transfer = transfer.with_deadline(Instant::now() + SOON);
    let kind = finishes(move || block_on(transfer).unwrap_err().kind());
    assert_eq!(kind, ErrorKind::TimedOut);
    drop(completer);
}

/// Unwinds without a report, which would only frighten whoever reads the output.
fn quiet_panic() -> ! {
    std::panic::resume_unwind(Box::new("planted"))
}

struct Explosive;

impl Wake for Explosive {
    fn wake(self: Arc<Self>) {
        quiet_panic();
    }
}

#[test]
fn a_waker_that_panics_does_not_stop_the_alarms_of_others() {
    let (mut bad, _held) = Transfer::<u32>::pair();
    bad = bad.with_deadline(Instant::now());
    let (mut late, _held_too) = Transfer::<u32>::pair();
    late = late.with_deadline(Instant::now() + SOON);
    assert!(poll(&mut late, &Waker::from(Arc::new(Explosive))).is_pending());
    thread::sleep(4 * SOON);
    let (good, _held_as_well) = Transfer::<u32>::pair();
    let good = good.with_deadline(Instant::now() + SOON);
    let kind = finishes(move || block_on(good).unwrap_err().kind());
    assert_eq!(kind, ErrorKind::TimedOut);
    assert!(poll(&mut bad, Waker::noop()).is_ready());
}

#[test]
fn cancellation_and_deadline_pass_through_map_and_join() {
    let (first, first_completer) = Transfer::<u32>::pair();
    let (second, second_completer) = Transfer::<u32>::pair();
    let mapped = vec![first.map(u64::from), second.map(u64::from)];
    let joined = Transfer::join(mapped);
    assert!(!first_completer.should_stop(Instant::now()));
    joined.cancel();
    assert!(first_completer.should_stop(Instant::now()));
    assert!(second_completer.should_stop(Instant::now()));
    first_completer.complete(Ok(5));
    drop(second_completer);
    let outcomes = joined.wait().unwrap();
    assert!(matches!(outcomes[0], Ok(5)));
    let failure = outcomes[1].as_ref().unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Abandoned);

    let (transfer, completer) = Transfer::<u32>::pair();
    let transfer = transfer.with_deadline(Instant::now() + SOON);
    let failure = transfer.map(|_| ()).wait().unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::TimedOut);
    assert!(completer.should_stop(Instant::now()));
    assert!(Transfer::<()>::join(Vec::new()).wait().unwrap().is_empty());
}

#[test]
fn a_map_that_panics_abandons_its_transfer() {
    let (transfer, completer) = Transfer::<u32>::pair();
    let mapped: Transfer<u32> = transfer.map(|_| quiet_panic());
    assert!(
        thread::spawn(move || completer.complete(Ok(1)))
            .join()
            .is_err()
    );
    assert_eq!(mapped.wait().unwrap_err().kind(), ErrorKind::Abandoned);
}

/// Counts how often it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// One end of a race over one transfer.
fn consume(how: usize, transfer: Transfer<Counted>) {
    match how {
        0 => drop(transfer.wait()),
        1 => drop(block_on(transfer)),
        2 => drop(transfer),
        3 => transfer.on_complete(drop),
        4 => drop(transfer.wait_for(Duration::from_micros(20))),
        5 => drop(
            transfer
                .with_deadline(Instant::now() + Duration::from_micros(20))
                .wait(),
        ),
        6 => drop(block_on(
            transfer.with_deadline(Instant::now() + Duration::from_micros(20)),
        )),
        _ => {
            transfer.cancel();
            drop(transfer.map(|counted| counted).wait());
        }
    }
}

#[test]
fn every_order_of_complete_cancel_drop_and_deadline_drops_the_value_once() {
    const ROUNDS: usize = 60;
    finishes(|| {
        for round in 0..ROUNDS {
            for how in 0..8 {
                for abandoned in [false, true] {
                    let drops = Arc::new(AtomicUsize::new(0));
                    let hooks = Arc::new(AtomicUsize::new(0));
                    let value = Counted(Arc::clone(&drops));
                    let (transfer, completer) = Transfer::pair();
                    let hook = Arc::clone(&hooks);
                    let worker = thread::spawn(move || {
                        completer.on_cancel(move || {
                            hook.fetch_add(1, Ordering::SeqCst);
                        });
                        for _ in 0..round * 10 {
                            std::hint::spin_loop();
                        }
                        if abandoned {
                            drop(value);
                        } else {
                            completer.complete(Ok(value));
                        }
                    });
                    consume(how, transfer);
                    worker.join().unwrap();
                    assert_eq!(drops.load(Ordering::SeqCst), 1, "consumer {how}");
                    assert!(hooks.load(Ordering::SeqCst) <= 1, "consumer {how}");
                }
            }
        }
    });
}
