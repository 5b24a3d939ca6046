//! A store on trial: single operations on it, each held to the contract.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use super::verdict::{FAULTS, PATIENCE, broken, check_failure, places, until, wait};
use super::{Quarantine, pattern};
use crate::contract::{
    BLOCK_META_BYTES_MAX, Block, BlockEntry, BlockGet, BlockKey, BlockMeta, BlockPut, BlockStore,
    ContractError, ErrorKind, Failure,
};

/// A store under test, and the memory that goes through it.
pub(super) struct StoreSuite {
    pub(super) store: Arc<dyn BlockStore>,
    pub(super) quarantine: Quarantine,
    /// Fetches so far; every second one blocks.
    pub(super) fetches: AtomicU64,
}

type Fetched = Result<Vec<Result<Block, Failure>>, Failure>;

pub(super) const INVALID: &[ErrorKind] = &[ErrorKind::InvalidInput];
/// A bounded queue was full.
pub(super) const BUSY: &[ErrorKind] = &[ErrorKind::Busy];
/// Failures of a fetch that say something of the block.
pub(super) const UNREADABLE: &[ErrorKind] = &[ErrorKind::Corrupt];

/// Metadata and payload.
pub(super) type Found = (Vec<u8>, Vec<u8>);

impl StoreSuite {
    pub(super) fn new(store: Arc<dyn BlockStore>) -> Self {
        Self {
            store,
            quarantine: Quarantine::default(),
            fetches: AtomicU64::new(0),
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

    /// Fetches blocks, in the one way and the other by turns.
    pub(super) fn fetch(&self, what: &str, gets: Vec<BlockGet>) -> Fetched {
        if self
            .fetches
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(2)
        {
            return wait(what, self.store.get(gets));
        }
        let store = Arc::clone(&self.store);
        let (sender, receiver) = mpsc::channel();
        let thread = thread::spawn(move || {
            let outcome = store.get_blocking(gets);
            // Whoever opens the store again must find nobody at it.
            drop(store);
            drop(sender.send(outcome));
        });
        match receiver.recv_timeout(PATIENCE) {
            Ok(outcome) => {
                drop(thread.join());
                outcome
            }
            Err(_) => broken(&format!("{what}: the fetch hangs, or panicked")),
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
        let failure = match self.fetch(what, vec![get]) {
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
    pub(super) fn round_trip(&self, key: u128, tag: u64, meta: &[u8], len: usize) {
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

    pub(super) fn contains(&self, keys: &[u128]) -> Vec<bool> {
        let keys: Vec<_> = keys.iter().copied().map(BlockKey).collect();
        self.ask("contains", || self.store.contains(&keys))
    }

    pub(super) fn list(&self, after: Option<u128>, count_max: usize) -> Vec<BlockEntry> {
        self.ask("list", || self.store.list(after.map(BlockKey), count_max))
    }

    pub(super) fn remove(&self, keys: &[u128]) -> Option<Vec<bool>> {
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
}
