//! Operations that are under way while their owners go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use core_view::BufferMut;
use core_view::contract::ErrorKind;

use super::fixture::{Gate, counted, engines, open_file, wait_until};
use crate::engine::{OpenFile, Operation};

const LEN_BYTES: usize = 4096;

fn gated() -> (Arc<Gate>, Arc<OpenFile>) {
    let gate = Arc::new(Gate::default());
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    (Arc::clone(&gate), open_file(file, 1, Some(gate as _)))
}

fn buffer() -> BufferMut {
    BufferMut::from_vec(vec![7; LEN_BYTES])
}

#[test]
fn what_waits_is_cancelled_and_what_runs_is_not() {
    for engine in engines(8) {
        let (gate, file) = gated();
        let (first, running) = Operation::write(Arc::clone(&file), 0, buffer());
        engine.submit(first);
        gate.wait_for_arrival();
        let (second, cancelled) = Operation::write(Arc::clone(&file), 0, buffer());
        engine.submit(second);
        let (third, late) = Operation::write(file, 0, buffer());
        let late = late.with_deadline(Instant::now() + Duration::from_millis(1));
        engine.submit(third);
        running.cancel();
        cancelled.cancel();
        thread::sleep(Duration::from_millis(5));
        gate.open();
        running.wait().unwrap();
        let failure = cancelled.wait().unwrap_err();
        assert_eq!(failure.kind(), ErrorKind::Cancelled);
        assert_eq!(failure.into_parts().1.len(), 1);
        late.wait().unwrap_err();
        wait_until("both have ended", || engine.statistics().cancelled == 2);
        assert_eq!(engine.statistics().writes, 1, "{}", engine.name());
    }
}

#[test]
fn memory_is_kept_until_the_call_is_over_and_freed_once() {
    for engine in engines(8) {
        let (gate, file) = gated();
        let freed = Arc::new(AtomicUsize::new(0));
        for _ in 0..4 {
            let (read, transfer) =
                Operation::read(Arc::clone(&file), 0, counted(LEN_BYTES, &freed));
            engine.submit(read);
            drop(transfer);
        }
        let weak_file = Arc::downgrade(&file);
        drop(file);
        gate.wait_for_arrival();
        let closing = thread::spawn(move || drop(engine));
        thread::sleep(Duration::from_millis(20));
        assert_eq!(freed.load(Ordering::Acquire), 0);
        assert!(weak_file.upgrade().is_some() && !closing.is_finished());
        gate.open();
        closing.join().unwrap();
        assert_eq!(freed.load(Ordering::Acquire), 4);
        assert!(weak_file.upgrade().is_none());
    }
}

#[test]
fn submitters_wait_at_the_depth() {
    for engine in engines(4) {
        let (gate, file) = gated();
        let submitted = Arc::new(AtomicUsize::new(0));
        let submitter = {
            let (engine, submitted) = (Arc::clone(&engine), Arc::clone(&submitted));
            thread::spawn(move || {
                let mut transfers = Vec::new();
                for _ in 0..10 {
                    let (write, transfer) = Operation::write(Arc::clone(&file), 0, buffer());
                    engine.submit(write);
                    submitted.fetch_add(1, Ordering::AcqRel);
                    transfers.push(transfer);
                }
                transfers
            })
        };
        wait_until("a submitter waits", || engine.statistics().depth_waits == 1);
        thread::sleep(Duration::from_millis(20));
        assert_eq!(submitted.load(Ordering::Acquire), 4);
        gate.open();
        for transfer in submitter.join().unwrap() {
            transfer.wait().unwrap();
        }
        let statistics = engine.statistics();
        assert_eq!(statistics.outstanding_max, 4, "{statistics:?}");
        assert!(statistics.depth_waits <= 6, "{statistics:?}");
    }
}

#[test]
fn completions_submit_within_a_bound_of_their_own() {
    for engine in engines(1) {
        let (gate, file) = gated();
        gate.open();
        let (sender, receiver) = mpsc::channel();
        let (first, transfer) = Operation::write(Arc::clone(&file), 0, buffer());
        let chained = Arc::clone(&engine);
        transfer.on_complete(move |_| {
            for _ in 0..3 {
                let (write, transfer) = Operation::write(Arc::clone(&file), 0, buffer());
                chained.submit(write);
                sender.send(transfer).unwrap();
            }
        });
        engine.submit(first);
        let outcomes: Vec<_> = receiver.iter().map(|transfer| transfer.wait()).collect();
        assert!(outcomes[0].is_ok() && outcomes[1].is_ok());
        let failure = outcomes.into_iter().nth(2).unwrap().unwrap_err();
        assert_eq!(failure.kind(), ErrorKind::Busy, "{failure}");
        assert_eq!(failure.into_parts().1.len(), 1);
        assert_eq!(engine.statistics().depth_refusals, 1);
    }
}

#[test]
fn the_last_handle_may_be_dropped_by_a_completion() {
    for engine in engines(4) {
        let (gate, file) = gated();
        let (sender, receiver) = mpsc::channel();
        let (first, transfer) = Operation::write(Arc::clone(&file), 0, buffer());
        let (second, waited) = Operation::write(file, 0, buffer());
        let last = Arc::clone(&engine);
        transfer.on_complete(move |_| {
            drop(last);
            sender.send(()).unwrap();
        });
        engine.submit(first);
        engine.submit(second);
        drop(engine);
        gate.open();
        receiver.recv_timeout(Duration::from_secs(20)).unwrap();
        waited.wait().unwrap();
    }
}

#[test]
fn an_engine_survives_a_completion_that_panics() {
    for engine in engines(4) {
        let (gate, file) = gated();
        gate.open();
        let (first, transfer) = Operation::write(Arc::clone(&file), 0, buffer());
        transfer.on_complete(|_| panic!("a planted panic"));
        engine.submit(first);
        let (second, transfer) = Operation::write(file, 0, buffer());
        engine.submit(second);
        transfer.wait().unwrap();
        wait_until("the panic is counted", || {
            engine.statistics().callback_panics == 1
        });
    }
}

/// A read that the kernel itself holds, because nothing is in the pipe yet.
#[cfg(feature = "io-uring")]
#[test]
fn the_kernel_may_write_after_everything_is_dropped() {
    use std::io::Write;

    use crate::engine::Engine;

    let ring = match crate::engine::ring::IoUring::start(4, 1) {
        Ok(ring) => ring,
        Err(refusal) => return println!("skipped: io_uring: {refusal}"),
    };
    let (reader, mut writer) = std::io::pipe().unwrap();
    let file = std::fs::File::from(std::os::fd::OwnedFd::from(reader));
    let file = open_file(file, 1, None);
    let freed = Arc::new(AtomicUsize::new(0));
    let (read, transfer) = Operation::read(file, 0, counted(LEN_BYTES, &freed));
    ring.submit(read);
    drop(transfer);
    let closing = thread::spawn(move || drop(ring));
    thread::sleep(Duration::from_millis(30));
    assert_eq!(freed.load(Ordering::Acquire), 0);
    assert!(!closing.is_finished());
    // In two parts, so that the first is a short transfer.
    writer.write_all(&[1; 1000]).unwrap();
    thread::sleep(Duration::from_millis(5));
    assert_eq!(freed.load(Ordering::Acquire), 0);
    writer.write_all(&[1; LEN_BYTES - 1000]).unwrap();
    closing.join().unwrap();
    assert_eq!(freed.load(Ordering::Acquire), 1);
}
