//! Starts the child, kills it, and looks at what it leaves.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tier_nvme::StorageConfig;
use weightstore::{ExportOptions, GcOptions, NativeStore, WeightStore};

use crate::child::config;
use crate::expectation::Expectation;
use crate::models::{Random, file, name, number};
use crate::victim::{self, Victim, child_process};
use crate::{Work, stage};

/// There if the child collects.
pub(crate) const COLLECTING_VARIABLE: &str = "STEPWELL_KILL_COLLECTING";

/// After so many kills the parent lets the store be recovered and closed by itself; after the others it
/// only reads, so that the next child finds what the killed one left.
pub(crate) const KILLS_PER_CLOSE: u64 = 8;

/// Longest time that a child adds before its moment comes.
const DELAY_MAX_US: u64 = 150_000;

/// How long a wanted stage is waited for before any stage will do.
const PATIENCE: Duration = Duration::from_millis(100);

/// What the kills met.
#[derive(Debug, Default)]
struct Tally {
    stages: [u64; stage::NAMES.len()],
    clean_opens: u64,
    batches_replayed: u64,
    tails_taken: u64,
    tails_discarded: u64,
    files_removed: u64,
    /// Kills that met a collection.
    in_collections: u64,
    /// Chunks that nothing reached after a kill.
    unreachable: u64,
    /// Tensors that were stored as differences when the store was looked at.
    differences: u64,
}

pub(crate) fn run(work: Work, kills: u64, seed: u64) {
    let folder = victim::folder("kill-");
    let folder = folder.path();
    let mut random = Random::new(seed);
    let mut expectation = Expectation::default();
    let mut tally = Tally::default();
    let enough = |kill: u64, tally: &Tally| match work {
        Work::Adding => kill >= kills,
        Work::Collecting => tally.in_collections >= kills || kill >= 5 * kills,
    };
    let mut kill = 0;
    while !enough(kill, &tally) {
        kill += 1;
        let next = (expectation.last + 1).to_string();
        std::fs::write(folder.join("next"), next).unwrap();
        let idle = tally.stages.first().copied().unwrap();
        let moment = Moment {
            delay: Duration::from_micros(random.below(DELAY_MAX_US)),
            // Where moments at random meet too few commits, some are moved to one.
            wanted: (4 * idle >= kill)
                .then(|| 1 + random.below(stage::NAMES.len() as u64 - 1) as usize),
        };
        kill_one(folder, work, moment, &mut expectation);
        tally.in_collections += u64::from(std::mem::take(&mut expectation.collecting));
        let met = stage::read(&folder.join("stage"));
        if let Some(count) = tally.stages.get_mut(met) {
            *count += 1;
        }
        let read_only = !kill.is_multiple_of(KILLS_PER_CLOSE);
        check(folder, read_only, &mut expectation, &mut tally);
    }
    print(kill, seed, &expectation, &tally);
    let idle = tally.stages.first().copied().unwrap();
    assert!(
        work == Work::Collecting || 2 * idle <= kill,
        "only {} of {kill} kills met a commit",
        kill - idle
    );
    // A few kills on a busy machine may all come early.
    let least = if kill < 50 { 1 } else { kill / 4 };
    assert!(
        expectation.acknowledged >= least,
        "hardly anything was added"
    );
    assert!(tally.differences > 0, "no tensor was like another");
    let (collected, met) = (expectation.collected, tally.in_collections);
    assert!(
        work == Work::Adding || (met >= kills && collected > 0),
        "of {kill} kills {met} met a collection, and {collected} ended"
    );
}

/// When a child is killed.
#[derive(Debug, Clone, Copy)]
struct Moment {
    /// Time since it began to add.
    delay: Duration,
    /// The stage that is waited for after that.
    wanted: Option<usize>,
}

impl Moment {
    fn wait(self, folder: &Path, work: Work) {
        std::thread::sleep(self.delay);
        let Some(wanted) = self.wanted.filter(|_| work == Work::Adding) else {
            return;
        };
        let path = folder.join("stage");
        let started = Instant::now();
        loop {
            let met = stage::read(&path);
            let waited = started.elapsed();
            if met == wanted || (met != 0 && waited > PATIENCE) || waited > 10 * PATIENCE {
                return;
            }
        }
    }
}

/// Lets a child work until the moment and kills it; what it said by then is taken in.
fn kill_one(folder: &Path, work: Work, moment: Moment, expectation: &mut Expectation) {
    let mut command = child_process(folder);
    if work == Work::Collecting {
        command.env(COLLECTING_VARIABLE, "1");
    }
    let victim = Victim::start(&mut command, "@");
    let ready = victim.first_line();
    expectation.begin();
    let mut heard = Vec::new();
    if ready.is_ok() {
        moment.wait(folder, work);
        if work == Work::Collecting {
            heard = wait_for_collection(victim.said(), moment, &folder.join("stage"));
        }
    }
    let rest = victim.kill();
    assert_eq!(
        ready.as_deref(),
        Ok("ready"),
        "the child did not open the store"
    );
    for line in heard.into_iter().chain(rest) {
        expectation.hear(&line);
    }
}

/// Listens until a collection begins, and for some of them until it commits something; returns what was said.
fn wait_for_collection(said: &Receiver<String>, moment: Moment, stage: &Path) -> Vec<String> {
    let mut heard: Vec<String> = said.try_iter().collect();
    while let Ok(line) = said.recv_timeout(10 * PATIENCE) {
        let begins = line.starts_with("collecting");
        heard.push(line);
        if begins {
            break;
        }
    }
    std::thread::sleep(moment.delay / 30);
    let started = Instant::now();
    while moment.wanted.is_some() && started.elapsed() < PATIENCE / 4 && stage::read(stage) == 0 {
        std::hint::spin_loop();
    }
    heard
}

/// Opens the store and compares every model, byte for byte.
fn check(folder: &Path, read_only: bool, expectation: &mut Expectation, tally: &mut Tally) {
    let storage = StorageConfig::default()
        .with_create(false)
        .with_read_only(read_only);
    let store = NativeStore::open(folder.join("store"), config(storage)).unwrap();
    let recovery = store.blobs().recovery_report();
    assert!(recovery.damage.is_empty(), "{recovery:?}");
    tally.clean_opens += u64::from(recovery.clean);
    tally.batches_replayed += recovery.batches_replayed;
    tally.tails_taken += recovery.tail_batches_taken;
    tally.tails_discarded += recovery.tail_batches_discarded;
    tally.files_removed += recovery.files_removed;
    let models = store.models().unwrap();
    let listed: BTreeSet<u64> = models.iter().map(|name| number(name)).collect();
    expectation.settle(&listed, !read_only);
    for &number in &listed {
        let mut bytes = Vec::new();
        let options = ExportOptions::default();
        store
            .export_model(&name(number), &mut bytes, &options)
            .unwrap();
        assert!(bytes == file(number), "model {number} came back changed");
    }
    let verified = store.verify(None).unwrap();
    assert!(verified.is_whole(), "{verified:?}");
    tally.unreachable += verified.unreachable;
    tally.differences += store.stats().unwrap().depths.iter().skip(1).sum::<u64>();
    if !read_only {
        let report = store.gc(GcOptions::default()).unwrap();
        assert_eq!(report.removed_chunks, verified.unreachable);
        assert_eq!(store.verify(None).unwrap().unreachable, 0);
    }
    store.close().unwrap();
}

fn print(kills: u64, seed: u64, expectation: &Expectation, tally: &Tally) {
    let inside: u64 = tally.stages.iter().skip(1).sum();
    println!("{kills} kills, seed {seed}: {inside} inside a commit");
    for (name, count) in stage::NAMES.iter().zip(tally.stages) {
        println!("  {name:<10} {count:>4} {}", "#".repeat(count as usize));
    }
    println!(
        "  {} models acknowledged, {} there at the end",
        expectation.acknowledged,
        expectation.there.len()
    );
    println!(
        "  of the calls cut off, {} had their model there and {} not",
        expectation.undecided_there, expectation.undecided_absent
    );
    println!(
        "  recovery: {} batches replayed, {} unacknowledged ones taken, {} discarded, \
         {} unfinished files removed, {} opens had nothing to do",
        tally.batches_replayed,
        tally.tails_taken,
        tally.tails_discarded,
        tally.files_removed,
        tally.clean_opens
    );
    println!(
        "  {} kills met a collection, {} collections ended, {} chunks that nothing reached were left; \
         {} differences seen",
        tally.in_collections, expectation.collected, tally.unreachable, tally.differences
    );
}
