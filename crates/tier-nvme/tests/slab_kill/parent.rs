//! Starts the child, kills it, and looks at what it leaves.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::sleep;
use std::time::{Duration, Instant};

use core_view::BufferMut;
use core_view::contract::{BlockGet, BlockStore};
use tempfile::tempdir;
use tier_nvme::sim::Random;
use tier_nvme::{BlockSlab, Damage};

use crate::blocks::{BLOCK_BYTES, config, payload};
use crate::expectation::Expectation;
use crate::stage;

/// Where the child works.
pub(crate) const FOLDER_VARIABLE: &str = "STEPWELL_KILL_FOLDER";

/// How long a child may take to open the slab.
const OPEN_MAX: Duration = Duration::from_secs(60);

const SIGKILL: i32 = 9;

/// After so many kills the parent lets the slab be recovered and closed by itself; after the others it
/// only reads, so that the next child finds what the killed one left.
const KILLS_PER_CLOSE: u64 = 8;

/// Each so many-th child is killed while it recovers what the one before left.
const KILLS_PER_OPENING: u64 = 6;

/// Longest time from its first write to that kill.
const RECOVERY_MAX_US: u64 = 3000;

/// Longest time that a child works before its moment comes.
const DELAY_MAX_US: u64 = 60_000;

/// How long a wanted stage is waited for before any stage will do.
const PATIENCE: Duration = Duration::from_millis(100);

/// What the kills met.
#[derive(Debug, Default)]
struct Tally {
    stages: [u64; stage::NAMES.len()],
    openings: u64,
    records_replayed: u64,
    tails_taken: u64,
    tails_discarded: u64,
    files_removed: u64,
    clean_opens: u64,
    tables_torn: u64,
}

pub(crate) fn run(kills: u64, seed: u64) {
    // On the disk that the program was built on: memory would hide what a device does.
    let folder = tempfile::Builder::new()
        .prefix("slab-kill-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .or_else(|_| tempdir())
        .unwrap();
    let folder = folder.path();
    let mut random = Random::new(seed);
    let mut expectation = Expectation::default();
    let mut tally = Tally::default();
    for kill in 1..=kills {
        std::fs::write(folder.join("next"), (expectation.last + 1).to_string()).unwrap();
        let moment = if kill % KILLS_PER_OPENING == KILLS_PER_OPENING - 1 {
            Moment::InOpening(Duration::from_micros(random.below(RECOVERY_MAX_US)))
        } else {
            Moment::AtWork {
                delay: Duration::from_micros(random.below(DELAY_MAX_US)),
                // Where moments at random meet too few commits, some are moved to one.
                wanted: (4 * tally.stages[0] >= kill)
                    .then(|| 1 + random.below(stage::NAMES.len() as u64 - 1) as usize),
            }
        };
        if kill_one(folder, moment, &mut expectation) {
            tally.stages[stage::read(&folder.join("stage"))] += 1;
        } else {
            tally.openings += 1;
        }
        let read_only = !kill.is_multiple_of(KILLS_PER_CLOSE);
        check(folder, read_only, &mut expectation, &mut tally);
    }
    print(kills, seed, &expectation, &tally);
    let inside: u64 = tally.stages.iter().skip(1).sum();
    assert!(
        2 * inside >= kills,
        "only {inside} of {kills} kills met a commit"
    );
    assert!(
        expectation.acknowledged >= 2 * kills,
        "hardly anything was put"
    );
}

/// When a child is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after recovery began to write; when the slab is open at the latest.
    InOpening(Duration),
    AtWork {
        /// Time since it began to work.
        delay: Duration,
        /// The stage that is waited for after that.
        wanted: Option<usize>,
    },
}

impl Moment {
    /// Waits for the moment; whether the slab was opened by then.
    fn wait(self, folder: &Path, said: &Receiver<String>) -> bool {
        let path = folder.join("stage");
        let (delay, wanted) = match self {
            Self::InOpening(delay) => {
                let started = Instant::now();
                while stage::read(&path) == 0 && started.elapsed() < OPEN_MAX {
                    if said.try_recv().is_ok() {
                        return true;
                    }
                }
                sleep(delay);
                return said.try_recv().is_ok();
            }
            Self::AtWork { delay, wanted } => (delay, wanted),
        };
        let ready = said.recv_timeout(OPEN_MAX);
        assert_eq!(ready.as_deref(), Ok("ready"), "the child opened nothing");
        sleep(delay);
        let Some(wanted) = wanted else { return true };
        let started = Instant::now();
        loop {
            let met = stage::read(&path);
            let waited = started.elapsed();
            if met == wanted || (met != 0 && waited > PATIENCE) || waited > 10 * PATIENCE {
                return true;
            }
        }
    }
}

/// Lets a child work until the moment and kills it; what it said by then is taken in. Whether it had opened the slab.
fn kill_one(folder: &Path, moment: Moment, expectation: &mut Expectation) -> bool {
    std::fs::write(folder.join("stage"), [0]).unwrap();
    let mut child = start(folder);
    let pipe = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in pipe.lines() {
            let line = line.unwrap();
            if let Some(said) = line.strip_prefix('@') {
                sender.send(said.to_owned()).unwrap();
            }
        }
    });
    let opened = moment.wait(folder, &receiver);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    reader.join().unwrap();
    assert_eq!(status.signal(), Some(SIGKILL), "the child ended by itself");
    for line in receiver {
        expectation.hear(&line);
    }
    opened
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_process", "--ignored", "--nocapture"])
        .env(FOLDER_VARIABLE, folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Opens the slab and compares every block, byte for byte.
fn check(folder: &Path, read_only: bool, expectation: &mut Expectation, tally: &mut Tally) {
    let config = config().with_create(false).with_read_only(read_only);
    let slab = BlockSlab::open(folder.join("slab"), config).unwrap();
    let recovery = slab.recovery_report();
    // One table may be torn, as long as its twin is whole.
    let is_table = |it: &Damage| it.structure == "block table";
    let damage = &recovery.damage;
    assert!(
        damage.iter().all(is_table) && damage.len() < 2,
        "{recovery:?}"
    );
    tally.clean_opens += u64::from(recovery.clean);
    tally.records_replayed += recovery.records_replayed;
    tally.tails_taken += recovery.tail_records_taken;
    tally.tails_discarded += recovery.tail_records_discarded;
    tally.files_removed += recovery.files_removed;
    let mut found = BTreeMap::new();
    for entry in slab.list(None, usize::MAX).unwrap() {
        let number = u64::from_le_bytes(entry.meta.as_slice().try_into().unwrap());
        let target = BufferMut::zeroed(BLOCK_BYTES, 4096).unwrap();
        let key = entry.key;
        let mut blocks = slab.get(vec![BlockGet { key, target }]).wait().unwrap();
        let block = blocks.remove(0).unwrap();
        assert!(
            block.payload() == payload(number, key.0),
            "block {key} came back changed"
        );
        found.insert(key.0, number);
    }
    expectation.settle(&found);
    let verified = slab.verify().unwrap();
    // A table that was cut off waits, as damage, for whoever may write; its twin is whole.
    let torn = |it: &Damage| read_only && is_table(it);
    let (torn, damage): (Vec<_>, Vec<_>) = verified.damage.into_iter().partition(torn);
    assert!(damage.is_empty() && torn.len() < 2, "{damage:?}, {torn:?}");
    tally.tables_torn += torn.len() as u64;
    slab.close().unwrap();
}

fn print(kills: u64, seed: u64, expectation: &Expectation, tally: &Tally) {
    let inside: u64 = tally.stages.iter().skip(1).sum();
    println!("{kills} kills, seed {seed}: {inside} inside a commit");
    for (name, count) in stage::NAMES.iter().zip(tally.stages) {
        println!("  {name:<8} {count:>4} {}", "#".repeat(count as usize));
    }
    println!("  opening  {:>4}", tally.openings);
    let [made, kept] = expectation.undecided;
    println!(
        "  {} batches acknowledged; of the blocks of those cut off, {made} were found changed and {kept} not",
        expectation.acknowledged
    );
    println!(
        "  recovery: {} records replayed, {} unacknowledged ones taken, {} discarded, \
         {} unfinished files removed, {} tables torn, {} opens had nothing to do",
        tally.records_replayed,
        tally.tails_taken,
        tally.tails_discarded,
        tally.files_removed,
        tally.tables_torn,
        tally.clean_opens
    );
}
