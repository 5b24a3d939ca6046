//! Many users of the same slots at once; operations that are dropped, cancelled or late.

use std::thread;
use std::time::{Duration, Instant};

use super::history::{History, Write};
use super::memory_tier::TierSuite;
use super::verdict::{FAULTS, check_failure, places, until, wait};
use super::{block_on, pattern};
use crate::BufferMut;
use crate::contract::mock::Dice;
use crate::contract::{ErrorKind, Failure, Transfer};

const THREADS: u64 = 4;
const ROUNDS: u64 = 60;
const SLOTS: u32 = 4;
const BUSY: &[ErrorKind] = &[ErrorKind::Busy];
const STOPPED: &[ErrorKind] = &[ErrorKind::Cancelled, ErrorKind::TimedOut];

pub(super) fn check(suite: &TierSuite) {
    overlapping(suite);
    threads(suite);
    stopped(suite);
    dropped(suite);
}

/// Two writes of one slot at once: one of them, as a whole, or both in turn.
fn overlapping(suite: &TierSuite) {
    let len = suite.slot_bytes();
    for round in 0..16 {
        suite.fill(SLOTS, 3000);
        let tags = [4000 + 2 * round, 4001 + 2 * round];
        let writes = tags.map(|tag| suite.write(2, 0, tag, len));
        let given = writes.each_ref().map(|write| places([&write.source]));
        let transfers = writes.map(|write| suite.tier.write(vec![write]));
        let mut faults = false;
        let mut written = vec![3002];
        for ((transfer, given), tag) in transfers.into_iter().zip(given).zip(tags) {
            match wait("overlapping writes", transfer) {
                Ok(_) => written.push(tag),
                Err(failure) => {
                    faults |= failure.kind() != ErrorKind::Busy;
                    check_failure("overlapping writes", failure, &given, &[FAULTS, BUSY]);
                }
            }
        }
        let found = suite.read_back("overlapping writes", &[(2, 0, len)]);
        let tag = found.first().and_then(|found| pattern::identify(found));
        let last = written.split_first().filter(|(_, rest)| !rest.is_empty());
        let possible = last.map_or(&written[..], |(_, rest)| rest);
        assert!(
            faults || tag.is_some_and(|tag| possible.contains(&tag)),
            "overlapping writes left a mixture or a lost write: {tag:x?} of {written:x?}"
        );
    }
}

/// Threads read, write and copy the same slots; every read saw a write that may have been the last.
fn threads(suite: &TierSuite) {
    suite.fill(SLOTS, 5000);
    let history = History::default();
    for slot in 0..SLOTS {
        let start = history.begin();
        history.wrote(slot, 5000 + u64::from(slot), start, Write::Done);
    }
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let history = &history;
            scope.spawn(move || {
                let mut dice = Dice::new(thread);
                for round in 0..ROUNDS {
                    let slot = dice.index(SLOTS as usize) as u32;
                    if dice.chance(0.5) {
                        write(suite, history, slot, 6000 + thread * ROUNDS + round);
                    } else {
                        read(suite, history, slot);
                    }
                }
            });
        }
    });
    for slot in 0..SLOTS {
        until("read at rest", || read(suite, &history, slot));
    }
    history.check();
}

fn write(suite: &TierSuite, history: &History<u32>, slot: u32, tag: u64) {
    let write = suite.write(slot, 0, tag, suite.slot_bytes());
    let given = places([&write.source]);
    let start = history.begin();
    match wait("write among many", suite.tier.write(vec![write])) {
        Ok(sources) => {
            assert_eq!(
                places(&sources),
                given,
                "write among many: other buffers came back"
            );
            history.wrote(slot, tag, start, Write::Done);
        }
        Err(failure) => {
            if failure.kind() != ErrorKind::Busy {
                history.wrote(slot, tag, start, Write::Garbled);
            }
            check_failure("write among many", failure, &given, &[FAULTS, BUSY]);
        }
    }
}

fn read(suite: &TierSuite, history: &History<u32>, slot: u32) -> Option<()> {
    let read = suite.read(slot, 0, suite.slot_bytes());
    let given = places([&read.target]);
    let start = history.begin();
    match block_on(suite.tier.read(vec![read])) {
        Ok(targets) => {
            assert_eq!(
                places(&targets),
                given,
                "read among many: other buffers came back"
            );
            let tag = targets.first().and_then(|target| pattern::identify(target));
            history.read(slot, tag, start);
            Some(())
        }
        Err(failure) => {
            check_failure("read among many", failure, &given, &[FAULTS, BUSY]);
            None
        }
    }
}

/// Cancelled and late operations: done, or stopped with their buffers; their slots are free again.
fn stopped(suite: &TierSuite) {
    let len = suite.slot_bytes();
    for how in ["cancel", "late", "late task", "soon"] {
        for slot in 0..SLOTS {
            let write = suite.write(slot, 0, 7000, len);
            let given = places([&write.source]);
            check(how, stop(how, suite.tier.write(vec![write])), &given);
            suite.settle();
            let read = suite.read(slot, 0, len);
            let given = places([&read.target]);
            check(how, stop(how, suite.tier.read(vec![read])), &given);
            suite.settle();
        }
    }

    fn check(how: &str, outcome: Result<Vec<BufferMut>, Failure>, given: &[(usize, usize)]) {
        match outcome {
            Ok(buffers) => assert_eq!(places(&buffers), given, "{how}: other buffers came back"),
            Err(failure) => drop(check_failure(how, failure, given, &[FAULTS, STOPPED])),
        }
    }
    suite.fill(SLOTS, 7100);
    suite.check_filled("after stopped operations", SLOTS, 7100);
}

fn stop<T: Send + 'static>(how: &str, transfer: Transfer<T>) -> Result<T, Failure> {
    match how {
        "cancel" => {
            transfer.cancel();
            wait(how, transfer)
        }
        "late" => transfer.with_deadline(Instant::now()).wait(),
        "late task" => block_on(transfer.with_deadline(Instant::now())),
        _ => transfer
            .with_deadline(Instant::now() + Duration::from_micros(200))
            .wait(),
    }
}

/// What nobody waits for goes on or stops, and gives up its memory and its slots once.
fn dropped(suite: &TierSuite) {
    let len = suite.slot_bytes();
    for round in 0..8 {
        for slot in 0..SLOTS {
            drop(
                suite
                    .tier
                    .write(vec![suite.write(slot, 0, 8000 + round, len)]),
            );
            drop(suite.tier.read(vec![suite.read(slot, 0, len)]));
        }
        suite.settle();
    }
    suite.fill(SLOTS, 8100);
    suite.check_filled("after dropped transfers", SLOTS, 8100);
}
