//! Who may touch which slot of a host tier, and what a tier refuses to be made of.

use core_alloc::{StorageAllocator, SystemAllocator};
use core_view::BufferMut;
use core_view::contract::{ErrorKind, HostTier, MemoryTier, SlotId, SlotRead, SlotTable};

#[test]
fn a_tier_has_at_least_one_slot() {
    for slot_bytes in [0, 4097, usize::MAX] {
        let storage = SystemAllocator::default().allocate(4096).unwrap();
        let error = HostTier::new(storage, slot_bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    let storage = SystemAllocator::default().allocate(4096).unwrap();
    let tier = HostTier::new(storage, 1365).unwrap();
    assert_eq!((tier.slot_count(), tier.slot_bytes()), (3, 1365));
}

#[test]
fn readers_share_a_slot_and_keep_writers_out() {
    let table = SlotTable::new(2, 64);
    let read = || SlotRead {
        slot: SlotId(1),
        offset_bytes: 0,
        target: BufferMut::from_vec(vec![0; 64]),
    };
    let first = table.claim_reads(&[read(), read()]).unwrap();
    let second = table.claim_reads(&[read()]).unwrap();
    assert_eq!(
        table.claim_lease(SlotId(1)).unwrap_err().kind(),
        ErrorKind::Busy
    );
    drop(first);
    assert_eq!(
        table.claim_lease(SlotId(1)).unwrap_err().kind(),
        ErrorKind::Busy
    );
    drop(second);
    let lease = table.claim_lease(SlotId(1)).unwrap();
    assert_eq!(
        table.claim_reads(&[read()]).unwrap_err().kind(),
        ErrorKind::Busy
    );
    drop(lease);
    assert!(table.claim_reads(&[read()]).is_ok());
}

#[test]
fn a_refused_batch_keeps_no_claim() {
    let table = SlotTable::new(4, 64);
    let read = |slot, offset_bytes| SlotRead {
        slot: SlotId(slot),
        offset_bytes,
        target: BufferMut::from_vec(vec![0; 8]),
    };
    for wrong in [read(1, 57), read(1, usize::MAX), read(4, 0)] {
        let error = table.claim_reads(&[read(0, 0), wrong]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    assert!(table.claim_lease(SlotId(0)).is_ok());
}

#[test]
fn a_lease_outlives_its_tier() {
    let storage = SystemAllocator::default().allocate(4096).unwrap();
    let tier = HostTier::new(storage, 1024).unwrap();
    let mut lease = tier.lease(SlotId(3)).unwrap();
    let again = tier.clone();
    drop(tier);
    assert_eq!(again.lease(SlotId(3)).unwrap_err().kind(), ErrorKind::Busy);
    drop(again);
    lease.fill(8);
    assert!(lease.split_off(512).iter().all(|&byte| byte == 8));
}
