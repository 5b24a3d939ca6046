use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{SLOTS_MAX, Slots, Stack, locate};

#[test]
fn every_index_has_its_own_place() {
    let mut before = (0, usize::MAX);
    for index in 0..100_000 {
        let place = locate(index);
        match place.0 == before.0 {
            true => assert_eq!(place.1, before.1.wrapping_add(1)),
            false => assert_eq!(place, (before.0 + 1, 0)),
        }
        before = place;
    }
    assert_eq!(locate(SLOTS_MAX - 1).0, super::SEGMENTS - 1);
}

#[test]
fn last_in_first_out() {
    let (slots, stack) = (Slots::new(3), Stack::new());
    for value in ["first", "second", "third"] {
        let slot = slots.acquire(0).unwrap();
        // SAFETY: the slot was just acquired.
        unsafe { stack.push(&slots, slot, value) }.unwrap();
    }
    assert!(slots.acquire(0).is_none(), "the bound on slots holds");
    let order: Vec<_> = std::iter::from_fn(|| stack.pop(&slots))
        .map(|(slot, value)| {
            slots.release(slot);
            value
        })
        .collect();
    assert_eq!(order, ["third", "second", "first"]);
    assert!(slots.acquire(0).is_some(), "released slots are used again");
}

#[test]
fn a_closed_stack_returns_what_is_pushed() {
    let (slots, stack) = (Slots::new(8), Stack::new());
    let first = slots.acquire(0).unwrap();
    let second = slots.acquire(0).unwrap();
    // SAFETY: the slot was just acquired.
    unsafe { stack.push(&slots, first, 1) }.unwrap();
    let taken: Vec<i32> = stack
        .close(&slots)
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    assert_eq!(taken, [1]);
    // SAFETY: the slot was acquired above and never given up.
    assert_eq!(unsafe { stack.push(&slots, second, 2) }, Err(2));
    assert!(stack.pop(&slots).is_none());
}

/// Values that more than one thread holds at a time would trip the flag in them.
#[test]
fn no_value_is_in_two_hands() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 20_000;
    let slots = Slots::new(100);
    let stack = Stack::new();
    for _ in 0..3 {
        let slot = slots.acquire(0).unwrap();
        // SAFETY: the slot was just acquired.
        assert!(unsafe { stack.push(&slots, slot, Arc::new(AtomicUsize::new(0))) }.is_ok());
    }
    let misses = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let Some((slot, value)) = stack.pop(&slots) else {
                        misses.fetch_add(1, Ordering::Relaxed);
                        std::thread::yield_now();
                        continue;
                    };
                    assert_eq!(value.swap(1, Ordering::AcqRel), 0);
                    assert_eq!(value.swap(0, Ordering::AcqRel), 1);
                    // SAFETY: the slot was just popped.
                    assert!(unsafe { stack.push(&slots, slot, value) }.is_ok());
                }
            });
        }
    });
    let left = stack.close(&slots);
    let addresses: HashSet<_> = left.iter().map(|(_, value)| Arc::as_ptr(value)).collect();
    assert_eq!((left.len(), addresses.len()), (3, 3));
}
