//! A pool and its model, side by side with all handles that are out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use blockmgr::policy::PolicyKind;
use blockmgr::{
    BlockEvent, BlockPool, Duplicates, Error, EventSink, EvictedBlock, EvictionHook,
    ImmutableBlocks, MutableBlocks, RequestOptions, SequenceHash, WeakBlock,
};

use crate::model::Model;
use crate::steps::Step;

/// What the pool told.
#[derive(Default)]
struct Told {
    evicted: Mutex<Vec<EvictedBlock>>,
    stored: Mutex<BTreeSet<u128>>,
    sequence: Mutex<Option<u64>>,
}

impl EvictionHook for Told {
    fn evicted(&self, blocks: &[EvictedBlock]) {
        self.evicted.lock().unwrap().extend_from_slice(blocks);
    }
}

impl EventSink for Told {
    fn publish(&self, events: &[BlockEvent]) {
        let mut stored = self.stored.lock().unwrap();
        for event in events {
            let (number, changed) = match *event {
                BlockEvent::Stored {
                    sequence,
                    sequence_hash,
                } => (sequence, stored.insert(sequence_hash.as_u128())),
                BlockEvent::Removed {
                    sequence,
                    sequence_hash,
                } => (sequence, stored.remove(&sequence_hash.as_u128())),
                _ => panic!("an event that the model doesn't know"),
            };
            assert!(changed, "{event:?} changes nothing");
            let before = self.sequence.lock().unwrap().replace(number);
            assert!(before.is_none_or(|before| before < number));
        }
    }
}

pub(crate) struct World {
    pool: BlockPool,
    model: Model,
    /// The pool evicts in the order of the model.
    in_order: bool,
    told: Arc<Told>,
    taken: Vec<MutableBlocks>,
    used: Vec<(ImmutableBlocks, Vec<usize>)>,
    weak: Vec<(WeakBlock, usize)>,
}

/// A block of a chain. Chains share their first two blocks in pairs.
fn hash(chain: usize, position: usize) -> SequenceHash {
    let chain = if position < 2 { chain / 2 * 2 } else { chain };
    let number = (chain as u128) << 64 | (position as u128 + 1);
    SequenceHash::new(
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        position as u32,
    )
}

fn hashes(chain: usize, from: usize, blocks: usize) -> Vec<SequenceHash> {
    (from..from + blocks)
        .map(|position| hash(chain, position))
        .collect()
}

impl World {
    pub(crate) fn new(
        policy: PolicyKind,
        capacity: usize,
        shards: usize,
        duplicates: Duplicates,
    ) -> Self {
        let told = Arc::new(Told::default());
        let pool = BlockPool::builder()
            .capacity_blocks(capacity)
            .shards(shards)
            .policy(policy)
            .duplicates(duplicates)
            .eviction_hook(Arc::clone(&told) as Arc<dyn EvictionHook>)
            .event_sink(Arc::clone(&told) as Arc<dyn EventSink>)
            .build()
            .unwrap();
        Self {
            pool,
            model: Model::new(capacity, duplicates),
            in_order: shards == 1 && policy == PolicyKind::Lru,
            told,
            taken: Vec::new(),
            used: Vec::new(),
            weak: Vec::new(),
        }
    }

    pub(crate) fn apply(&mut self, step: Step) {
        match step {
            Step::Match { chain, blocks } => {
                let hashes = hashes(chain, 0, blocks);
                assert!(self.pool.count_sequence_hashes(&hashes) <= blocks);
                let found = self.pool.match_sequence_hashes(&hashes);
                let ids = self.model.match_prefix(&hashes);
                let expected = &hashes[..ids.len()];
                assert!(found.sequence_hashes().eq(expected.iter().copied()));
                self.used.push((found, ids));
            }
            Step::Allocate { blocks } => self.allocate(blocks),
            Step::Touch { chain, blocks } => {
                let hashes = hashes(chain, 0, blocks);
                let touched = self.pool.touch_blocks(&hashes, &RequestOptions::default());
                assert_eq!(touched, self.model.touch(&hashes));
            }
            Step::Remove { chain, blocks } => {
                let hashes = hashes(chain, 0, blocks);
                assert_eq!(self.pool.remove_blocks(&hashes), self.model.remove(&hashes));
            }
            Step::Reset => assert_eq!(self.pool.reset(), self.model.reset()),
            step => self.apply_to_handle(step),
        }
    }

    fn allocate(&mut self, blocks: usize) {
        let leaving = self.model.leaving(blocks);
        match (self.pool.allocate_blocks(blocks), leaving) {
            (Ok(taken), Some(leaving)) => {
                let evicted = std::mem::take(&mut *self.told.evicted.lock().unwrap());
                let told: Vec<_> = evicted.iter().map(|block| block.sequence_hash).collect();
                let slots: BTreeSet<_> = taken.slots().collect();
                assert!(evicted.iter().all(|block| slots.contains(&block.slot)));
                if self.in_order {
                    assert_eq!(told, leaving);
                }
                assert_eq!(told.len(), leaving.len());
                self.model.take(blocks, &told);
                self.taken.push(taken);
            }
            (
                Err(Error::Exhausted {
                    requested,
                    available,
                    ..
                }),
                None,
            ) => {
                assert_eq!(requested, blocks);
                assert_eq!(available, self.model.free + self.model.cached());
            }
            (real, model) => panic!("{real:?}, the model: {model:?}"),
        }
    }

    fn apply_to_handle(&mut self, step: Step) {
        let at = |index: usize, len: usize| index.checked_rem(len);
        let (taken, used) = (self.taken.len(), self.used.len());
        match step {
            Step::Register { batch, chain, from } => {
                let Some(batch) = at(batch, taken) else {
                    return;
                };
                let batch = self.taken.swap_remove(batch);
                let hashes = hashes(chain, from, batch.len());
                let short = hashes.get(1..).unwrap_or(&[]);
                let batch = if batch.is_empty() {
                    batch
                } else {
                    batch.complete(short).unwrap_err().offered
                };
                let registered = self.pool.register_blocks(batch.complete(&hashes).unwrap());
                let ids = self.model.register(&hashes);
                self.used.push((registered.unwrap(), ids));
            }
            Step::Reopen { batch, chain } => {
                let Some(batch) = at(batch, taken) else {
                    return;
                };
                let batch = self.taken.swap_remove(batch);
                let hashes = hashes(chain, 0, batch.len());
                self.taken.push(batch.complete(&hashes).unwrap().reopen());
            }
            Step::DropTaken { batch } => {
                let Some(batch) = at(batch, taken) else {
                    return;
                };
                self.model.give_back(self.taken.swap_remove(batch).len());
            }
            Step::SplitTaken { batch, at: place } => {
                let Some(batch) = at(batch, taken) else {
                    return;
                };
                let rest = self.taken[batch].split_off(place);
                self.taken.push(rest);
            }
            Step::DropUsed { batch } => {
                let Some(batch) = at(batch, used) else { return };
                let (blocks, ids) = self.used.swap_remove(batch);
                drop(blocks);
                self.model.release(&ids);
            }
            Step::CloneUsed { batch } => {
                let Some(batch) = at(batch, used) else { return };
                let pair = self.used[batch].clone();
                pair.1
                    .iter()
                    .for_each(|&id| self.model.block(id).users += 1);
                self.used.push(pair);
            }
            Step::SplitUsed { batch, at: place } => {
                let Some(batch) = at(batch, used) else { return };
                let (blocks, ids) = &mut self.used[batch];
                let rest = (blocks.split_off(place), ids.split_off(place.min(ids.len())));
                self.used.push(rest);
            }
            step => self.apply_to_single(step),
        }
    }

    fn apply_to_single(&mut self, step: Step) {
        match step {
            Step::Single { batch, index } => {
                let Some(batch) = batch.checked_rem(self.used.len()) else {
                    return;
                };
                let (blocks, ids) = self.used.swap_remove(batch);
                let index = index.min(blocks.len());
                let single = blocks.get(index);
                assert_eq!(single.is_some(), index < ids.len());
                let mut singles: Vec<_> = blocks.into_iter().collect();
                // Dropped first to last, which is what `release` does with one at a time.
                singles.drain(..).for_each(drop);
                if let Some(single) = &single {
                    self.model.block(ids[index]).users += 1;
                    assert_eq!(single.sequence_hash(), self.model.block(ids[index]).hash);
                }
                ids.iter().for_each(|&id| self.model.release(&[id]));
                if let Some(single) = single {
                    drop(single.clone());
                    self.weak.push((single.downgrade(), ids[index]));
                    drop(single);
                    self.model.release(&[ids[index]]);
                }
            }
            Step::Downgrade { batch } => {
                let Some(batch) = batch.checked_rem(self.used.len()) else {
                    return;
                };
                let (blocks, ids) = &self.used[batch];
                if let Some(block) = blocks.get(0) {
                    self.weak.push((block.downgrade(), ids[0]));
                }
            }
            Step::Upgrade { weak } => {
                let Some(weak) = weak.checked_rem(self.weak.len()) else {
                    return;
                };
                let (weak, id) = &self.weak[weak];
                let hash = weak.sequence_hash();
                let kept = self.model.blocks.iter().any(|block| block.id == *id);
                let expected = if kept {
                    Some(*id)
                } else {
                    self.model.find(hash)
                };
                let found = weak.upgrade();
                assert_eq!(found.is_some(), expected.is_some());
                if let (Some(found), Some(id)) = (found, expected) {
                    assert_eq!(found.sequence_hash(), hash);
                    self.model.block(id).users += 1;
                    drop(found);
                    self.model.release(&[id]);
                }
            }
            step => panic!("{step:?} is done elsewhere"),
        }
    }

    /// Whether the pool and the model agree, and no block is in two states.
    pub(crate) fn check(&mut self) {
        self.told.evicted.lock().unwrap().clear();
        let status = self.pool.status();
        assert_eq!(status.free_blocks, self.model.free);
        assert_eq!(status.cached_blocks, self.model.cached());
        let idle = status.free_blocks + status.cached_blocks;
        assert_eq!(status.in_use_blocks + idle, self.model.capacity);
        assert_eq!(self.pool.available_blocks(), idle);

        let mut slots = BTreeSet::new();
        for slot in self.taken.iter().flat_map(MutableBlocks::slots) {
            assert!(slots.insert(slot), "slot {slot} is in two hands");
        }
        let mut of_ids = BTreeMap::new();
        for (blocks, ids) in &self.used {
            assert_eq!(blocks.len(), ids.len());
            for ((slot, hash), id) in blocks.slots().zip(blocks.sequence_hashes()).zip(ids) {
                assert_eq!(hash, self.model.block(*id).hash);
                if *of_ids.entry(*id).or_insert(slot) != slot {
                    panic!("one block is in two slots");
                }
            }
        }
        for slot in of_ids.into_values() {
            assert!(slots.insert(slot), "slot {slot} has two blocks");
        }
        assert_eq!(slots.len(), status.in_use_blocks);

        let primary = self.model.blocks.iter().filter(|block| block.primary);
        let stored: BTreeSet<_> = primary.map(|block| block.hash.as_u128()).collect();
        assert_eq!(*self.told.stored.lock().unwrap(), stored);
    }

    /// Lets go of everything; nothing may be missing then.
    pub(crate) fn finish(mut self) {
        self.taken.clear();
        self.used.clear();
        let status = self.pool.status();
        assert_eq!(status.in_use_blocks, 0);
        self.pool.reset();
        assert_eq!(self.pool.status().free_blocks, self.model.capacity);
        assert_eq!(
            self.pool
                .allocate_blocks(self.model.capacity)
                .unwrap()
                .len(),
            self.model.capacity
        );
    }
}
