//! Leases of slots: alone, whole, and over when the last part is dropped.

use super::memory_tier::TierSuite;
use super::pattern;
use super::verdict::{FAULTS, check_failure, check_refused, places, until, wait};
use crate::BufferMut;
use crate::contract::{ErrorKind, SlotCopy, SlotId, SlotWrite};

const BUSY: &[ErrorKind] = &[ErrorKind::Busy];

pub(super) fn check(suite: &TierSuite) {
    suite.fill(4, 1000);
    for beyond in [suite.tier.slot_count(), u32::MAX] {
        let kind = suite
            .tier
            .lease(SlotId(beyond))
            .err()
            .map(|error| error.kind());
        assert!(
            matches!(kind, Some(ErrorKind::InvalidInput | ErrorKind::Unsupported)),
            "a lease of a slot that is not there: {kind:?}"
        );
    }
    let Some(lease) = lease(suite, 1) else {
        return;
    };
    alone(suite, lease);
    as_source(suite);
    under_way(suite);
}

/// A lease of the slot, or `None` where the host can't reach the memory.
fn lease(suite: &TierSuite, slot: u32) -> Option<BufferMut> {
    let lease = match suite.tier.lease(SlotId(slot)) {
        Ok(lease) => lease,
        Err(error) => {
            assert_eq!(
                error.kind(),
                ErrorKind::Unsupported,
                "a free slot can't be leased"
            );
            return None;
        }
    };
    assert_eq!(lease.len(), suite.slot_bytes(), "the length of a lease");
    Some(lease)
}

/// While a slot is leased, every batch that names it is refused as a whole.
fn alone(suite: &TierSuite, mut lease: BufferMut) {
    let len = suite.slot_bytes();
    assert!(
        lease[..] == pattern::bytes(1001, len),
        "a lease shows other bytes than the slot's"
    );
    pattern::fill(2000, &mut lease);
    let mut part = lease.split_off(len / 2);
    for holder in [Some(lease), None] {
        refused(suite);
        drop(holder);
    }
    part[0] ^= 1;
    drop(part);
    let mut expected = pattern::bytes(2000, len);
    expected[len / 2] ^= 1;
    let found = suite.read_back("after a lease", &[(1, 0, len), (0, 0, len)]);
    assert!(
        found == [expected, pattern::bytes(1000, len)],
        "other bytes after a lease, or a refused batch was begun"
    );
    suite.fill(4, 1100);
}

fn refused(suite: &TierSuite) {
    let again = suite.tier.lease(SlotId(1)).err().map(|error| error.kind());
    assert_eq!(
        again,
        Some(ErrorKind::Busy),
        "a leased slot was leased again"
    );
    let writes = vec![suite.write(0, 0, 1, 8), suite.write(1, 0, 1, 8)];
    let given = places(writes.iter().map(|write| &write.source));
    let outcome = wait("write under a lease", suite.tier.write(writes));
    check_refused("write under a lease", outcome, &given, &[BUSY]);
    let reads = vec![suite.read(0, 0, 8), suite.read(1, 0, 8)];
    let given = places(reads.iter().map(|read| &read.target));
    let outcome = wait("read under a lease", suite.tier.read(reads));
    check_refused("read under a lease", outcome, &given, &[BUSY]);
    for (source, target) in [(0, 1), (1, 0)] {
        let copy = SlotCopy {
            source: SlotId(source),
            source_offset_bytes: 0,
            target: SlotId(target),
            target_offset_bytes: 0,
            len_bytes: 8,
        };
        let outcome = wait("copy under a lease", suite.tier.copy(vec![copy]));
        check_refused("copy under a lease", outcome, &[], &[BUSY]);
    }
}

/// A leased slot is a source like any other.
fn as_source(suite: &TierSuite) {
    let len = suite.slot_bytes();
    let mut source = lease(suite, 3);
    until("write from a lease", || {
        let mut given = source.take().or_else(|| lease(suite, 3))?;
        pattern::fill(1200, &mut given);
        let write = SlotWrite {
            slot: SlotId(2),
            offset_bytes: 0,
            source: given,
        };
        let given = places([&write.source]);
        match wait("write from a lease", suite.tier.write(vec![write])) {
            Ok(_) => Some(()),
            Err(failure) => {
                let back = check_failure("write from a lease", failure, &given, &[FAULTS]);
                source = back.into_iter().next();
                None
            }
        }
    });
    drop(source);
    let found = suite.read_back("write from a lease", &[(2, 0, len), (3, 0, len)]);
    let expected = pattern::bytes(1200, len);
    assert!(
        found.iter().all(|found| *found == expected),
        "a leased source: other bytes"
    );
    suite.fill(4, 1300);
}

/// A lease is not given while a write is under way, or the write is over.
fn under_way(suite: &TierSuite) {
    let len = suite.slot_bytes();
    for round in 0..16 {
        let tag = 1400 + round;
        let write = suite.write(1, 0, tag, len);
        let given = places([&write.source]);
        let transfer = suite.tier.write(vec![write]);
        match suite.tier.lease(SlotId(1)) {
            Ok(lease) => {
                let found = lease.to_vec();
                match wait("write before a lease", transfer) {
                    Ok(_) => assert!(
                        found == pattern::bytes(tag, len),
                        "a slot was leased before a write to it was over"
                    ),
                    Err(failure) => {
                        drop(check_failure(
                            "write before a lease",
                            failure,
                            &given,
                            &[FAULTS],
                        ));
                    }
                }
                assert!(lease[..] == found[..], "a leased slot was written");
            }
            Err(error) => {
                assert_eq!(
                    error.kind(),
                    ErrorKind::Busy,
                    "a lease while a slot is written"
                );
                drop(wait("write before a lease", transfer));
            }
        }
    }
    suite.fill(4, 1500);
    suite.check_filled("after leases", 4, 1500);
}
