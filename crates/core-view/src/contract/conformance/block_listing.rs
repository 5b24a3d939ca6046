//! What a store says it holds, at its bound and after it was opened again.

use super::block_store::BlockStoreSource;
use super::block_trial::StoreSuite;
use super::pattern;
use super::verdict::until;
use crate::contract::BlockKey;

impl StoreSuite {
    /// Fills a store to see its listing, page by page, and how full it says it is.
    pub(super) fn listing(&self) {
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
    pub(super) fn bound(&self) {
        let capabilities = self.store.capabilities();
        let Some(capacity) = capabilities
            .capacity_bytes
            .filter(|&bytes| bytes <= 64 << 20)
        else {
            return;
        };
        let max = capabilities.payload_bytes_max;
        let len = usize::try_from(capacity / 64).unwrap_or(max).clamp(1, max);
        let mut stored = Vec::new();
        // What fails by chance fails so often in a row only when the store is full.
        const REFUSALS: u64 = 24;
        let mut refused = 0;
        for key in 0..2 * capacity / len as u64 + 10 * REFUSALS {
            let what = "fill the store";
            match self.try_put(what, self.put(u128::from(key), key, b"", len)) {
                Some(()) => {
                    stored.push(key);
                    refused = 0;
                }
                None => refused += 1,
            }
            if refused >= REFUSALS {
                break;
            }
        }
        assert!(
            refused >= REFUSALS,
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
pub(super) fn reopened(source: &dyn BlockStoreSource) {
    let suite = StoreSuite::new(source.make());
    if !suite.store.capabilities().durable {
        return;
    }
    for key in 0..16 {
        suite.round_trip(key, key as u64, &[key as u8; 5], 300 + key as usize);
    }
    until("remove", || suite.remove(&[3, 4]));
    suite.settle();
    let StoreSuite {
        store, quarantine, ..
    } = suite;
    let Some(store) = source.reopen(store) else {
        return;
    };
    let suite = StoreSuite {
        quarantine,
        ..StoreSuite::new(store)
    };
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
