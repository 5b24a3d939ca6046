//! A tier below memory: a store of blocks, and a pool that knows which it has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core_view::BufferMut;
use core_view::contract::{
    Block, BlockGet, BlockKey, BlockPut, BlockStore, ErrorKind, Failure, Transfer,
};

use super::header::{HeaderForm, Mismatch};
use super::patience::{Late, Patience, Waited};
use super::shortfall::Withheld;
use super::{DropReason, TierId};
use crate::{BlockPool, BlockPoolBuilder, Error, EvictedBlock, EvictionHook, SequenceHash};

/// Entries of a listing read at a time.
const LIST_COUNT: usize = 1024;

/// What to do with a store that has blocks of another layout or version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ForeignBlocks {
    /// Fail to open it, and name the first field that differs.
    #[default]
    Refuse,
    /// Count them and match none; they go when their room is needed.
    Ignore,
}

/// What was found in a tier below memory when it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reopened {
    /// Blocks that can be matched again.
    pub restored_blocks: u64,
    /// Blocks that can't, by [`Mismatch::name`].
    pub ignored: BTreeMap<&'static str, u64>,
    /// Blocks beyond the tier's capacity, which were removed.
    pub surplus_blocks: u64,
}

/// Keys that leave the store before the next block comes in.
#[derive(Debug, Default)]
struct Doomed(Mutex<Vec<SequenceHash>>);

impl Doomed {
    fn lock(&self) -> MutexGuard<'_, Vec<SequenceHash>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EvictionHook for Doomed {
    fn evicted(&self, blocks: &[EvictedBlock]) {
        self.lock()
            .extend(blocks.iter().map(|block| block.sequence_hash));
    }
}

#[derive(Debug)]
pub(super) struct DurableTier {
    pub(super) store: Arc<dyn BlockStore>,
    /// Its slots stand for places in the store.
    pub(super) pool: BlockPool,
    /// Those of the places that the store has no room for.
    pub(super) withheld: Withheld,
    form: HeaderForm,
    doomed: Arc<Doomed>,
}

/// What became of a batch that was stored.
pub(super) struct PutOutcome {
    /// One for each block: nothing, or why it isn't stored.
    pub(super) refused: Vec<Option<DropReason>>,
    pub(super) buffers: Vec<BufferMut>,
    pub(super) late: Option<Late>,
    /// What the store said, if it had no room for some of them.
    pub(super) full: Option<String>,
}

/// What became of a removal.
pub(super) enum Removal {
    /// The blocks are gone.
    Done,
    /// They may be there still.
    Failed,
    Late(Late),
}

/// What became of a batch that was stored while others left.
pub(super) struct Exchange {
    pub(super) put: PutOutcome,
    pub(super) removal: Removal,
}

/// What became of a batch that was fetched.
pub(super) struct GetOutcome {
    pub(super) buffers: Vec<BufferMut>,
    /// The first block that is not what was asked for, and why.
    pub(super) failed: Option<(usize, DropReason)>,
    /// All that the store has lost or can't read or that are not what was asked for, and what differs if that is known.
    pub(super) wrong: Vec<(usize, DropReason, Option<Mismatch>)>,
    pub(super) late: Option<Late>,
}

pub(super) fn key(hash: SequenceHash) -> BlockKey {
    BlockKey(hash.as_u128())
}

fn put_buffers(outcome: Result<Vec<Result<BufferMut, Failure>>, Failure>) -> Vec<BufferMut> {
    match outcome {
        Ok(items) => items.into_iter().flat_map(put_buffer).collect(),
        Err(failure) => failure.into_parts().1.reclaim(),
    }
}

fn put_buffer(item: Result<BufferMut, Failure>) -> Vec<BufferMut> {
    item.map_or_else(
        |failure| failure.into_parts().1.reclaim(),
        |buffer| vec![buffer],
    )
}

fn get_buffers(outcome: Result<Vec<Result<Block, Failure>>, Failure>) -> Vec<BufferMut> {
    let buffer = |item: Result<Block, Failure>| match item {
        Ok(block) => vec![block.target],
        Err(failure) => failure.into_parts().1.reclaim(),
    };
    match outcome {
        Ok(items) => items.into_iter().flat_map(buffer).collect(),
        Err(failure) => failure.into_parts().1.reclaim(),
    }
}

/// What a store said that had no room.
fn full(failure: &Failure) -> Option<String> {
    (failure.kind() == ErrorKind::NoSpace).then(|| failure.error().to_string())
}

impl DurableTier {
    /// Opens a tier on `store`; all its blocks of this form can be matched again.
    pub(super) fn open(
        store: Arc<dyn BlockStore>,
        pool: BlockPoolBuilder,
        form: HeaderForm,
        foreign: ForeignBlocks,
    ) -> Result<(Self, Reopened), Error> {
        let doomed = Arc::new(Doomed::default());
        let pool = pool.eviction_hook(Arc::clone(&doomed) as _).build()?;
        let tier = Self {
            store,
            pool,
            withheld: Withheld::default(),
            form,
            doomed,
        };
        tier.check_capabilities()?;
        let mut reopened = Reopened::default();
        let mut known = Vec::new();
        let mut after = None;
        loop {
            let entries = tier
                .store
                .list(after, LIST_COUNT)
                .map_err(|source| Error::Tier {
                    tier: TierId::G3.name(),
                    operation: "list its blocks",
                    source,
                })?;
            let Some(last) = entries.last() else { break };
            after = Some(last.key);
            for entry in &entries {
                match tier.form.identify(entry.key, &entry.meta) {
                    Ok(hash) => known.push(hash),
                    Err(mismatch) => {
                        if foreign == ForeignBlocks::Refuse
                            && let Some(error) = mismatch.into_error()
                        {
                            return Err(error);
                        }
                        *reopened.ignored.entry(mismatch.name()).or_default() += 1;
                    }
                }
            }
        }
        tier.restore(known, &mut reopened)?;
        Ok((tier, reopened))
    }

    fn check_capabilities(&self) -> Result<(), Error> {
        let capabilities = self.store.capabilities();
        let block_bytes = self.form.payload_bytes();
        let reason = if block_bytes > capabilities.payload_bytes_max {
            "the disk tier's blocks are shorter; make it with longer ones"
        } else if !block_bytes.is_multiple_of(capabilities.payload_alignment_bytes.max(1)) {
            "it is a multiple of the alignment of the disk tier, 4096 or less; pad the blocks"
        } else {
            return Ok(());
        };
        Err(Error::InvalidConfig {
            field: "block_bytes",
            value: block_bytes.to_string(),
            reason,
        })
    }

    /// Makes blocks of the store known, the ends of chains first, so that they count as the oldest.
    fn restore(&self, mut known: Vec<SequenceHash>, reopened: &mut Reopened) -> Result<(), Error> {
        known.sort_unstable_by_key(|hash| (hash.position(), hash.as_u128()));
        let surplus = known.split_off(known.len().min(self.pool.capacity_blocks()));
        reopened.surplus_blocks = surplus.len() as u64;
        self.doomed.lock().extend(surplus);
        known.reverse();
        for hashes in known.chunks(LIST_COUNT) {
            let complete = self.pool.allocate_blocks(hashes.len())?.complete(hashes)?;
            drop(self.pool.register_blocks(complete)?);
        }
        reopened.restored_blocks = known.len() as u64;
        Ok(())
    }

    /// Forgets a block; it leaves the store before the next block comes in.
    pub(super) fn forget(&self, hash: SequenceHash) {
        if self.pool.remove_blocks(&[hash]) > 0 {
            self.doom(&[hash]);
        }
    }

    /// Notes blocks that the store may have and that nobody was promised.
    pub(super) fn doom(&self, hashes: &[SequenceHash]) {
        self.doomed.lock().extend(hashes);
    }

    /// The blocks that are to leave the store now; not those that were stored anew, or are about to be.
    pub(super) fn take_doomed(&self, coming: &[SequenceHash]) -> Vec<SequenceHash> {
        let mut doomed = std::mem::take(&mut *self.doomed.lock());
        doomed.sort_unstable_by_key(|hash| hash.as_u128());
        doomed.dedup();
        doomed.retain(|hash| {
            self.pool.count_sequence_hashes(&[*hash]) == 0 && !coming.contains(hash)
        });
        doomed
    }

    /// Removes blocks from the store. What can't be removed stays until room is short.
    pub(super) fn remove(&self, hashes: &[SequenceHash], patience: &Patience) -> Removal {
        self.await_removal(self.begin_removal(hashes), patience)
    }

    fn begin_removal(&self, hashes: &[SequenceHash]) -> Option<Transfer<Vec<bool>>> {
        let keys: Vec<BlockKey> = hashes.iter().map(|&hash| key(hash)).collect();
        (!keys.is_empty()).then(|| self.store.remove(&keys))
    }

    fn await_removal(&self, removal: Option<Transfer<Vec<bool>>>, patience: &Patience) -> Removal {
        match removal.map(|removal| patience.wait(removal)) {
            None | Some(Waited::Done(Ok(_))) => Removal::Done,
            Some(Waited::Done(Err(_))) => Removal::Failed,
            Some(Waited::Late(_, transfer)) => {
                let mut late = Late::new(transfer, |_| Vec::new(), 0);
                // It may still take effect: until then nothing may be stored, lest it be removed.
                late.fences = true; // mutant: kv-no-fence
                Removal::Late(late)
            }
        }
    }

    /// Stores blocks, each with its bytes, in the place of others. Never are there more than the tier may have: what
    /// comes is stored no earlier than what goes is removed. A store that keeps this order itself commits both at once.
    pub(super) fn exchange(
        &self,
        leaving: &[SequenceHash],
        hashes: &[SequenceHash],
        buffers: Vec<BufferMut>,
        patience: &Patience,
    ) -> Exchange {
        let removal = self.begin_removal(leaving);
        let both = self.store.orders_removals();
        let (removal, removed) = match both {
            true => (removal, None),
            false => (None, Some(self.await_removal(removal, patience))),
        };
        if let Some(removal @ Removal::Late(_)) = removed {
            let put = PutOutcome {
                refused: vec![Some(DropReason::Stalled); hashes.len()],
                buffers,
                late: None,
                full: None,
            };
            return Exchange { put, removal };
        }
        let put = self.put(hashes, buffers, patience);
        let removal = removed.unwrap_or_else(|| self.await_removal(removal, patience));
        Exchange { put, removal }
    }

    fn put(
        &self,
        hashes: &[SequenceHash],
        buffers: Vec<BufferMut>,
        patience: &Patience,
    ) -> PutOutcome {
        let taken = buffers.len();
        let mut puts = Vec::with_capacity(taken);
        for (&hash, payload) in hashes.iter().zip(buffers) {
            // A header always fits.
            let Ok(meta) = self.form.encode(hash, &payload) else {
                continue;
            };
            puts.push(BlockPut {
                key: key(hash),
                meta,
                payload,
            });
        }
        let all = |reason| vec![Some(reason); hashes.len()];
        match patience.wait(self.store.put(puts)) {
            Waited::Done(Ok(items)) => {
                let refused = items.iter().map(|item| match item {
                    Ok(_) => None,
                    Err(failure) => Some(patience.reason(failure.kind())),
                });
                PutOutcome {
                    refused: refused.collect(),
                    full: items
                        .iter()
                        .filter_map(|item| item.as_ref().err())
                        .find_map(full),
                    buffers: items.into_iter().flat_map(put_buffer).collect(),
                    late: None,
                }
            }
            Waited::Done(Err(failure)) => PutOutcome {
                refused: all(patience.reason(failure.kind())),
                full: full(&failure),
                buffers: failure.into_parts().1.reclaim(),
                late: None,
            },
            Waited::Late(reason, transfer) => {
                let mut late = Late::new(transfer, put_buffers, taken);
                late.stored = hashes.to_vec();
                PutOutcome {
                    refused: all(reason),
                    buffers: Vec::new(),
                    late: Some(late),
                    full: None,
                }
            }
        }
    }

    /// Fetches blocks and checks each against what was asked for.
    pub(super) fn get(
        &self,
        hashes: &[SequenceHash],
        targets: Vec<BufferMut>,
        staged: usize,
        patience: &Patience,
    ) -> GetOutcome {
        let gets = hashes.iter().zip(targets).map(|(&hash, target)| BlockGet {
            key: key(hash),
            target,
        });
        let ended = |reason, buffers, late| GetOutcome {
            failed: Some((0, reason)),
            wrong: Vec::new(),
            buffers,
            late,
        };
        let items = match patience.wait(self.store.get(gets.collect())) {
            Waited::Done(Ok(items)) => items,
            Waited::Done(Err(failure)) => {
                let reason = patience.reason(failure.kind());
                return ended(reason, failure.into_parts().1.reclaim(), None);
            }
            Waited::Late(reason, transfer) => {
                let late = Late::new(transfer, get_buffers, staged);
                return ended(reason, Vec::new(), Some(late));
            }
        };
        let mut failed = None;
        let mut wrong = Vec::new();
        for (index, (item, &hash)) in items.iter().zip(hashes).enumerate() {
            let mut is_unreadable = false;
            let (reason, mismatch) = match item {
                Ok(block) => match self.form.verify(hash, &block.meta, block.payload()) {
                    Ok(()) => continue,
                    Err(mismatch) => (DropReason::Mismatch, Some(mismatch)),
                },
                Err(failure) => {
                    // Sectors that fail once mostly fail again, and each time the whole prefix behind them is missed.
                    is_unreadable = failure.kind() == ErrorKind::Io;
                    (patience.reason(failure.kind()), None)
                }
            };
            if is_unreadable || matches!(reason, DropReason::Mismatch | DropReason::Lost) {
                wrong.push((index, reason, mismatch));
            }
            failed.get_or_insert((index, reason));
        }
        GetOutcome {
            failed,
            wrong,
            buffers: get_buffers(Ok(items)),
            late: None,
        }
    }

    /// The blocks of the store that the pool doesn't know: of another salt or layout, or left by a put or a removal
    /// of unknown outcome. With whether the store told of all that it has.
    pub(super) fn strays(&self) -> (Vec<BlockKey>, bool) {
        let mut strays = Vec::new();
        let mut after = None;
        loop {
            let Ok(entries) = self.store.list(after, LIST_COUNT) else {
                return (strays, false);
            };
            let Some(last) = entries.last() else {
                return (strays, true);
            };
            after = Some(last.key);
            let keys = entries.iter().map(|entry| entry.key);
            strays.extend(keys.filter(|key| {
                self.pool
                    .count_sequence_hashes(&[SequenceHash::new(key.0, 0)])
                    == 0
            }));
        }
    }
}
