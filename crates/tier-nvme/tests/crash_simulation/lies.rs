//! A disk that reports success and does something else: it reads or writes elsewhere, or flips a bit.
//!
//! Nothing can bring back what such a disk lost. But nobody may be given a wrong byte, and what was lost
//! has to show: at a read, in a verification, or because the store does not open.

use core_view::contract::ErrorKind;
use tier_nvme::sim::{FaultCounts, FaultRates, Random, Seeds, SimVolume};
use tier_nvme::{NvmeError, NvmeStore, StorageConfig, WriteBatch};

use super::{Model, REPLAY, keys, keys_of};

const OPERATIONS: u64 = 60;
const SEGMENT_BYTES: u64 = 64 << 10;

/// What came of the lies.
#[derive(Debug, Default)]
struct Consequences {
    errors_of_reads: u64,
    refused: u64,
    named_by_verify: u64,
    last_batch_lost: u64,
    none: u64,
}

impl Consequences {
    fn rows(&self) -> [(&'static str, u64); 5] {
        [
            ("lie: a read failed", self.errors_of_reads),
            ("lie: the store was refused", self.refused),
            ("lie: named by verify", self.named_by_verify),
            ("lie: the last batch was lost", self.last_batch_lost),
            ("lie: without consequence", self.none),
        ]
    }
}

struct Life<'a> {
    volume: SimVolume,
    random: Random,
    /// What the store held after each batch.
    history: Vec<Model>,
    /// What it holds instead if a batch that failed is there.
    unknown: Option<Model>,
    /// The batch that was written when the disk lied.
    lied_at: Option<usize>,
    consequences: &'a mut Consequences,
}

fn open(volume: &SimVolume) -> Result<NvmeStore, NvmeError> {
    let config = StorageConfig::default()
        .with_segment_bytes(SEGMENT_BYTES)
        .with_background(false);
    NvmeStore::on_volume(volume.handle(), config)
}

fn lies(counts: &FaultCounts) -> u64 {
    counts.misdirected_writes + counts.flipped_writes
}

fn is_damage(error: &NvmeError) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Io)
        || matches!(
            error,
            NvmeError::NotAStore { .. } | NvmeError::Poisoned { .. }
        )
}

impl Life<'_> {
    fn now(&self) -> &Model {
        self.history.last().unwrap()
    }

    fn write(&mut self, store: &NvmeStore) -> bool {
        let mut after = self.now().clone();
        let mut batch = WriteBatch::new();
        for _ in 0..=self.random.below(3) {
            let key = vec![b'a' + self.random.below(10) as u8];
            if self.random.chance(200) {
                after.remove(&key);
                batch = batch.delete(key);
            } else {
                let mut value = vec![0; self.random.below(9000) as usize];
                self.random.fill(&mut value);
                after.insert(key.clone(), value.clone());
                batch = batch.put(key, value);
            }
        }
        match store.write_batch(batch) {
            Ok(()) => self.history.push(after),
            Err(error) => {
                assert!(is_damage(&error), "{error:?}");
                self.unknown = Some(after);
                return false;
            }
        }
        true
    }

    /// Works until the disk has lied once, and some time after.
    fn work(&mut self, store: &NvmeStore, rates: FaultRates) {
        let lie_from = self.random.below(OPERATIONS);
        let mut ends_here = false;
        for operation in 0..OPERATIONS {
            if operation == lie_from {
                self.volume.set_faults(rates);
            }
            let went_on = match self.random.below(12) {
                0 => self.tolerate(store.checkpoint()),
                1 => self.tolerate(store.compact().map(drop)),
                _ => self.write(store),
            };
            if self.lied_at.is_none() && lies(&self.volume.counts()) > 0 {
                self.volume.set_faults(FaultRates::default());
                self.lied_at = Some(self.history.len());
                ends_here = self.random.chance(400);
            }
            self.compare(store, self.history.len() - 1);
            if ends_here || !went_on {
                break;
            }
        }
        self.volume.set_faults(FaultRates::default());
    }

    fn tolerate(&self, outcome: Result<(), NvmeError>) -> bool {
        if let Err(error) = &outcome {
            assert!(is_damage(error), "{error:?}");
        }
        outcome.is_ok()
    }

    /// Every value is the one of batch `at`, or an error.
    fn compare(&mut self, store: &NvmeStore, at: usize) -> u64 {
        let model = &self.history[at];
        assert_eq!(keys_of(store), keys(model));
        let mut errors = 0;
        for (key, value) in model {
            match store.read_direct(key) {
                Ok(read) => assert!(read.as_deref() == Some(value.as_slice()), "a wrong byte"),
                Err(error) => {
                    assert!(is_damage(&error), "{error:?}");
                    errors += 1;
                }
            }
        }
        errors
    }

    fn end(&mut self, store: NvmeStore) {
        match self.random.below(3) {
            0 => {
                self.tolerate(store.close());
            }
            1 => self.volume.kill(),
            _ => self.volume.crash(),
        }
        drop(store);
    }

    /// What is there after the lie: the newest state with what is lost named, or none.
    fn reopen(&mut self) {
        let store = match open(&self.volume) {
            Ok(store) => store,
            Err(error) => {
                assert!(is_damage(&error), "{error:?}");
                self.consequences.refused += 1;
                return;
            }
        };
        let newest = self.history.len() - 1;
        let mut at = newest;
        if let Some(unknown) = self.unknown.take()
            && can_be(&store, &unknown)
        {
            self.history[newest] = unknown;
        } else if !can_be(&store, self.now()) {
            // The last write of all went elsewhere, and may have covered the batches before it: nothing was
            // written behind them that could tell.
            let mut before = (0..newest).rev();
            let found = before.find(|&at| can_be(&store, &self.history[at]));
            assert!(
                found.is_some() && self.lied_at == Some(self.history.len()),
                "acknowledged batches are gone without a word"
            );
            at = found.unwrap_or(newest);
            self.consequences.last_batch_lost += 1;
        }
        let errors = self.compare(&store, at);
        let named = !store.verify().unwrap().is_whole();
        assert!(errors == 0 || named, "verify missed what a read found");
        self.consequences.errors_of_reads += errors;
        self.consequences.named_by_verify += u64::from(named);
        self.consequences.none += u64::from(!named && at == newest);
    }
}

/// Whether the store holds this, as far as it holds anything.
fn can_be(store: &NvmeStore, model: &Model) -> bool {
    let is_right = |(key, value): (&Vec<u8>, &Vec<u8>)| match store.read_direct(key) {
        Ok(read) => read.as_deref() == Some(value.as_slice()),
        Err(_) => true,
    };
    keys_of(store) == keys(model) && model.iter().all(is_right)
}

fn live(seed: u64, rates: FaultRates, consequences: &mut Consequences) -> FaultCounts {
    let volume = SimVolume::new(seed);
    let mut life = Life {
        volume: volume.clone(),
        random: Random::new(seed ^ 0x11e5),
        history: vec![Model::new()],
        unknown: None,
        lied_at: None,
        consequences,
    };
    let store = open(&volume).unwrap();
    life.work(&store, rates);
    life.end(store);
    life.reopen();
    volume.counts()
}

#[test]
fn a_disk_that_writes_elsewhere_or_flips_bits_is_found_out() {
    let mut consequences = Consequences::default();
    let mut counts = FaultCounts::default();
    let seeds = Seeds::from_environment(100);
    let kinds = [
        FaultRates {
            misdirected_writes: 200,
            ..FaultRates::default()
        },
        FaultRates {
            flipped_writes: 200,
            ..FaultRates::default()
        },
    ];
    seeds.for_each(REPLAY, |seed| {
        for rates in kinds {
            counts += live(seed, rates, &mut consequences);
        }
    });
    let lies = [
        ("misdirected writes", counts.misdirected_writes),
        ("flipped writes", counts.flipped_writes),
    ];
    for (name, count) in lies.into_iter().chain(consequences.rows()) {
        println!("{count:>12}  {name}");
        assert!(
            count > 0 || seeds.is_replay() || seeds.count() < 100,
            "never happened: {name}"
        );
    }
}

/// Reads that lie now and then, while the store is open and while it opens.
#[test]
fn a_disk_that_reads_elsewhere_gives_errors_and_no_wrong_bytes() {
    let mut counts = FaultCounts::default();
    let (mut errors, mut refused) = (0_u64, 0_u64);
    let seeds = Seeds::from_environment(100);
    let rates = FaultRates {
        misdirected_reads: 100,
        flipped_reads: 100,
        ..FaultRates::default()
    };
    seeds.for_each(REPLAY, |seed| {
        let volume = SimVolume::new(seed);
        let mut consequences = Consequences::default();
        let mut life = Life {
            volume: volume.clone(),
            random: Random::new(seed),
            history: vec![Model::new()],
            unknown: None,
            lied_at: None,
            consequences: &mut consequences,
        };
        let store = open(&volume).unwrap();
        for _ in 0..20 {
            assert!(life.write(&store));
        }
        volume.set_faults(rates);
        errors += life.compare(&store, life.history.len() - 1);
        volume.set_faults(FaultRates::default());
        life.end(store);
        let copy = volume.fork(seed);
        copy.set_faults(rates);
        match open(&copy) {
            Err(error) => {
                assert!(is_damage(&error), "{error:?}");
                refused += 1;
            }
            Ok(store) => {
                copy.set_faults(FaultRates::default());
                // A tail that could not be seen is not there; what is there is right.
                let mut states = life.history.iter().rev();
                assert!(states.any(|state| can_be(&store, state)), "it never was so");
            }
        }
        counts += copy.counts();
    });
    println!(
        "{} misdirected and {} flipped reads, {errors} errors, {refused} refusals",
        counts.misdirected_reads, counts.flipped_reads
    );
    let few = seeds.is_replay() || seeds.count() < 100;
    assert!(few || (errors > 0 && refused > 0 && counts.misdirected_reads > 0));
}
