//! Block stores that are broken on purpose, each in one way that the suite must notice.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod planted;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use core_view::BufferMut;
use core_view::contract::conformance::{self, BlockStoreSource};
use core_view::contract::mock::{MockBlockStore, Schedule};
use core_view::contract::{
    Block, BlockCapabilities, BlockEntry, BlockGet, BlockKey, BlockPut, BlockStore, BlockUsage,
    ContractError, ErrorKind, Failure, Transfer,
};
use planted::{assert_names, verdict};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    AnotherBlock,
    OldBlock,
    LostBuffer,
    OtherBuffer,
    WrongKind,
    Mixture,
    TakesNothing,
    BothOfDoubled,
    PageRepeatsKey,
    WrongMeta,
    RemovesNothing,
    NeverFull,
    ForgetsOnReopen,
    AlwaysFails,
    LyingUsage,
    BlockingGivesOthers,
}

/// A store with one fault.
#[derive(Debug)]
struct Broken {
    inner: MockBlockStore,
    fault: Fault,
    /// What was stored first under each key.
    first: Mutex<HashMap<BlockKey, Vec<u8>>>,
    puts: Mutex<u64>,
}

impl Broken {
    fn new(fault: Fault) -> Self {
        let inner = MockBlockStore::new(Schedule::immediate());
        let capabilities = BlockCapabilities {
            payload_bytes_max: 16 << 10,
            capacity_bytes: Some(200 << 10),
            ..inner.capabilities()
        };
        let bounded = BlockCapabilities {
            capacity_bytes: None,
            ..capabilities
        };
        let inner = match fault {
            Fault::NeverFull => inner.with_capabilities(bounded),
            _ => inner.with_capabilities(capabilities),
        };
        Self {
            inner,
            fault,
            first: Mutex::default(),
            puts: Mutex::default(),
        }
    }

    fn io(&self) -> ContractError {
        ContractError::new(ErrorKind::Io, "planted fault")
    }

    fn put_one(&self, mut put: BlockPut) -> Result<BufferMut, Failure> {
        let count = {
            let mut puts = self.puts.lock().unwrap();
            *puts += 1;
            *puts
        };
        let mut first = self.first.lock().unwrap();
        let old = first
            .entry(put.key)
            .or_insert_with(|| put.payload.to_vec())
            .clone();
        drop(first);
        match self.fault {
            Fault::AlwaysFails => return Err(Failure::new(self.io(), vec![put.payload])),
            Fault::WrongKind if count.is_multiple_of(3) => {
                let error = ContractError::new(ErrorKind::NotFound, "planted fault");
                return Err(Failure::new(error, vec![put.payload]));
            }
            Fault::TakesNothing if put.payload.is_empty() => return Ok(put.payload),
            Fault::Mixture if count.is_multiple_of(5) && !put.payload.is_empty() => {
                let mut mixed = put.payload.to_vec();
                let half = (mixed.len() / 2).min(old.len());
                mixed[..half].copy_from_slice(&old[..half]);
                let mixed = BlockPut {
                    key: put.key,
                    meta: put.meta,
                    payload: BufferMut::from_vec(mixed),
                };
                drop(self.inner.put(vec![mixed]));
                return Err(Failure::new(self.io(), vec![put.payload]));
            }
            Fault::WrongMeta if count > 5 => put.meta = core_view::contract::BlockMeta::EMPTY,
            _ => {}
        }
        let mut items = self.inner.put(vec![put]).wait()?;
        match (self.fault, items.pop().unwrap()) {
            (Fault::LostBuffer, Err(failure)) => Err(Failure::from(failure.into_parts().0)),
            (Fault::OtherBuffer, Ok(buffer)) => Ok(BufferMut::from_vec(buffer.to_vec())),
            (_, item) => item,
        }
    }

    fn get_one(&self, get: BlockGet) -> Result<Block, Failure> {
        let key = get.key;
        let mut items = self.inner.get(vec![get]).wait()?;
        let mut block = items.pop().unwrap()?;
        let first = self.first.lock().unwrap();
        let other = match self.fault {
            Fault::OldBlock => first.get(&key),
            Fault::AnotherBlock => first
                .iter()
                .find(|(other, bytes)| **other != key && bytes.len() == block.payload_bytes)
                .map(|(_, bytes)| bytes),
            _ => None,
        };
        if let Some(bytes) = other.filter(|bytes| bytes.len() == block.payload_bytes) {
            block.target[..bytes.len()].copy_from_slice(bytes);
        }
        Ok(block)
    }
}

impl BlockStore for Broken {
    fn capabilities(&self) -> BlockCapabilities {
        BlockCapabilities {
            capacity_bytes: Some(200 << 10),
            ..self.inner.capabilities()
        }
    }

    fn usage(&self) -> BlockUsage {
        let mut usage = self.inner.usage();
        usage.payload_bytes += u64::from(self.fault == Fault::LyingUsage && usage.blocks > 9);
        usage
    }

    fn put(&self, puts: Vec<BlockPut>) -> Transfer<Vec<Result<BufferMut, Failure>>> {
        if puts.len() > 1 && self.fault != Fault::BothOfDoubled {
            return self.inner.put(puts);
        }
        Transfer::ready(Ok(puts.into_iter().map(|put| self.put_one(put)).collect()))
    }

    fn get(&self, gets: Vec<BlockGet>) -> Transfer<Vec<Result<Block, Failure>>> {
        if gets.len() > 1 {
            return self.inner.get(gets);
        }
        Transfer::ready(Ok(gets.into_iter().map(|get| self.get_one(get)).collect()))
    }

    fn get_blocking(&self, gets: Vec<BlockGet>) -> Result<Vec<Result<Block, Failure>>, Failure> {
        let mut items = self.get(gets).wait()?;
        if self.fault == Fault::BlockingGivesOthers {
            for block in items.iter_mut().flatten() {
                block.target.fill(7);
            }
        }
        Ok(items)
    }

    fn contains(&self, keys: &[BlockKey]) -> Result<Vec<bool>, ContractError> {
        self.inner.contains(keys)
    }

    fn remove(&self, keys: &[BlockKey]) -> Transfer<Vec<bool>> {
        if self.fault == Fault::RemovesNothing {
            return Transfer::ready(self.inner.contains(keys).map_err(Failure::from));
        }
        self.inner.remove(keys)
    }

    fn list(
        &self,
        after: Option<BlockKey>,
        count_max: usize,
    ) -> Result<Vec<BlockEntry>, ContractError> {
        let after = match after {
            Some(BlockKey(key)) if self.fault == Fault::PageRepeatsKey && count_max > 1 => {
                key.checked_sub(1).map(BlockKey)
            }
            after => after,
        };
        self.inner.list(after, count_max)
    }
}

struct Source(Fault);

impl BlockStoreSource for Source {
    fn make(&self) -> Arc<dyn BlockStore> {
        Arc::new(Broken::new(self.0))
    }

    fn reopen(&self, store: Arc<dyn BlockStore>) -> Option<Arc<dyn BlockStore>> {
        Some(match self.0 {
            Fault::ForgetsOnReopen => self.make(),
            _ => store,
        })
    }
}

fn run(fault: Fault) -> Option<String> {
    verdict(|| conformance::block_store(&Source(fault)))
}

#[test]
fn a_store_without_a_fault_passes() {
    assert_eq!(run(Fault::None), None);
}

#[test]
fn every_planted_fault_is_named() {
    let faults = [
        (Fault::AnotherBlock, "other bytes than were stored"),
        (Fault::OldBlock, "other bytes than were stored"),
        (
            Fault::LostBuffer,
            "the buffers lost or changed by a failure",
        ),
        (Fault::OtherBuffer, "another buffer came back"),
        (Fault::WrongKind, "a kind that the contract does not name"),
        (Fault::Mixture, "neither the old one nor the new one"),
        (Fault::TakesNothing, "it succeeded where it must be refused"),
        (
            Fault::BothOfDoubled,
            "it succeeded where it must be refused",
        ),
        (Fault::PageRepeatsKey, "a listing"),
        (Fault::WrongMeta, "other bytes than were stored"),
        (Fault::RemovesNothing, "what was removed"),
        (Fault::NeverFull, "is never full"),
        (
            Fault::ForgetsOnReopen,
            "changed when the store was opened again",
        ),
        (Fault::AlwaysFails, "times in a row"),
        (Fault::LyingUsage, "usage"),
        (Fault::BlockingGivesOthers, "other bytes than were stored"),
    ];
    for (fault, expected) in faults {
        assert_names(&format!("{fault:?}"), run(fault), expected);
    }
}
