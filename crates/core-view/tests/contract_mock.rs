//! What the mocks promise beyond the contracts: seeds, order, faults, and an end.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use core_alloc::{StorageAllocator, SystemAllocator};
use core_view::BufferMut;
use core_view::contract::conformance::{Quarantine, block_on};
use core_view::contract::mock::{
    Dice, Faults, MockBlockStore, MockMedia, MockOperations, MockTier, Schedule,
};
use core_view::contract::{
    BlockGet, BlockKey, BlockMeta, BlockPut, BlockStore, ErrorKind, HostTier, MemoryTier, SlotCopy,
    SlotId, SlotRead, SlotWrite, Transfer,
};

const HUNG: Faults = Faults {
    hung: 1.0,
    ..Faults::NONE
};

fn host_tier() -> HostTier {
    HostTier::new(SystemAllocator::default().allocate(8 * 64).unwrap(), 64).unwrap()
}

fn write(slot: u32, value: u8) -> SlotWrite {
    SlotWrite {
        slot: SlotId(slot),
        offset_bytes: 0,
        source: BufferMut::from_vec(vec![value; 64]),
    }
}

fn kind<T: Send + 'static>(transfer: Transfer<T>) -> Option<ErrorKind> {
    transfer.wait().err().map(|failure| failure.kind())
}

/// Starts 16 operations, and gives the order in which they complete.
fn completion_order(schedule: Schedule) -> Vec<u32> {
    let operations = MockOperations::new(schedule);
    let order = Arc::new(Mutex::new(Vec::new()));
    let transfers: Vec<_> = (0..16)
        .map(|i| {
            let order = Arc::clone(&order);
            let transfer = operations.start(Vec::new());
            transfer.map_outcome(move |outcome| {
                order.lock().unwrap().push(i);
                outcome
            })
        })
        .collect();
    drop(Transfer::join(transfers).wait());
    std::mem::take(&mut order.lock().unwrap())
}

#[test]
fn a_seed_reproduces_the_order_and_another_gives_another() {
    let in_order: Vec<_> = (0..16).collect();
    let first = completion_order(Schedule::driven(1));
    assert_eq!(first, completion_order(Schedule::driven(1)));
    assert_ne!(first, completion_order(Schedule::driven(2)));
    assert_ne!(first, in_order);
    let mut sorted = first;
    sorted.sort_unstable();
    assert_eq!(sorted, in_order);
    assert_eq!(completion_order(Schedule::immediate()), in_order);
    let delayed = Schedule::delayed(Duration::from_micros(10));
    assert_eq!(completion_order(delayed), in_order);
    let reordered = (0..20).any(|seed| completion_order(Schedule::reordering(seed)) != in_order);
    assert!(reordered, "the reordering thread keeps the order");
}

#[test]
fn a_seed_reproduces_the_faults() {
    let outcomes = |seed| -> Vec<_> {
        let faults = Faults {
            refused: 0.2,
            abandoned: 0.2,
            ..Faults::NONE
        };
        let operations = MockOperations::new(Schedule::immediate().with_faults(seed, faults));
        (0..64)
            .map(|_| kind(operations.start(Vec::new())))
            .collect()
    };
    assert_eq!(outcomes(5), outcomes(5));
    assert_ne!(outcomes(5), outcomes(6));
    for expected in [None, Some(ErrorKind::Io), Some(ErrorKind::Abandoned)] {
        assert!(
            outcomes(5).contains(&expected),
            "{expected:?} never happens"
        );
    }
}

#[test]
fn what_is_delayed_ends_after_its_turns_and_can_not_be_stopped() {
    let faults = Faults {
        delayed: 1.0,
        ..Faults::NONE
    };
    let store = MockBlockStore::new(Schedule::driven(3).with_faults(3, faults));
    let put = BlockPut {
        key: BlockKey(1),
        meta: BlockMeta::EMPTY,
        payload: BufferMut::from_vec(vec![5; 64]),
    };
    let mut transfer = store.put(vec![put]);
    transfer.cancel();
    let mut turns = 0;
    let outcome = loop {
        transfer = match transfer.wait_for(Duration::ZERO) {
            Ok(outcome) => break outcome,
            Err(transfer) => transfer,
        };
        turns += 1;
    };
    assert!(turns > 0 && turns <= 24, "{turns}");
    assert!(outcome.unwrap().remove(0).is_ok());
    assert_eq!(store.contains(&[BlockKey(1)]).unwrap(), [true]);
    assert_eq!(store.fault_counts().delayed, 1);
}

#[test]
fn a_medium_that_rots_or_loses_its_way_says_nothing() {
    let store = MockBlockStore::new(Schedule::immediate());
    let keys = [BlockKey(1), BlockKey(2)];
    let puts = keys.map(|key| BlockPut {
        key,
        meta: BlockMeta::new(&[key.0 as u8]).unwrap(),
        payload: BufferMut::from_vec(vec![key.0 as u8; 64]),
    });
    for item in store.put(puts.into()).wait().unwrap() {
        item.unwrap();
    }
    let get = |key| {
        let target = BufferMut::zeroed(64, 64).unwrap();
        let block = store.get(vec![BlockGet { key, target }]).wait();
        block.unwrap().remove(0).unwrap()
    };
    assert!(store.media().swap(keys[0], keys[1]));
    assert_eq!(get(keys[0]).meta.as_slice(), [2]);
    assert_eq!(get(keys[1]).payload()[7], 1);
    assert!(store.media().rot_bit(keys[1], 8 * 7));
    assert_eq!(get(keys[1]).payload()[7], 0);
    assert!(!store.media().swap(keys[0], BlockKey(3)) && !store.media().swap(keys[0], keys[0]));
    assert!(!store.media().rot_bit(BlockKey(3), 0));
    assert_eq!(get(keys[0]).payload()[0], 2);
}

#[test]
fn what_hangs_ends_when_it_is_cancelled_or_late() {
    let quarantine = Quarantine::default();
    for schedule in [
        Schedule::immediate(),
        Schedule::delayed(Duration::ZERO),
        Schedule::reordering(1),
        Schedule::driven(1),
    ] {
        let operations = MockOperations::new(schedule.with_faults(1, HUNG));
        let start = || operations.start(vec![quarantine.buffer(100)]);
        let soon = Duration::from_millis(3);
        let transfer = start().wait_for(soon).expect_err("it hangs");
        transfer.cancel();
        let failure = transfer.wait().unwrap_err();
        assert_eq!(failure.kind(), ErrorKind::Cancelled);
        assert_eq!(failure.into_parts().1.len(), 1);
        for awaited in [false, true] {
            let late = start().with_deadline(Instant::now() + soon);
            let failure = if awaited { block_on(late) } else { late.wait() }.unwrap_err();
            assert_eq!(failure.kind(), ErrorKind::TimedOut);
            assert_eq!(failure.into_parts().1.len(), 1);
        }
        drop(start().with_deadline(Instant::now() + soon));
        quarantine.settle(|| {});
        let left = start();
        drop(start());
        drop(operations);
        let failure = left.wait().unwrap_err();
        assert_eq!(failure.kind(), ErrorKind::Abandoned);
        drop(failure);
        quarantine.settle(|| {});
    }
}

#[test]
fn a_dropped_tier_leaves_nothing_behind() {
    let quarantine = Quarantine::default();
    for schedule in [
        Schedule::driven(3),
        Schedule::reordering(3),
        Schedule::delayed(Duration::from_secs(600)),
    ] {
        let tier = MockTier::new(host_tier(), schedule);
        let write = |slot| SlotWrite {
            slot: SlotId(slot),
            offset_bytes: 0,
            source: quarantine.buffer(64),
        };
        let kept = tier.write(vec![write(0)]);
        drop(tier.write(vec![write(1), write(2)]));
        drop(tier);
        drop(kept.wait().unwrap());
        quarantine.settle(|| {});
    }
}

#[test]
fn a_queued_batch_has_its_slots_for_itself() {
    let tier = MockTier::new(host_tier(), Schedule::driven(4));
    let copy = |source, target| SlotCopy {
        source: SlotId(source),
        source_offset_bytes: 0,
        target: SlotId(target),
        target_offset_bytes: 0,
        len_bytes: 8,
    };
    let read = |slot| SlotRead {
        slot: SlotId(slot),
        offset_bytes: 0,
        target: BufferMut::from_vec(vec![0; 8]),
    };
    let writing = tier.write(vec![write(0, 1)]);
    assert_eq!(
        kind(tier.write(vec![write(1, 1), write(0, 1)])),
        Some(ErrorKind::Busy)
    );
    assert_eq!(kind(tier.read(vec![read(0)])), Some(ErrorKind::Busy));
    assert_eq!(kind(tier.copy(vec![copy(0, 2)])), Some(ErrorKind::Busy));
    assert_eq!(tier.lease(SlotId(0)).unwrap_err().kind(), ErrorKind::Busy);
    let reading = [tier.read(vec![read(3)]), tier.read(vec![read(3), read(3)])];
    assert_eq!(kind(tier.write(vec![write(3, 1)])), Some(ErrorKind::Busy));
    assert_eq!(tier.lease(SlotId(3)).unwrap_err().kind(), ErrorKind::Busy);
    writing.cancel();
    assert_eq!(kind(writing), Some(ErrorKind::Cancelled));
    let lease = tier.lease(SlotId(0)).unwrap();
    assert_eq!(lease[..8], [0; 8], "a cancelled write was carried out");
    while tier.step() {}
    assert!(reading.iter().all(Transfer::is_done));
    assert!(tier.lease(SlotId(3)).is_ok());
}

#[test]
fn a_torn_write_may_have_been_carried_out() {
    let torn = Faults {
        torn: 1.0,
        ..Faults::NONE
    };
    let tier = MockTier::new(host_tier(), Schedule::immediate().with_faults(1, torn));
    let failure = tier.write(vec![write(2, 9)]).wait().unwrap_err();
    assert_eq!(
        (failure.kind(), failure.into_parts().1.len()),
        (ErrorKind::Io, 1)
    );
    assert_eq!(tier.lease(SlotId(2)).unwrap()[..], [9; 64]);
}

#[test]
fn flipped_bits_are_detected_and_outlive_the_store() {
    let flipped = Faults {
        flipped: 1.0,
        ..Faults::NONE
    };
    let media = MockMedia::default();
    let store = MockBlockStore::open(media.clone(), Schedule::immediate().with_faults(1, flipped));
    let put = |key, payload| BlockPut {
        key: BlockKey(key),
        meta: BlockMeta::new(b"meta").unwrap(),
        payload: BufferMut::from_vec(payload),
    };
    let items = store
        .put(vec![put(1, vec![3; 50]), put(2, vec![4; 50])])
        .wait()
        .unwrap();
    assert!(items.iter().all(Result::is_ok));
    drop(store);
    let store = MockBlockStore::open(media.clone(), Schedule::immediate());
    let get = |key| {
        let target = BufferMut::from_vec(vec![0; 64]);
        let get = BlockGet {
            key: BlockKey(key),
            target,
        };
        store.get(vec![get]).wait().unwrap().remove(0)
    };
    for key in [1, 2] {
        assert_eq!(get(key).unwrap_err().kind(), ErrorKind::Corrupt);
    }
    assert!(store.put(vec![put(1, vec![3; 50])]).wait().unwrap()[0].is_ok());
    assert_eq!(get(1).unwrap().payload(), [3; 50]);
    for bit in 0..400 {
        assert!(media.flip_bit(BlockKey(1), bit));
        assert_eq!(get(1).unwrap_err().kind(), ErrorKind::Corrupt, "bit {bit}");
        assert!(media.flip_bit(BlockKey(1), bit));
    }
    assert_eq!(get(1).unwrap().payload(), [3; 50]);
    assert!(!media.flip_bit(BlockKey(9), 0));
}

#[test]
fn dice_are_fair_enough_and_reproducible() {
    let mut dice = Dice::nth(7, 3);
    let again: Vec<_> = std::iter::repeat_with(|| dice.next_u64())
        .take(100)
        .collect();
    let mut same = Dice::nth(7, 3);
    assert!(again.iter().all(|&number| number == same.next_u64()));
    let mut counts = [0; 6];
    for _ in 0..6000 {
        counts[dice.index(6)] += 1;
    }
    assert!(
        counts.iter().all(|count| (850..1150).contains(count)),
        "{counts:?}"
    );
    assert!((0..100).all(|_| !dice.chance(0.0) && dice.chance(1.0)));
    assert_eq!((dice.below(0), dice.index(0)), (0, 0));
}

#[test]
fn a_full_queue_refuses_and_gives_the_buffers_back() {
    let operations = MockOperations::new(Schedule::driven(1).with_queue_max(2));
    let start = || operations.start(vec![BufferMut::from_vec(vec![0; 8])]);
    let held = [start(), start()];
    let failure = start().wait().unwrap_err();
    assert_eq!(
        (failure.kind(), failure.into_parts().1.len()),
        (ErrorKind::Busy, 1)
    );
    assert!(operations.step());
    assert!(start().wait().is_ok());
    for transfer in held {
        assert!(transfer.wait().is_ok());
    }
}
