//! Many users of the same keys at once; operations that are dropped, cancelled or late.

use std::thread;
use std::time::{Duration, Instant};

use super::block_on;
use super::block_trial::{BUSY, StoreSuite};
use super::history::{History, Write};
use super::pattern;
use super::verdict::{FAULTS, check_failure, places, until, wait};
use crate::contract::mock::Dice;
use crate::contract::{BlockKey, ErrorKind, Failure, Transfer};

const THREADS: u64 = 4;
const ROUNDS: u64 = 60;
const KEYS: u128 = 4;
/// Stands for no block in the history.
const ABSENT: u64 = 0;
const LEN_BYTES: usize = 600;
const STOPPED: &[ErrorKind] = &[ErrorKind::Cancelled, ErrorKind::TimedOut];

pub(super) fn check(suite: &StoreSuite) {
    threads(suite);
    stopped(suite);
    dropped(suite);
}

/// Threads put, fetch and remove the same keys; every fetch saw what may have been there last.
fn threads(suite: &StoreSuite) {
    let history = History::default();
    for key in 0..KEYS {
        let start = history.begin();
        history.wrote(key, ABSENT, start, Write::Done);
    }
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let history = &history;
            scope.spawn(move || {
                let mut dice = Dice::new(thread);
                for round in 0..ROUNDS {
                    let key = u128::from(dice.below(KEYS as u64));
                    match dice.below(8) {
                        0..3 => put(suite, history, key, 1 + thread * ROUNDS + round),
                        3 => remove(suite, history, key),
                        _ => drop(get(suite, history, key)),
                    }
                }
            });
        }
    });
    for key in 0..KEYS {
        until("store at rest", || {
            put(suite, &history, key, 10_000 + key as u64);
            get(suite, &history, key)
        });
    }
    history.check();
    suite.settle();
}

/// Writes of one key differ in length too, so that a mixture can't hide.
fn len_of(tag: u64) -> usize {
    LEN_BYTES - (tag % 97) as usize
}

fn put(suite: &StoreSuite, history: &History<u128>, key: u128, tag: u64) {
    let start = history.begin();
    let put = suite.put(key, tag, &tag.to_le_bytes(), len_of(tag));
    let how = match suite.try_put("put among many", put) {
        Some(()) => Write::Done,
        None => Write::Failed,
    };
    history.wrote(key, tag, start, how);
}

fn remove(suite: &StoreSuite, history: &History<u128>, key: u128) {
    let start = history.begin();
    let how = match block_on(suite.store.remove(&[BlockKey(key)])) {
        Ok(_) => Write::Done,
        Err(failure) => {
            check_failure("remove among many", failure, &[], &[FAULTS, BUSY]);
            Write::Failed
        }
    };
    history.wrote(key, ABSENT, start, how);
}

fn get(suite: &StoreSuite, history: &History<u128>, key: u128) -> Option<()> {
    let start = history.begin();
    let found = suite.try_get("get among many", key, LEN_BYTES).ok()?;
    let tag = match found {
        None => Some(ABSENT),
        Some((meta, payload)) => pattern::identify(&payload)
            .filter(|tag| meta == tag.to_le_bytes() && payload.len() == len_of(*tag)),
    };
    history.read(key, tag, start);
    Some(())
}

/// Cancelled and late operations: done, or stopped with their buffers.
fn stopped(suite: &StoreSuite) {
    for how in ["cancel", "late", "late task", "soon"] {
        let puts: Vec<_> = (20..24)
            .map(|key| suite.put(key, 7, b"", LEN_BYTES))
            .collect();
        let given = places(puts.iter().map(|put| &put.payload));
        match stop(how, suite.store.put(puts)) {
            Ok(items) => assert_eq!(items.len(), given.len(), "{how}: an item is missing"),
            Err(failure) => drop(check_failure(
                how,
                failure,
                &given,
                &[FAULTS, BUSY, STOPPED],
            )),
        }
        suite.settle();
        let gets: Vec<_> = (20..24).map(|key| suite.get(key, LEN_BYTES)).collect();
        let given = places(gets.iter().map(|get| &get.target));
        match stop(how, suite.store.get(gets)) {
            Ok(items) => {
                assert_eq!(items.len(), given.len(), "{how}: an item is missing");
                for block in items.into_iter().flatten() {
                    assert!(
                        block.payload() == pattern::bytes(7, LEN_BYTES),
                        "{how}: a stopped put left other bytes"
                    );
                }
            }
            Err(failure) => drop(check_failure(
                how,
                failure,
                &given,
                &[FAULTS, BUSY, STOPPED],
            )),
        }
        suite.settle();
    }
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

/// What nobody waits for goes on or stops, and gives up its memory once.
fn dropped(suite: &StoreSuite) {
    for round in 0..16 {
        drop(suite.store.put(vec![suite.put(30, round, b"", LEN_BYTES)]));
        drop(suite.store.get(vec![suite.get(30, LEN_BYTES)]));
    }
    suite.settle();
    until("after dropped transfers", || {
        suite.try_put("after dropped transfers", suite.put(30, 99, b"", LEN_BYTES))?;
        let found = suite
            .try_get("after dropped transfers", 30, LEN_BYTES)
            .ok()?;
        let expected = Some((Vec::new(), pattern::bytes(99, LEN_BYTES)));
        assert!(found == expected, "after dropped transfers: other bytes");
        Some(())
    });
}
