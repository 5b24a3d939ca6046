//! Kills `stepwell store put` while it stores, overwrites and removes values, and looks at what it leaves.
//!
//! Its lines of acknowledgement are the log: each was written after its batch was durable, and what the
//! process wrote to the pipe outlives it. What the store holds afterwards has to be what some batch at or
//! behind the last acknowledged one left, bit for bit. A batch behind it was being committed when the
//! process was killed; so was one that recovery finds torn.

use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tier_nvme::{NvmeStore, RecoveryReport, StorageConfig};

use crate::changes::{BATCH_CHANGES, Model, apply_batch, change};
use crate::models::Random;
use crate::parent::KILLS_PER_CLOSE;
use crate::victim::{self, Victim};

/// Longest time that the program stores values before its moment comes.
const DELAY_MAX_US: u64 = 80_000;

/// Lines that wait for the program at most; the pipe holds some besides.
const LINES_AHEAD_MAX: usize = 256;

/// From so many kills on, half have to fall into a commit; of a few, a quarter.
const KILLS_MANY: u64 = 50;

/// What the kills met.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: u64,
    /// Kills that left a batch whole which was not acknowledged.
    ahead: u64,
    /// Kills that left a torn batch and no whole one.
    torn: u64,
    /// Most batches that were whole and not acknowledged.
    ahead_max: u64,
    batches_replayed: u64,
    files_removed: u64,
    clean_opens: u64,
}

/// What is known of the store.
#[derive(Debug, Default)]
struct Expectation {
    /// After the last acknowledged batch.
    model: Model,
    /// The change that follows.
    next: u64,
}

pub(crate) fn run(kills: u64, seed: u64) {
    let folder = victim::folder("kill-values-");
    let store = folder.path().join("store");
    let mut random = Random::new(seed);
    let mut expectation = Expectation::default();
    let mut tally = Tally::default();
    for kill in 1..=kills {
        let delay = Duration::from_micros(random.below(DELAY_MAX_US));
        let life = live(&store, expectation.next, delay);
        tally.acknowledged += life.acknowledged;
        for _ in 0..life.acknowledged {
            apply_batch(&mut expectation.model, expectation.next);
            expectation.next += BATCH_CHANGES;
        }
        // What one opening recovers, the next finds done: most are left for the next child.
        let read_only = !kill.is_multiple_of(KILLS_PER_CLOSE);
        check(
            &store,
            read_only,
            life.read_end,
            &mut expectation,
            &mut tally,
        );
        verify(&store);
    }
    print(kills, seed, &expectation, &tally);
    let inside = tally.ahead + tally.torn;
    let share = if kills < KILLS_MANY { 4 } else { 2 };
    assert!(
        share * inside >= kills,
        "only {inside} of {kills} kills met a commit"
    );
    // A few kills on a busy machine may all come early.
    let least = if kills < KILLS_MANY { 1 } else { kills };
    assert!(tally.acknowledged >= least, "hardly anything was stored");
}

/// What a life of the program left behind in its pipes.
struct Life {
    /// Batches that it acknowledged.
    acknowledged: u64,
    /// The change behind the last that was given to it.
    read_end: u64,
}

/// Lets the program store values from the change `first` on, and kills it so long after its first
/// acknowledgement.
fn live(store: &Path, first: u64, delay: Duration) -> Life {
    let mut victim = Victim::start(&mut program(store), "");
    let input = victim.take_input();
    let read_end = Arc::new(AtomicU64::new(first));
    let writer = {
        let read_end = Arc::clone(&read_end);
        std::thread::spawn(move || feed(input, first, &read_end))
    };
    let ready = victim.first_line();
    if ready.is_ok() {
        std::thread::sleep(delay);
    }
    let rest = victim.kill();
    writer.join().unwrap();
    let lines: Vec<String> = ready.into_iter().chain(rest).collect();
    assert!(!lines.is_empty(), "it acknowledged nothing");
    let read_end = read_end.load(Ordering::Acquire);
    Life {
        acknowledged: count(&lines, (read_end - first) / BATCH_CHANGES),
        read_end,
    }
}

fn program(store: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stepwell"));
    command
        .args(["--json", "store", "put", "--jsonl", "-", "--store"])
        .arg(store)
        .args(["--segment-bytes", "4MiB", "--batch-keys"])
        .arg(BATCH_CHANGES.to_string())
        .stdin(Stdio::piped());
    command
}

/// Writes changes to the program without pause until it is gone.
fn feed(mut input: ChildStdin, first: u64, read_end: &AtomicU64) {
    let (sender, made) = mpsc::sync_channel(LINES_AHEAD_MAX);
    let maker = std::thread::spawn(move || {
        let mut numbers = first..;
        numbers.all(|number| sender.send((number, change(number).line())).is_ok())
    });
    for (number, line) in made {
        // Before it is written: the program may have it before this thread goes on.
        read_end.store(number + 1, Ordering::Release);
        if input.write_all(line.as_bytes()).is_err() {
            break;
        }
    }
    maker.join().unwrap();
}

/// Counts the acknowledgements, which have to be of one batch after another.
fn count(lines: &[String], batches_max: u64) -> u64 {
    for (line, batch) in lines.iter().zip(1..) {
        let answer: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(answer["batch"], batch, "{line}");
        assert_eq!(answer["changes_total"], batch * BATCH_CHANGES, "{line}");
    }
    let acknowledged = lines.len() as u64;
    assert!(acknowledged <= batches_max, "more than it was given");
    acknowledged
}

/// Opens the store and compares all of it with what the batches at and behind the last acknowledged one
/// leave.
fn check(
    store: &Path,
    read_only: bool,
    read_end: u64,
    expectation: &mut Expectation,
    tally: &mut Tally,
) {
    let config = StorageConfig::default()
        .with_create(false)
        .with_read_only(read_only);
    let store = NvmeStore::new(store, config).unwrap();
    let recovery = store.recovery_report().clone();
    assert!(recovery.damage.is_empty(), "{recovery:?}");
    let found = contents(&store);
    let ahead = settle(&found, read_end, expectation);
    // Numbers are not used again: what is found later of this life would show.
    expectation.next = read_end;
    tally.add(ahead, &recovery);
    store.close().unwrap();
}

/// What is in the store, after comparing each value with the change that it names.
fn contents(store: &NvmeStore) -> Model {
    let mut found = Model::new();
    for key in store.keys_with_prefix("") {
        let value = store.read_direct(&key).unwrap().unwrap();
        let number = value.first_chunk::<16>().unwrap();
        let number = u64::from_str_radix(str::from_utf8(number).unwrap(), 16).unwrap();
        let change = change(number);
        assert_eq!(change.key.as_bytes(), key, "a value is under another's key");
        let expected = change.value.unwrap();
        assert!(
            *value == *expected.as_bytes(),
            "value {number} came back changed"
        );
        found.insert(key, number);
    }
    found
}

/// Moves on to the batch that left what was found; tells how many were behind the acknowledged one.
fn settle(found: &Model, read_end: u64, expectation: &mut Expectation) -> u64 {
    let acknowledged = expectation.model.clone();
    let batches_max = (read_end - expectation.next) / BATCH_CHANGES;
    for ahead in 0..=batches_max {
        if *found == expectation.model {
            return ahead;
        }
        apply_batch(&mut expectation.model, expectation.next);
        expectation.next += BATCH_CHANGES;
    }
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|(key, number)| found.get(*key) != Some(number))
        .collect();
    panic!("no batch left what was found; it differs from the acknowledged one in {lost:?}");
}

/// The program itself has to find nothing wrong.
fn verify(store: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_stepwell"))
        .args(["--json", "store", "verify", "--store"])
        .arg(store)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

impl Tally {
    fn add(&mut self, ahead: u64, recovery: &RecoveryReport) {
        if ahead > 0 {
            self.ahead += 1;
        } else if recovery.tail_batches_discarded > 0 {
            self.torn += 1;
        }
        self.ahead_max = self.ahead_max.max(ahead);
        self.batches_replayed += recovery.batches_replayed;
        self.files_removed += recovery.files_removed;
        self.clean_opens += u64::from(recovery.clean);
    }
}

fn print(kills: u64, seed: u64, expectation: &Expectation, tally: &Tally) {
    println!(
        "{kills} kills of store put, seed {seed}: {} inside a commit: {} left a batch that was whole and not \
         acknowledged, {} a torn one",
        tally.ahead + tally.torn,
        tally.ahead,
        tally.torn,
    );
    println!(
        "  {} batches of {BATCH_CHANGES} changes acknowledged, up to {} more found, {} keys at the end",
        tally.acknowledged,
        tally.ahead_max,
        expectation.model.len(),
    );
    println!(
        "  recovery: {} batches replayed, {} unfinished files removed, {} opens had nothing to do",
        tally.batches_replayed, tally.files_removed, tally.clean_opens,
    );
}
