//! What every [`BlockStore`] owes its users.

use std::sync::Arc;

use super::block_listing::reopened;
use super::block_trial::{BUSY, INVALID, StoreSuite, UNREADABLE};
use super::verdict::{FAULTS, check_failure, check_refused, places, until, wait};
use super::{block_traffic, pattern};
use crate::contract::{BLOCK_META_BYTES_MAX, BlockGet, BlockKey, BlockMeta, BlockStore, ErrorKind};

/// Makes stores for the suite to judge.
pub trait BlockStoreSource {
    /// A new, empty store.
    fn make(&self) -> Arc<dyn BlockStore>;

    /// Closes a durable store and opens it again; `None` if it can't be opened twice.
    fn reopen(&self, store: Arc<dyn BlockStore>) -> Option<Arc<dyn BlockStore>> {
        drop(store);
        None
    }
}

impl<F: Fn() -> Arc<dyn BlockStore>> BlockStoreSource for F {
    fn make(&self) -> Arc<dyn BlockStore> {
        self()
    }
}

/// Runs the suite over stores that `source` makes: each takes payloads of at least 4 KiB, and at least
/// 32 of them.
///
/// ```
/// use std::sync::Arc;
/// use core_view::contract::mock::{MockBlockStore, Schedule};
/// use core_view::contract::{BlockStore, conformance};
///
/// let make = || Arc::new(MockBlockStore::new(Schedule::reordering(7))) as Arc<dyn BlockStore>;
/// conformance::block_store(&make);
/// ```
///
/// # Panics
/// If the contract is broken.
pub fn block_store(source: &dyn BlockStoreSource) {
    let suite = StoreSuite::new(source.make());
    suite.empty_store();
    suite.round_trips();
    suite.replacement();
    suite.refusals();
    suite.batches();
    suite.removal();
    suite.settle();
    StoreSuite::new(source.make()).listing();
    StoreSuite::new(source.make()).bound();
    block_traffic::check(&StoreSuite::new(source.make()));
    reopened(source);
    let suite = StoreSuite::new(source.make());
    let transfer = suite.store.put(vec![suite.put(1, 1, b"", 4096)]);
    let StoreSuite {
        store, quarantine, ..
    } = suite;
    drop(store);
    drop(wait("a store dropped with work under way", transfer));
    quarantine.settle(|| {});
}

impl StoreSuite {
    fn empty_store(&self) {
        let usage = self.store.usage();
        assert_eq!(
            (usage.blocks, usage.payload_bytes),
            (0, 0),
            "a new store is not empty"
        );
        assert_eq!(
            self.contains(&[0, u128::MAX]),
            [false, false],
            "an empty store"
        );
        assert!(self.list(None, 10).is_empty(), "an empty store");
        let nothing = until("fetch from an empty store", || {
            self.try_get("fetch from an empty store", 5, 64).ok()
        });
        assert_eq!(nothing, None, "an empty store");
        let removed = until("remove from an empty store", || self.remove(&[5, 6]));
        assert_eq!(removed, [false, false], "an empty store");
    }

    fn round_trips(&self) {
        let alignment = self.store.capabilities().payload_alignment_bytes.max(1);
        let sizes = [1, 7, 4096, alignment, alignment + 1, 2 * alignment + 17];
        let metas: [&[u8]; 4] = [&[], &[0], &[9; 64], &[255; BLOCK_META_BYTES_MAX]];
        let max = self.store.capabilities().payload_bytes_max;
        for (i, len) in sizes.into_iter().filter(|&len| len <= max).enumerate() {
            for (j, meta) in metas.into_iter().enumerate() {
                let tag = (10 * i + j) as u64;
                self.round_trip([0, u128::MAX, 1 << 64][i % 3], tag, meta, len);
            }
        }
        // A target may be larger than it must be.
        self.round_trip(3, 33, b"large", 100);
        let found = until("a larger target", || {
            self.try_get("a larger target", 3, 10_000).ok()
        });
        let expected = (b"large".to_vec(), pattern::bytes(33, 100));
        assert!(found == Some(expected), "a larger target: other bytes");
    }

    /// After a put that failed, the old block, the new one, or an error.
    fn replacement(&self) {
        let mut possible = vec![None];
        for tag in 100_u64..160 {
            let len = 1000 + tag as usize;
            let meta = tag.to_le_bytes();
            if self
                .try_put("replace", self.put(9, tag, &meta, len))
                .is_some()
            {
                possible.clear();
            }
            possible.push(Some((meta.to_vec(), pattern::bytes(tag, len))));
            if let Ok(found) = self.try_get("replace", 9, 2000) {
                assert!(
                    possible.contains(&found),
                    "a replaced block is neither the old one nor the new one"
                );
            }
        }
    }

    fn refusals(&self) {
        let max = self.store.capabilities().payload_bytes_max;
        let too_long = max.checked_add(1).filter(|&len| len <= 64 << 20);
        for len in [Some(0), too_long].into_iter().flatten() {
            let what = format!("a payload of {len} bytes");
            let put = self.put(50, 1, b"m", len);
            let given = places([&put.payload]);
            let outcome = wait(&what, self.store.put(vec![put]));
            let item = outcome.and_then(|mut items| items.pop().transpose());
            check_refused(&what, item, &given, &[INVALID, FAULTS, BUSY]);
            assert_eq!(self.contains(&[50]), [false], "{what} was stored");
        }
        self.round_trip(51, 51, b"", 3000);
        until("a target that is too short", || {
            let get = BlockGet {
                key: BlockKey(51),
                target: self.quarantine.buffer(2999),
            };
            let given = places([&get.target]);
            let outcome = self.fetch("a short target", vec![get]);
            let item = outcome.and_then(|mut items| items.pop().transpose());
            let kind = check_refused("a short target", item, &given, &[INVALID, FAULTS, BUSY]);
            (kind == ErrorKind::InvalidInput).then_some(())
        });
        let kind = BlockMeta::new(&[0; BLOCK_META_BYTES_MAX + 1])
            .err()
            .map(|error| error.kind());
        assert_eq!(
            kind,
            Some(ErrorKind::InvalidInput),
            "metadata that is too long"
        );
    }

    fn batches(&self) {
        until("empty batches", || {
            let stored = wait("an empty batch", self.store.put(Vec::new())).ok()?;
            let found = self.fetch("an empty batch", Vec::new()).ok()?;
            assert!(
                stored.is_empty() && found.is_empty(),
                "items of an empty batch"
            );
            Some(())
        });
        assert!(self.contains(&[]).is_empty(), "answers to no question");
        assert_eq!(until("remove nothing", || self.remove(&[])), [false; 0]);
        self.double_put();
        for key in [63, 64] {
            self.round_trip(key, key as u64, b"", 500);
        }
        for _ in 0..2 {
            self.double_get();
        }
    }

    /// The later of two puts of one key in a batch is refused, the others are not.
    fn double_put(&self) {
        let puts = [(61, 1), (62, 2), (61, 3)].map(|(key, tag)| self.put(key, tag, b"", 500));
        let given = puts.each_ref().map(|put| places([&put.payload]));
        let Ok(items) = wait("a key twice", self.store.put(puts.into())) else {
            return;
        };
        assert_eq!(items.len(), 3, "a key twice: an item is missing");
        let mut stored = Vec::new();
        for (i, (item, given)) in items.into_iter().zip(given).enumerate() {
            if i == 2 {
                check_refused("a key put twice", item, &given, &[INVALID, FAULTS, BUSY]);
            } else {
                stored.push(match item {
                    Ok(payload) => {
                        assert_eq!(places([&payload]), given, "another buffer came back");
                        true
                    }
                    Err(failure) => {
                        check_failure("a key put twice", failure, &given, &[FAULTS, BUSY]);
                        false
                    }
                });
            }
        }
        for ((key, tag), stored) in [(61, 1), (62, 2)].into_iter().zip(stored) {
            match self.try_get("a key put twice", key, 500) {
                Ok(Some((_, found))) => {
                    assert!(
                        found == pattern::bytes(tag, 500),
                        "a key put twice: other bytes"
                    );
                }
                Ok(None) => assert!(!stored, "a block is gone after a batch"),
                Err(_) => {}
            }
        }
    }

    fn double_get(&self) {
        let gets = [63, 64, 63, 65].map(|key| self.get(key, 500));
        let given = gets.each_ref().map(|get| places([&get.target]));
        let Ok(items) = self.fetch("a key twice", gets.into()) else {
            return;
        };
        assert_eq!(items.len(), 4, "a key twice: an item is missing");
        for (i, (item, given)) in items.into_iter().zip(given).enumerate() {
            match (i, item) {
                (2, item) => {
                    check_refused(
                        "a key fetched twice",
                        item,
                        &given,
                        &[INVALID, FAULTS, BUSY],
                    );
                }
                (3, item) => {
                    let kinds = [FAULTS, BUSY, &[ErrorKind::NotFound]];
                    check_refused("a key that is not there", item, &given, &kinds);
                }
                (_, Ok(block)) => assert!(
                    block.payload() == pattern::bytes(63 + i as u64, 500),
                    "a batch: an item has another block's bytes"
                ),
                (_, Err(failure)) => {
                    check_failure("a batch", failure, &given, &[FAULTS, BUSY, UNREADABLE]);
                }
            }
        }
    }

    fn removal(&self) {
        self.round_trip(70, 70, b"", 100);
        let removed = until("remove", || {
            until("store again", || {
                self.try_put("store again", self.put(70, 70, b"", 100))
            });
            self.remove(&[70, 71, 70])
        });
        assert_eq!(removed, [true, false, false], "what was removed");
        assert_eq!(self.contains(&[70]), [false], "a removed block is there");
        let found = until("fetch a removed block", || {
            self.try_get("removed", 70, 100).ok()
        });
        assert_eq!(found, None, "a removed block was fetched");
    }
}
