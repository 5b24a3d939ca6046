//! Kills a process that changes an HDF5 file, and looks at what it leaves.
//!
//! Each commit puts a batch of weights into the file and takes the oldest out; it replaces the whole file. After a
//! kill the file is that of the last acknowledged commit, or of the one that was cut off, with every weight of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use core_view::DType;
use weightstore::{Hdf5Compression, Hdf5Config, Hdf5Mode, Hdf5Store, WeightStore, WeightTensor};

use crate::child::tell;
use crate::models::Random;
use crate::victim::{self, Victim, child_process};

/// There if the child changes an HDF5 file.
pub(crate) const EXCHANGING_VARIABLE: &str = "STEPWELL_KILL_EXCHANGING";

/// Batches that are in the file at most.
const BATCHES_MAX: u64 = 12;
/// Weights of each.
const BATCH_WEIGHTS: u64 = 4;
/// Bytes of a weight at most.
const LEN_MAX: u64 = 60_000;

/// Longest time that a child works before its moment comes.
const DELAY_MAX_US: u64 = 120_000;

/// From so many kills on, half have to fall into a commit; of a few, a quarter.
const KILLS_MANY: u64 = 50;

const FILE: &str = "weights.h5";

fn config(mode: Hdf5Mode) -> Hdf5Config {
    Hdf5Config::default()
        .with_compression(Hdf5Compression::Gzip { level: 1 })
        .with_mode(mode)
}

/// One weight of a batch; half of its bytes compress.
fn weight(batch: u64, index: u64) -> WeightTensor {
    let number = batch * BATCH_WEIGHTS + index;
    let mut random = Random::new(number);
    let len = 1 + random.below(LEN_MAX);
    let bytes: Vec<u8> = (0..len)
        .map(|at| match at % 2 {
            0 => (random.next() >> 32) as u8,
            _ => number as u8,
        })
        .collect();
    WeightTensor::new(format!("{batch}.{index}"), DType::U8, &[len], bytes).unwrap()
}

fn weights(batch: u64) -> impl Iterator<Item = WeightTensor> {
    (0..BATCH_WEIGHTS).map(move |index| weight(batch, index))
}

/// The batches that are in the file after this one.
fn after(before: &BTreeSet<u64>, batch: u64) -> BTreeSet<u64> {
    let kept = before.iter().copied();
    kept.filter(|old| old + BATCHES_MAX > batch)
        .chain([batch])
        .collect()
}

/// The process that is killed.
pub(crate) fn run_child(folder: &Path) {
    let store = Hdf5Store::open(folder.join(FILE), config(Hdf5Mode::Append)).unwrap();
    let first = std::fs::read_to_string(folder.join("next")).unwrap();
    let first: u64 = first.parse().unwrap();
    tell("ready");
    let mut there = read(&store);
    for batch in first.. {
        let now = after(&there, batch);
        for old in there.difference(&now) {
            for weight in weights(*old) {
                assert!(store.delete(&weight.compute_hash().into()).unwrap());
            }
        }
        for weight in weights(batch) {
            store.store(&weight, None).unwrap();
        }
        there = now;
        tell(&format!("committing {batch}"));
        store.commit().unwrap();
        tell(&format!("committed {batch}"));
    }
}

/// The batches in a file, after comparing every weight of it.
fn read(store: &Hdf5Store) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let hashes = store.list_weights().unwrap();
    for hash in &hashes {
        let found_weight = store.load(&hash.into()).unwrap().unwrap();
        let (batch, index) = found_weight.name().split_once('.').unwrap();
        let (batch, index) = (batch.parse().unwrap(), index.parse().unwrap());
        let expected = weight(batch, index);
        assert_eq!(*hash, expected.compute_hash());
        assert!(
            found_weight.bytes() == expected.bytes(),
            "weight {index} of batch {batch} came back changed"
        );
        found.insert(batch);
    }
    assert_eq!(
        hashes.len() as u64,
        found.len() as u64 * BATCH_WEIGHTS,
        "half a batch"
    );
    found
}

/// What the kills met.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: u64,
    in_commits: u64,
    /// Commits that were cut off and left the new file.
    new: u64,
    /// Kills that left a file that was not in its place yet.
    unfinished: u64,
}

/// What a child said.
#[derive(Debug, Default)]
struct Life {
    committed: Vec<u64>,
    committing: Option<u64>,
}

pub(crate) fn run(kills: u64, seed: u64) {
    let folder = victim::folder("kill-exchange-");
    let folder = folder.path();
    let mut random = Random::new(seed);
    let mut there = BTreeSet::new();
    let mut next = 0;
    let mut tally = Tally::default();
    for _ in 0..kills {
        std::fs::write(folder.join("next"), next.to_string()).unwrap();
        let delay = Duration::from_micros(random.below(DELAY_MAX_US));
        let life = live(folder, delay);
        for batch in &life.committed {
            there = after(&there, *batch);
            next = batch + 1;
        }
        tally.acknowledged += life.committed.len() as u64;
        tally.unfinished += u64::from(folder.join(format!("{FILE}.new")).exists());
        let cut_off = life.committing.map(|batch| {
            next = batch + 1;
            after(&there, batch)
        });
        tally.in_commits += u64::from(cut_off.is_some());
        let found = match Hdf5Store::open(folder.join(FILE), config(Hdf5Mode::Read)) {
            Ok(store) => read(&store),
            Err(error) => {
                assert!(there.is_empty(), "{error:?}");
                continue;
            }
        };
        let is_new = cut_off.as_ref() == Some(&found);
        assert!(
            is_new || found == there,
            "neither old nor new: {found:?}, not {there:?} or {cut_off:?}"
        );
        tally.new += u64::from(is_new);
        there = found;
    }
    println!(
        "{kills} kills of a process that changes an HDF5 file, seed {seed}: {} inside a commit, of which {} left the \
         new file; {} left one that was not in its place yet; {} commits acknowledged",
        tally.in_commits, tally.new, tally.unfinished, tally.acknowledged
    );
    let share = if kills < KILLS_MANY { 4 } else { 2 };
    assert!(
        share * tally.in_commits >= kills,
        "only {} of {kills} kills met a commit",
        tally.in_commits
    );
    assert!(tally.acknowledged > 0, "nothing was committed");
}

/// Lets a child work for so long and kills it.
fn live(folder: &Path, delay: Duration) -> Life {
    let victim = Victim::start(child_process(folder).env(EXCHANGING_VARIABLE, "1"), "@");
    let ready = victim.first_line();
    if ready.is_ok() {
        std::thread::sleep(delay);
    }
    let lines = victim.kill();
    assert_eq!(ready.as_deref(), Ok("ready"), "it did not open the file");
    let mut life = Life::default();
    for line in lines {
        match line.split_once(' ') {
            Some(("committing", batch)) => life.committing = Some(batch.parse().unwrap()),
            Some(("committed", batch)) => {
                life.committing = None;
                life.committed.push(batch.parse().unwrap());
            }
            _ => panic!("the child said {line:?}"),
        }
    }
    life
}
