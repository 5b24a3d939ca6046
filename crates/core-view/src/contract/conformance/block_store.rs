//! What every [`BlockStore`] owes its users.

use std::sync::Arc;

use super::verdict::{FAULTS, check_failure, check_refused, places, until, wait};
use super::{Quarantine, block_traffic, pattern};
use crate::contract::{
    BLOCK_META_BYTES_MAX, BlockEntry, BlockGet, BlockKey, BlockMeta, BlockPut, BlockStore,
    ContractError, ErrorKind,
};

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
    let StoreSuite { store, quarantine } = suite;
    drop(store);
    drop(wait("a store dropped with work under way", transfer));
    quarantine.settle(|| {});
}

/// A store under test, and the memory that goes through it.
pub(super) struct StoreSuite {
    pub(super) store: Arc<dyn BlockStore>,
    pub(super) quarantine: Quarantine,
}

const INVALID: &[ErrorKind] = &[ErrorKind::InvalidInput];
/// A bounded queue was full.
const BUSY: &[ErrorKind] = &[ErrorKind::Busy];
/// Failures of a fetch that say something of the block.
const UNREADABLE: &[ErrorKind] = &[ErrorKind::Corrupt];

/// Metadata and payload.
pub(super) type Found = (Vec<u8>, Vec<u8>);

impl StoreSuite {
    fn new(store: Arc<dyn BlockStore>) -> Self {
        Self {
            store,
            quarantine: Quarantine::default(),
        }
    }

    /// The pattern of `tag`, to be stored.
    pub(super) fn put(&self, key: u128, tag: u64, meta: &[u8], len: usize) -> BlockPut {
        let mut padded = [0; BLOCK_META_BYTES_MAX];
        for (byte, given) in padded.iter_mut().zip(meta) {
            *byte = *given;
        }
        let meta = padded
            .get(..meta.len())
            .and_then(|meta| BlockMeta::new(meta).ok());
        BlockPut {
            key: BlockKey(key),
            meta: meta.unwrap_or(BlockMeta::EMPTY),
            payload: self.quarantine.filled(&pattern::bytes(tag, len)),
        }
    }

    /// A fetch with room for `len` bytes.
    pub(super) fn get(&self, key: u128, len: usize) -> BlockGet {
        let alignment = self.store.capabilities().payload_alignment_bytes.max(1);
        BlockGet {
            key: BlockKey(key),
            target: self.quarantine.buffer(len.next_multiple_of(alignment)),
        }
    }

    /// Puts one block; `None` after a failure.
    pub(super) fn try_put(&self, what: &str, put: BlockPut) -> Option<()> {
        let given = places([&put.payload]);
        let bytes = put.payload.to_vec();
        match wait(what, self.store.put(vec![put])) {
            Ok(mut items) => {
                assert_eq!(items.len(), 1, "{what}: an item is missing");
                match items.pop()? {
                    Ok(payload) => {
                        assert_eq!(
                            places([&payload]),
                            given,
                            "{what}: another buffer came back"
                        );
                        assert!(
                            payload[..] == bytes[..],
                            "{what}: a put changed its payload"
                        );
                        Some(())
                    }
                    Err(failure) => {
                        check_failure(what, failure, &given, &[FAULTS, BUSY]);
                        None
                    }
                }
            }
            Err(failure) => {
                check_failure(what, failure, &given, &[FAULTS, BUSY]);
                None
            }
        }
    }

    /// Fetches one block into `len` bytes: what is stored, `Ok(None)` if nothing is, or the failure's
    /// kind.
    pub(super) fn try_get(
        &self,
        what: &str,
        key: u128,
        len: usize,
    ) -> Result<Option<Found>, ErrorKind> {
        const ABSENT: &[ErrorKind] = &[ErrorKind::NotFound];
        let get = self.get(key, len);
        let given = places([&get.target]);
        let failure = match wait(what, self.store.get(vec![get])) {
            Ok(mut items) => {
                assert_eq!(items.len(), 1, "{what}: an item is missing");
                match items.pop() {
                    Some(Ok(block)) => {
                        assert_eq!(
                            places([&block.target]),
                            given,
                            "{what}: another buffer came back"
                        );
                        let payload = block.payload().to_vec();
                        assert_eq!(payload.len(), block.payload_bytes, "{what}: the length");
                        return Ok(Some((block.meta.as_slice().to_vec(), payload)));
                    }
                    Some(Err(failure)) => failure,
                    None => return Err(ErrorKind::Io),
                }
            }
            Err(failure) => failure,
        };
        let kind = failure.kind();
        check_failure(what, failure, &given, &[FAULTS, BUSY, UNREADABLE, ABSENT]);
        if kind == ErrorKind::NotFound {
            return Ok(None);
        }
        Err(kind)
    }

    /// Stores a block and fetches it, until both succeed; demands the same bytes.
    fn round_trip(&self, key: u128, tag: u64, meta: &[u8], len: usize) {
        let what = format!("a payload of {len} bytes with {} of metadata", meta.len());
        let found = until(&what, || {
            until(&what, || self.try_put(&what, self.put(key, tag, meta, len)));
            until(&what, || match self.try_get(&what, key, len) {
                Ok(found) => Some(Some(found)),
                Err(ErrorKind::Corrupt) => Some(None),
                Err(_) => None,
            })
        });
        let expected = (meta.to_vec(), pattern::bytes(tag, len));
        assert!(
            found == Some(expected),
            "{what}: other bytes than were stored"
        );
    }

    /// Repeats a question until it is answered.
    fn ask<T>(&self, what: &str, mut ask: impl FnMut() -> Result<T, ContractError>) -> T {
        until(what, || match ask() {
            Ok(answer) => Some(answer),
            Err(error) => {
                let kind = error.kind();
                assert!(
                    [FAULTS, BUSY].iter().any(|kinds| kinds.contains(&kind)),
                    "{what}: an error of a kind that the contract does not name here: {error}"
                );
                None
            }
        })
    }

    fn contains(&self, keys: &[u128]) -> Vec<bool> {
        let keys: Vec<_> = keys.iter().copied().map(BlockKey).collect();
        self.ask("contains", || self.store.contains(&keys))
    }

    fn list(&self, after: Option<u128>, count_max: usize) -> Vec<BlockEntry> {
        self.ask("list", || self.store.list(after.map(BlockKey), count_max))
    }

    fn remove(&self, keys: &[u128]) -> Option<Vec<bool>> {
        let keys: Vec<_> = keys.iter().copied().map(BlockKey).collect();
        match wait("remove", self.store.remove(&keys)) {
            Ok(removed) => Some(removed),
            Err(failure) => {
                check_failure("remove", failure, &[], &[FAULTS, BUSY]);
                None
            }
        }
    }

    pub(super) fn settle(&self) {
        self.quarantine.settle(|| {
            drop(self.try_get("a push", u128::MAX - 1, 8));
        });
    }

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
            let outcome = wait("a short target", self.store.get(vec![get]));
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
            let found = wait("an empty batch", self.store.get(Vec::new())).ok()?;
            assert!(
                stored.is_empty() && found.is_empty(),
                "items of an empty batch"
            );
            Some(())
        });
        assert!(self.contains(&[]).is_empty(), "answers to no question");
        assert_eq!(until("remove nothing", || self.remove(&[])), [false; 0]);
        self.double_put();
        self.double_get();
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
        for key in [63, 64] {
            self.round_trip(key, key as u64, b"", 500);
        }
        let gets = [63, 64, 63, 65].map(|key| self.get(key, 500));
        let given = gets.each_ref().map(|get| places([&get.target]));
        let Ok(items) = wait("a key twice", self.store.get(gets.into())) else {
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

    /// Fills a store to see its listing, page by page, and how full it says it is.
    fn listing(&self) {
        let keys: Vec<u128> = (0..20).map(|i| i * i * (1 << 66) + 5).collect();
        for (i, &key) in keys.iter().enumerate() {
            let put = || self.put(key, i as u64, &[i as u8; 3], 100 + i);
            until("store for a listing", || self.try_put("store", put()));
        }
        let numbered = keys.iter().enumerate();
        let expected: Vec<_> = numbered
            .map(|(i, &key)| (BlockKey(key), vec![i as u8; 3], 100 + i as u64))
            .collect();
        for count_max in [1, 3, keys.len(), keys.len() + 5, usize::MAX] {
            let mut found = Vec::new();
            let mut after = None;
            loop {
                let page = self.list(after, count_max);
                assert!(page.len() <= count_max, "a page is longer than asked for");
                let Some(last) = page.last() else { break };
                after = Some(last.key.0);
                found.extend(page.iter().map(|entry| {
                    (
                        entry.key,
                        entry.meta.as_slice().to_vec(),
                        entry.payload_bytes,
                    )
                }));
                assert!(
                    found.len() <= keys.len(),
                    "a listing has more than is stored"
                );
            }
            assert!(
                found == expected,
                "a listing in pages of {count_max} is not what is stored"
            );
        }
        assert!(self.list(None, 0).is_empty(), "a page of nothing");
        assert!(
            self.list(Some(u128::MAX), 9).is_empty(),
            "entries after the last key"
        );
        let between = self.list(Some(keys[3] + 1), 1);
        assert_eq!(
            between.first().map(|entry| entry.key.0),
            keys.get(4).copied(),
            "the entry after a key that is not there"
        );
        let usage = self.store.usage();
        let payload_bytes = (0..20).map(|i| 100 + i).sum();
        assert_eq!(
            (usage.blocks, usage.payload_bytes),
            (20, payload_bytes),
            "usage"
        );
        assert_eq!(
            self.contains(&[keys[2], 1, keys[2], keys[7]]),
            [true, false, true, true],
            "what is there"
        );
        self.settle();
    }

    /// A full store says so, keeps what it has, and takes more when something was removed.
    fn bound(&self) {
        let capabilities = self.store.capabilities();
        let Some(capacity) = capabilities
            .capacity_bytes
            .filter(|&bytes| bytes <= 64 << 20)
        else {
            return;
        };
        let len = 4096.min(capabilities.payload_bytes_max);
        let mut stored = Vec::new();
        let most = 2 * capacity / len as u64 + 256;
        let mut refused = 0;
        for key in 0..most {
            let what = "fill the store";
            match self.try_put(what, self.put(u128::from(key), key, b"", len)) {
                Some(()) => stored.push(key),
                None => refused += 1,
            }
            if refused > 64 {
                break;
            }
        }
        assert!(
            refused > 64,
            "a store with a bound of {capacity} bytes is never full"
        );
        for &key in &stored {
            let found = self.try_get("a full store", u128::from(key), len);
            if let Ok(found) = found {
                let expected = Some((Vec::new(), pattern::bytes(key, len)));
                assert!(found == expected, "a full store lost a block");
            }
        }
        let keys: Vec<_> = stored.iter().map(|&key| u128::from(key)).collect();
        until("empty a full store", || self.remove(&keys));
        self.round_trip(1, 1, b"after", len);
        self.settle();
    }
}

/// What was acknowledged is there after the store was opened again.
fn reopened(source: &dyn BlockStoreSource) {
    let suite = StoreSuite::new(source.make());
    if !suite.store.capabilities().durable {
        return;
    }
    for key in 0..16 {
        suite.round_trip(key, key as u64, &[key as u8; 5], 300 + key as usize);
    }
    until("remove", || suite.remove(&[3, 4]));
    suite.settle();
    let StoreSuite { store, quarantine } = suite;
    let Some(store) = source.reopen(store) else {
        return;
    };
    let suite = StoreSuite { store, quarantine };
    for key in 0..16 {
        let found = until("fetch after opening again", || {
            suite.try_get("fetch after opening again", key, 320).ok()
        });
        let block = (
            vec![key as u8; 5],
            pattern::bytes(key as u64, 300 + key as usize),
        );
        let expected = (![3, 4].contains(&key)).then_some(block);
        assert!(
            found == expected,
            "key {key} changed when the store was opened again"
        );
    }
    assert_eq!(suite.store.usage().blocks, 14, "usage after opening again");
    assert_eq!(
        suite.list(None, 100).len(),
        14,
        "a listing after opening again"
    );
    suite.settle();
}
