//! A short life of a slab, with the power failing at each of its operations in turn, opening, recovery, tables and
//! closing included, and once more during the recovery from that.

use std::collections::BTreeMap;

use core_view::BufferMut;
use core_view::contract::{BlockKey, BlockPut, BlockStore, Failure, Transfer};
use tier_nvme::sim::{Random, SimVolume, Survival, Workload, fail_power_everywhere};
use tier_nvme::{BlockSlab, NvmeError};

use super::{Model, Value, config, fetch_surely, is_value};

/// What survives the power loss, and the seed that decides where that leaves a choice.
const SURVIVALS: [(Survival, u64); 5] = [
    (Survival::Nothing, 0),
    (Survival::Everything, 1),
    (Survival::ByWrite, 2),
    (Survival::BySector, 3),
    (Survival::BySector, 4),
];

#[derive(Debug, Clone, Copy)]
enum Step {
    /// So many blocks from this key on, in one batch.
    Put(u128, u128),
    Remove(u128, u128),
    /// Two blocks from the first key on, and the removal of the other key, under way at once.
    Together(u128, u128),
    Close,
    /// The process ends and what it wrote stays.
    Kill,
}

use Step::{Close, Kill, Put, Remove, Together};

/// Fresh blocks, replacements, removals, changes that share a commit, and slots used again, over two segments; the logs fill up once, and both
/// ways to end are followed by opening.
const LIFE: [Step; 18] = [
    Put(0, 6),
    Put(2, 3),
    Remove(0, 2),
    Put(20, 5),
    Kill,
    Put(3, 2),
    Remove(3, 1),
    Close,
    Put(4, 4),
    Put(5, 1),
    Put(5, 1),
    Put(5, 1),
    Remove(5, 1),
    Kill,
    Put(6, 2),
    Together(7, 6),
    Together(22, 7),
    Close,
];

struct Life {
    volume: SimVolume,
    slab: Option<BlockSlab>,
    random: Random,
    acknowledged: Model,
    /// What the step under way may have made of some keys.
    unknown: BTreeMap<u128, Option<Value>>,
}

impl Life {
    fn new(volume: SimVolume) -> Self {
        Self {
            volume,
            slab: None,
            random: Random::new(7),
            acknowledged: Model::new(),
            unknown: BTreeMap::new(),
        }
    }

    fn slab(&mut self) -> Result<&BlockSlab, NvmeError> {
        if self.slab.is_none() {
            self.slab = Some(open(&self.volume)?);
        }
        Ok(self.slab.as_ref().unwrap())
    }

    fn values(&mut self, first: u128, count: u128) -> BTreeMap<u128, Value> {
        let keys = first..first + count;
        keys.map(|key| (key, Value::any(&mut self.random)))
            .collect()
    }

    /// Waits for a put; what it stored is not unknown any more.
    fn land(
        &mut self,
        values: BTreeMap<u128, Value>,
        put: Transfer<Vec<Result<BufferMut, Failure>>>,
    ) -> Result<(), NvmeError> {
        for item in put.wait()? {
            item?;
        }
        self.unknown.retain(|key, _| !values.contains_key(key));
        self.acknowledged.extend(values);
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), NvmeError> {
        match step {
            Put(first, count) => {
                let values = self.values(first, count);
                self.slab()?;
                self.unknown = values.iter().map(|(&key, &it)| (key, Some(it))).collect();
                let put = self.slab()?.put(puts_of(&values));
                self.land(values, put)?;
            }
            Together(first, removed) => {
                let values = self.values(first, 2);
                self.slab()?;
                self.unknown = values.iter().map(|(&key, &it)| (key, Some(it))).collect();
                self.unknown.insert(removed, None);
                let put = self.slab()?.put(puts_of(&values));
                let remove = self.slab()?.remove(&[BlockKey(removed)]);
                self.land(values, put)?;
                remove.wait()?;
                self.acknowledged.remove(&removed);
            }
            Remove(first, count) => {
                self.slab()?;
                let keys: Vec<_> = (first..first + count).map(BlockKey).collect();
                self.unknown = keys.iter().map(|key| (key.0, None)).collect();
                self.slab()?.remove(&keys).wait()?;
                self.acknowledged
                    .retain(|key, _| !keys.contains(&BlockKey(*key)));
            }
            Close => {
                self.slab()?.close()?;
                self.slab = None;
            }
            Kill => {
                self.volume.kill();
                self.slab = None;
            }
        }
        self.unknown.clear();
        Ok(())
    }

    fn held(&self, slab: &BlockSlab, what: &str) -> Model {
        let listed = slab.list(None, usize::MAX).unwrap();
        let mut held = Model::new();
        for entry in &listed {
            let key = entry.key.0;
            let found = fetch_surely(slab, key).unwrap();
            let old = self.acknowledged.get(&key).copied();
            let new = self.unknown.get(&key).copied().flatten();
            let value = [old, new].into_iter().flatten();
            let value = value.into_iter().find(|value| is_value(&found, *value));
            let value = value.unwrap_or_else(|| panic!("{what}: block {key} is another"));
            held.insert(key, value);
        }
        for key in self.acknowledged.keys() {
            let may_be_gone = self.unknown.get(key) == Some(&None);
            assert!(
                may_be_gone || held.contains_key(key),
                "{what}: block {key} is lost"
            );
        }
        held
    }
}

impl Workload for Life {
    type Opened = BlockSlab;
    type Error = NvmeError;

    fn run(&mut self) -> Result<(), NvmeError> {
        LIFE.into_iter().try_for_each(|step| self.step(step))
    }

    fn forget(&mut self) {
        self.slab = None;
    }

    fn open(&self, volume: &SimVolume) -> Result<BlockSlab, NvmeError> {
        open(volume)
    }

    /// Opens the disk, where each block is what it was or what was under way, stays so over another power loss,
    /// and works.
    fn check(&self, volume: &SimVolume, what: &str) {
        let slab = open(volume).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let held = self.held(&slab, what);
        volume.crash_keeping(Survival::Nothing);
        drop(slab);
        let slab = open(volume).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(
            self.held(&slab, what),
            held,
            "{what}: was served and is gone"
        );
        let more = Value { tag: 1, len: 5000 };
        slab.put(vec![more.put(99, true)])
            .wait()
            .unwrap()
            .remove(0)
            .unwrap();
        slab.close().unwrap();
        drop(slab);
        let slab = open(volume).unwrap();
        assert!(slab.recovery_report().clean, "{what}");
        let report = slab.verify().unwrap();
        assert!(report.is_whole(), "{what}: {report:?}");
        assert_eq!(slab.usage().blocks, held.len() as u64 + 1, "{what}");
    }
}

fn puts_of(values: &BTreeMap<u128, Value>) -> Vec<BlockPut> {
    values
        .iter()
        .map(|(&key, value)| value.put(key, true))
        .collect()
}

fn open(volume: &SimVolume) -> Result<BlockSlab, NvmeError> {
    BlockSlab::on_volume(volume.handle(), config())
}

#[test]
fn the_power_may_fail_at_every_operation_and_in_every_recovery() {
    let is_followed = |at, seed| seed % 2 == 0 && (at + seed / 2) % 9 == 0;
    let failures = fail_power_everywhere(&SURVIVALS, Life::new, is_followed).unwrap();
    println!("{failures:?}");
    assert!(failures.points > 60 && failures.recoveries > 2 * failures.points);
}
