//! What every [`MemoryTier`] owes its users.

use std::sync::Arc;

use super::verdict::{FAULTS, check_failure, check_refused, places, until, wait};
use super::{Quarantine, pattern, slot_leases, slot_traffic};
use crate::BufferMut;
use crate::contract::{ErrorKind, MemoryTier, SlotCopy, SlotId, SlotRead, SlotWrite};

/// Runs the suite over tiers that `make` makes: each with at least 5 free slots of at least 64 bytes.
///
/// # Panics
/// If the contract is broken.
pub fn memory_tier(make: &dyn Fn() -> Arc<dyn MemoryTier>) {
    let suite = TierSuite {
        tier: make(),
        quarantine: Quarantine::default(),
    };
    suite.shape();
    suite.round_trips();
    suite.ranges();
    suite.copies();
    suite.empty_batches();
    suite.refusals();
    suite.settle();
    slot_leases::check(&suite);
    suite.settle();
    slot_traffic::check(&suite);
    suite.settle();
    let last = make();
    let transfer = last.write(vec![suite.write(0, 0, 77, suite.slot_bytes())]);
    drop(last);
    drop(wait("a tier dropped with work under way", transfer));
    suite.quarantine.settle(|| {});
}

/// A tier under test, and the memory that goes through it.
pub(super) struct TierSuite {
    pub(super) tier: Arc<dyn MemoryTier>,
    pub(super) quarantine: Quarantine,
}

/// A slot that only [`TierSuite::settle`] uses.
const PUSH_SLOT: u32 = 4;

/// The kinds that name a request that is wrong.
const INVALID: &[ErrorKind] = &[ErrorKind::InvalidInput];

impl TierSuite {
    pub(super) fn slot_bytes(&self) -> usize {
        self.tier.slot_bytes()
    }

    /// A write of the pattern of `tag`.
    pub(super) fn write(&self, slot: u32, offset: usize, tag: u64, len: usize) -> SlotWrite {
        SlotWrite {
            slot: SlotId(slot),
            offset_bytes: offset,
            source: self.quarantine.filled(&pattern::bytes(tag, len)),
        }
    }

    pub(super) fn read(&self, slot: u32, offset: usize, len: usize) -> SlotRead {
        SlotRead {
            slot: SlotId(slot),
            offset_bytes: offset,
            target: self.quarantine.buffer(len),
        }
    }

    /// Writes until it succeeds, or gives `None` after one failure: the slots may be anything then.
    pub(super) fn try_write(&self, what: &str, writes: Vec<SlotWrite>) -> Option<Vec<BufferMut>> {
        let given = places(writes.iter().map(|write| &write.source));
        let bytes: Vec<_> = writes.iter().map(|write| write.source.to_vec()).collect();
        match wait(what, self.tier.write(writes)) {
            Ok(sources) => {
                assert_eq!(places(&sources), given, "{what}: other buffers came back");
                let same = sources
                    .iter()
                    .zip(&bytes)
                    .all(|(now, then)| now[..] == then[..]);
                assert!(same, "{what}: a write changed its source");
                Some(sources)
            }
            Err(failure) => {
                check_failure(what, failure, &given, &[FAULTS]);
                None
            }
        }
    }

    /// Reads until it succeeds.
    pub(super) fn read_back(&self, what: &str, parts: &[(u32, usize, usize)]) -> Vec<Vec<u8>> {
        until(what, || {
            let part = |&(slot, offset, len): &_| self.read(slot, offset, len);
            let reads: Vec<_> = parts.iter().map(part).collect();
            let given = places(reads.iter().map(|read| &read.target));
            match wait(what, self.tier.read(reads)) {
                Ok(targets) => {
                    assert_eq!(places(&targets), given, "{what}: other buffers came back");
                    Some(targets.iter().map(|target| target.to_vec()).collect())
                }
                Err(failure) => {
                    check_failure(what, failure, &given, &[FAULTS]);
                    None
                }
            }
        })
    }

    /// Gives each of the first slots the pattern of `tag` + its number.
    pub(super) fn fill(&self, count: u32, tag: u64) {
        let len = self.slot_bytes();
        let writes = || (0..count).map(|slot| self.write(slot, 0, tag + u64::from(slot), len));
        until("write slots", || {
            self.try_write("write slots", writes().collect())
        });
    }

    /// Demands the pattern of `tag` + its number in each of the first slots.
    pub(super) fn check_filled(&self, what: &str, count: u32, tag: u64) {
        let len = self.slot_bytes();
        let parts: Vec<_> = (0..count).map(|slot| (slot, 0, len)).collect();
        for (slot, found) in (0..).zip(self.read_back(what, &parts)) {
            assert!(
                found == pattern::bytes(tag + slot, len),
                "{what}: slot {slot} holds other bytes than were written"
            );
        }
    }

    /// Waits until nothing holds the suite's memory any more. Whoever waits for a slot that nothing
    /// else uses pushes the others forward where only waiting does.
    pub(super) fn settle(&self) {
        self.quarantine.settle(|| {
            let read = self.read(PUSH_SLOT, 0, 8);
            drop(wait("a push", self.tier.read(vec![read])));
        });
    }

    fn shape(&self) {
        let tier = &self.tier;
        assert!(tier.slot_count() >= 5, "the suite needs at least 5 slots");
        assert!(tier.slot_bytes() >= 64, "the suite needs slots of 64 bytes");
        let slots = 0..tier.slot_count().min(1000);
        let mut starts: Vec<_> = slots
            .filter_map(|slot| tier.slot_addr(SlotId(slot)).ok())
            .collect();
        assert_eq!(
            starts.len(),
            tier.slot_count().min(1000) as usize,
            "a slot without an address"
        );
        starts.sort_unstable();
        let apart = |pair: &[u64]| match pair {
            [one, next] => next - one >= tier.slot_bytes() as u64,
            _ => true,
        };
        assert!(starts.windows(2).all(apart), "two slots overlap");
        assert_eq!(
            tier.slot_addr(SlotId(1)).ok(),
            tier.slot_addr(SlotId(1)).ok(),
            "the address of a slot changed"
        );
        for beyond in [tier.slot_count(), u32::MAX] {
            let kind = tier
                .slot_addr(SlotId(beyond))
                .err()
                .map(|error| error.kind());
            assert_eq!(
                kind,
                Some(ErrorKind::InvalidInput),
                "no slot, but an address"
            );
        }
    }

    fn round_trips(&self) {
        for round in 0..4 {
            self.fill(4, 100 * (round + 1));
            self.check_filled("round trip", 4, 100 * (round + 1));
        }
        let len = self.slot_bytes();
        // One slot may be read twice in a batch.
        for found in self.read_back("read twice", &[(2, 0, len), (2, 0, len)]) {
            assert!(found == pattern::bytes(402, len), "read twice: other bytes");
        }
    }

    fn ranges(&self) {
        let len = self.slot_bytes();
        let (offset, part) = (len / 4 + 1, len / 2);
        let found = until("write a range", || {
            self.fill(3, 500);
            self.try_write("write a range", vec![self.write(1, offset, 7, part)])?;
            Some(self.read_back(
                "read a range",
                &[(1, 0, len), (1, offset, part), (0, 0, len)],
            ))
        });
        let mut expected = pattern::bytes(501, len);
        for (byte, new) in expected
            .iter_mut()
            .skip(offset)
            .zip(pattern::bytes(7, part))
        {
            *byte = new;
        }
        let expected = [expected, pattern::bytes(7, part), pattern::bytes(500, len)];
        assert!(found == expected, "a range: other bytes in or around it");
    }

    fn copies(&self) {
        let len = self.slot_bytes();
        let copy = |source, target, len_bytes| SlotCopy {
            source: SlotId(source),
            source_offset_bytes: 0,
            target: SlotId(target),
            target_offset_bytes: 0,
            len_bytes,
        };
        let batch = [copy(0, 1, len), copy(0, 2, len)];
        until("copy slots", || {
            self.fill(4, 600);
            match wait("copy slots", self.tier.copy(batch.to_vec())) {
                Ok(()) => Some(()),
                Err(failure) => {
                    check_failure("copy slots", failure, &[], &[FAULTS]);
                    None
                }
            }
        });
        let parts: Vec<_> = (0..4).map(|slot| (slot, 0, len)).collect();
        let found = self.read_back("copy slots", &parts);
        let tags = [600, 600, 600, 603];
        let expected = tags.map(|tag| pattern::bytes(tag, len));
        assert!(found == expected, "copy slots: other bytes");

        self.fill(4, 700);
        let wrong = [
            vec![copy(0, 0, 8)],
            vec![copy(0, 1, 8), copy(1, 2, 8)],
            vec![copy(0, 1, 8), copy(2, 1, 8)],
            vec![copy(1, 2, 8), copy(0, 1, 8)],
            vec![copy(0, 1, len + 1)],
            vec![copy(0, 1, usize::MAX)],
            vec![copy(0, 1, 8), copy(2, self.tier.slot_count(), 8)],
        ];
        for batch in wrong {
            let what = format!("the wrong copy {batch:?}");
            let outcome = wait(&what, self.tier.copy(batch));
            check_refused(&what, outcome, &[], &[INVALID]);
        }
        self.check_filled("a copy that was refused", 4, 700);
    }

    fn empty_batches(&self) {
        self.fill(1, 800);
        until("empty batches", || {
            self.try_write("an empty batch", Vec::new())?;
            let end = self.slot_bytes();
            self.try_write("a write of nothing", vec![self.write(0, end, 1, 0)])?;
            wait("an empty batch", self.tier.copy(Vec::new())).ok()
        });
        assert!(self.read_back("an empty batch", &[]).is_empty());
        let nothing = self.read_back("a read of nothing", &[(0, self.slot_bytes(), 0)]);
        assert!(
            nothing.len() == 1 && nothing[0].is_empty(),
            "a read of nothing"
        );
        self.fill(1, 800);
        self.check_filled("a write of nothing", 1, 800);
    }

    fn refusals(&self) {
        self.fill(4, 900);
        let (len, beyond) = (self.slot_bytes(), self.tier.slot_count());
        // Slot, offset and length of each item; the first alone would be right.
        let wrong: [&[(u32, usize, usize)]; 6] = [
            &[(0, 0, 8), (1, 1, len)],
            &[(0, 0, 8), (1, usize::MAX, 8)],
            &[(0, 0, 8), (1, len + 1, 0)],
            &[(0, 0, 8), (beyond, 0, 8)],
            &[(0, 0, 8), (u32::MAX, 0, 8)],
            &[(0, 0, 8), (0, 8, 8)],
        ];
        for (i, parts) in wrong.into_iter().enumerate() {
            let what = format!("the wrong batch {parts:?}");
            let part = |&(slot, offset, len): &_| self.write(slot, offset, 1, len);
            let writes: Vec<_> = parts.iter().map(part).collect();
            let given = places(writes.iter().map(|write| &write.source));
            let outcome = wait(&what, self.tier.write(writes));
            check_refused(&what, outcome, &given, &[INVALID]);
            // Reading one slot twice is no mistake.
            if i + 1 < wrong.len() {
                let part = |&(slot, offset, len): &_| self.read(slot, offset, len);
                let reads: Vec<_> = parts.iter().map(part).collect();
                let given = places(reads.iter().map(|read| &read.target));
                let outcome = wait(&what, self.tier.read(reads));
                check_refused(&what, outcome, &given, &[INVALID]);
            }
        }
        self.check_filled("a batch that was refused", 4, 900);
    }
}
