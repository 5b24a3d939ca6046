use std::collections::HashSet;
use std::ptr::NonNull;
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
fn one_waits_in_front_and_the_others_last_in_first_out() {
    let (slots, stack) = (Slots::new(3), Stack::new());
    for value in ["front", "first", "second"] {
        let slot = slots.acquire(0).unwrap();
        // SAFETY: the slot was just acquired.
        unsafe { Stack::push(NonNull::from(&stack), slot, value) }.unwrap();
    }
    assert!(slots.acquire(0).is_none(), "the bound on slots holds");
    let mut waiting = 0;
    slots.waiting(|_| waiting += 1);
    assert_eq!(waiting, 3);
    // SAFETY: all slots are those of `slots`.
    let order: Vec<_> = std::iter::from_fn(|| unsafe { stack.pop(&slots) })
        .map(|(slot, value)| {
            // SAFETY: the slot was just popped.
            unsafe { slots.release(slot) };
            value
        })
        .collect();
    assert_eq!(order, ["front", "second", "first"]);
    slots.waiting(|_| waiting += 1);
    assert_eq!(waiting, 3, "none waits any more");
    assert!(slots.acquire(0).is_some(), "released slots are used again");
}

#[test]
fn a_closed_stack_returns_what_is_pushed() {
    let (slots, stack) = (Slots::new(8), Stack::new());
    for value in 1..=3 {
        let slot = slots.acquire(0).unwrap();
        // SAFETY: the slot was just acquired.
        unsafe { Stack::push(NonNull::from(&stack), slot, value) }.unwrap();
    }
    // SAFETY: all slots are those of `slots`.
    let taken = unsafe { stack.close(&slots) };
    let values: Vec<i32> = taken.iter().map(|(_, value)| *value).collect();
    assert_eq!(values, [1, 3, 2]);
    // SAFETY: the slot was taken above.
    let refused = unsafe { Stack::push(NonNull::from(&stack), taken[0].0, 4) };
    assert_eq!(refused, Err(4));
    // SAFETY: all slots are those of `slots`.
    assert!(unsafe { stack.pop(&slots) }.is_none());
    // SAFETY: all slots are those of `slots`.
    assert!(unsafe { stack.close(&slots) }.is_empty());
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
        let value = Arc::new(AtomicUsize::new(0));
        // SAFETY: the slot was just acquired.
        let pushed = unsafe { Stack::push(NonNull::from(&stack), slot, value) };
        assert!(pushed.is_ok());
    }
    let hands = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    // SAFETY: all slots are those of `slots`.
                    let Some((slot, value)) = (unsafe { stack.pop(&slots) }) else {
                        std::thread::yield_now();
                        continue;
                    };
                    hands.fetch_add(1, Ordering::Relaxed);
                    assert_eq!(value.swap(1, Ordering::AcqRel), 0);
                    assert_eq!(value.swap(0, Ordering::AcqRel), 1);
                    // SAFETY: the slot was just popped.
                    assert!(unsafe { Stack::push(NonNull::from(&stack), slot, value) }.is_ok());
                }
            });
        }
    });
    assert!(hands.into_inner() > ROUNDS);
    // SAFETY: all slots are those of `slots`.
    let left = unsafe { stack.close(&slots) };
    let addresses: HashSet<_> = left.iter().map(|(_, value)| Arc::as_ptr(value)).collect();
    assert_eq!((left.len(), addresses.len()), (3, 3));
}
