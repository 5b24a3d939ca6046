//! A short life of a store, with the power failing at each of its operations in turn, opening, recovery,
//! checkpoints and closing included, and once more during the recovery from that.

use std::time::Duration;

use core_view::contract::ErrorKind;
use tier_nvme::sim::{FaultRates, SURVIVALS, SimVolume, Survival, Workload, fail_power_everywhere};
use tier_nvme::{NvmeError, NvmeStore, StorageConfig, WriteBatch};

use super::Model;

const SEGMENT_BYTES: u64 = 64 << 10;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A value of so many bytes, and the key before it deleted in the same batch.
    Write(u8, usize),
    /// A value of so many bytes, new or in place of the one before.
    Put(u8, usize),
    Checkpoint,
    /// Moves what lives out of segments that are mostly dead, all at once.
    Compact,
    /// The same, by the steps that the writes to come do after themselves, and these.
    Begin,
    Steps(u8),
    Close,
    /// The process ends and what it wrote stays.
    Kill,
}

use Step::{Begin, Checkpoint, Close, Compact, Kill, Put, Steps, Write};

/// Small and large values, segments that die and segments that are compacted while a value in them is
/// replaced, both ways to end and each followed by opening.
const LIFE: [Step; 29] = [
    Put(20, 3000),
    Put(21, 200),
    Put(22, 5000),
    Write(1, 100),
    Write(2, 9000),
    Checkpoint,
    Write(3, 30_000),
    Write(4, 0),
    Kill,
    Write(5, 30_000),
    Close,
    Write(6, 5000),
    Write(7, 40_000),
    Checkpoint,
    Checkpoint,
    Write(8, 200),
    Kill,
    Write(9, 30_000),
    Checkpoint,
    Write(10, 4096),
    Close,
    Begin,
    Steps(2),
    Put(21, 300),
    Steps(1),
    Write(11, 10),
    Kill,
    Compact,
    Write(12, 4096),
];

struct Life {
    volume: SimVolume,
    store: Option<NvmeStore>,
    acknowledged: Model,
    /// What is there instead if the batch under way is.
    unknown: Option<Model>,
    values_moved: u64,
}

impl Life {
    fn new(volume: SimVolume) -> Self {
        Self {
            volume,
            store: None,
            acknowledged: Model::new(),
            unknown: None,
            values_moved: 0,
        }
    }

    fn store(&mut self) -> Result<&NvmeStore, NvmeError> {
        let store = match self.store.take() {
            Some(store) => store,
            None => open(&self.volume)?,
        };
        Ok(self.store.insert(store))
    }

    fn step(&mut self, step: Step) -> Result<(), NvmeError> {
        let moved_before = self.store()?.stats().values_moved;
        let result = self.take(step);
        if let Some(store) = &self.store {
            self.values_moved += store.stats().values_moved - moved_before;
        }
        result
    }

    fn take(&mut self, step: Step) -> Result<(), NvmeError> {
        match step {
            Write(number, len) => self.write(number, len),
            Put(number, len) => self.put(number, len),
            Checkpoint => self.store()?.checkpoint(),
            Compact => self.store()?.compact().map(drop),
            Begin => self.store()?.begin_compaction(),
            Steps(count) => {
                let store = self.store()?;
                (0..count).try_for_each(|_| store.step_background(Duration::MAX).map(drop))
            }
            Close => self.store.take().map_or(Ok(()), |store| store.close()),
            Kill => {
                self.kill();
                Ok(())
            }
        }
    }

    fn kill(&mut self) {
        self.volume.kill();
        self.store = None;
    }

    fn write(&mut self, number: u8, len: usize) -> Result<(), NvmeError> {
        let mut after = self.acknowledged.clone();
        after.insert(vec![number], vec![number; len]);
        after.remove(&vec![number - 1]);
        let batch = WriteBatch::new()
            .put([number], vec![number; len])
            .delete([number - 1]);
        self.commit(batch, after)
    }

    fn put(&mut self, number: u8, len: usize) -> Result<(), NvmeError> {
        let mut after = self.acknowledged.clone();
        after.insert(vec![number], vec![number; len]);
        let batch = WriteBatch::new().put([number], vec![number; len]);
        self.commit(batch, after)
    }

    fn commit(&mut self, batch: WriteBatch, after: Model) -> Result<(), NvmeError> {
        match self.store()?.write_batch(batch) {
            Ok(()) => self.acknowledged = after,
            Err(NvmeError::NoSpace { .. }) => {}
            Err(error) => {
                self.unknown = Some(after);
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Workload for Life {
    type Opened = NvmeStore;
    type Error = NvmeError;

    fn run(&mut self) -> Result<(), NvmeError> {
        LIFE.into_iter().try_for_each(|step| self.step(step))
    }

    fn forget(&mut self) {
        self.store = None;
    }

    fn open(&self, volume: &SimVolume) -> Result<NvmeStore, NvmeError> {
        open(volume)
    }

    /// Opens the disk, which is one of the two that it may be, stays it over another power loss, and works.
    fn check(&self, volume: &SimVolume, what: &str) {
        let store = open(volume).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let held = contents(&store);
        assert!(
            held == self.acknowledged || self.unknown.as_ref() == Some(&held),
            "{what}: {:?} are neither before nor after",
            held.keys()
        );
        volume.crash_keeping(Survival::Nothing);
        drop(store);
        let store = open(volume).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(contents(&store), held, "{what}: was served and is gone");
        store.write_aligned("more", &[1; 20_000]).unwrap();
        store.close().unwrap();
        drop(store);
        let store = open(volume).unwrap();
        let report = store.verify().unwrap();
        assert!(report.is_whole(), "{what}: {report:?}");
        assert_eq!(store.len(), held.len() as u64 + 1, "{what}");
    }
}

fn open(volume: &SimVolume) -> Result<NvmeStore, NvmeError> {
    let config = StorageConfig::default().with_segment_bytes(SEGMENT_BYTES);
    NvmeStore::on_volume(volume.handle(), config)
}

fn contents(store: &NvmeStore) -> Model {
    let value = |key: &Vec<u8>| store.read_direct(key).unwrap().unwrap().to_vec();
    let keys = store.keys_with_prefix("");
    keys.into_iter()
        .map(|key| {
            let value = value(&key);
            (key, value)
        })
        .collect()
}

#[test]
fn the_power_may_fail_at_every_operation_and_in_every_recovery() {
    let failures = fail_power_everywhere(&SURVIVALS, Life::new, |_, seed| seed < 2).unwrap();
    let mut whole = Life::new(SimVolume::new(0));
    whole.run().unwrap();
    assert!(whole.values_moved > 2, "{}", whole.values_moved);
    println!("{failures:?}");
    assert!(failures.points > 60 && failures.recoveries > 4 * failures.points);
}

#[test]
fn each_step_may_fail_for_want_of_space_or_by_the_device() {
    let rates = |read_errors, write_errors, sync_errors| FaultRates {
        read_errors,
        write_errors,
        sync_errors,
        ..FaultRates::default()
    };
    let faults = [
        rates(0, 0, 0),
        rates(1000, 0, 0),
        rates(0, 1000, 0),
        rates(0, 0, 1000),
        rates(0, 300, 300),
    ];
    for (failing, seed) in (0..LIFE.len()).flat_map(|step| (0..6).map(move |seed| (step, seed))) {
        for (kind, rates) in faults.into_iter().enumerate() {
            let mut life = Life::new(SimVolume::new(seed));
            for (at, step) in LIFE.into_iter().enumerate() {
                if at == failing {
                    life.volume.set_faults(rates);
                    let capacity = if kind == 0 { 0 } else { u64::MAX };
                    life.volume.set_capacity(capacity);
                }
                let result = life.step(step);
                life.volume.set_faults(FaultRates::default());
                life.volume.set_capacity(u64::MAX);
                if let Err(error) = result {
                    // What a write does in the background after it shows at the step after it.
                    let poisoned = at > failing && error.kind() == ErrorKind::Poisoned;
                    let failed = matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace);
                    let excused = poisoned || (at == failing && failed);
                    assert!(excused, "step {at}: {error:?}");
                    life.kill();
                    if seed % 2 == 0 {
                        life.volume.crash();
                    }
                    let store = life.store().unwrap();
                    let held = contents(store);
                    if Some(&held) == life.unknown.as_ref() {
                        life.acknowledged = held;
                    }
                    life.unknown = None;
                }
            }
            life.kill();
            let what = format!("step {failing}, fault {kind}, seed {seed}");
            life.check(&life.volume, &what);
        }
    }
}
