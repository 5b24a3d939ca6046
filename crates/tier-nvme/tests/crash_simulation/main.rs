//! Seeded simulation of the store on a disk that fails: at least 200 operations and one power loss a
//! seed, compared with a `BTreeMap`.
//!
//! `STEPWELL_SEEDS` sets how many seeds run (100 if unset), `STEPWELL_SEED` runs one alone.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what is wrong by panicking"
)]

mod again;
mod lies;
mod points;
mod reads;
#[path = "../simulation/mod.rs"]
mod simulation;

use std::collections::BTreeMap;
use std::time::Duration;

use core_view::BufferMut;
use core_view::contract::ErrorKind;
use simulation::{branches, demand_all};
use tier_nvme::sim::{FaultCounts, FaultRates, Latency, Random, Seeds, SimVolume};
use tier_nvme::{
    CompressionType, NvmeError, NvmeStore, RecoveryReport, StorageConfig, StoreStats, WriteBatch,
};

const OPERATIONS: u64 = 220;
const SEGMENT_BYTES: u64 = 128 << 10;

/// How to run one seed alone.
const REPLAY: &str = "cargo test -p tier-nvme --features sim --test crash_simulation";

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a batch puts and deletes.
type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

fn apply(model: &mut Model, changes: &Changes) {
    for (key, value) in changes {
        match value {
            Some(value) => model.insert(key.clone(), value.clone()),
            None => model.remove(key),
        };
    }
}

branches! {
    created: "recovery: created",
    clean: "recovery: clean",
    replayed: "recovery: batches replayed",
    tail_taken: "recovery: unacknowledged tail taken",
    tail_discarded: "recovery: torn tail discarded",
    files_removed: "recovery: unfinished files removed",
    one_checkpoint: "recovery: one checkpoint damaged",
    without_checkpoint: "recovery: no checkpoint, whole log",
    superblock_copy: "recovery: one superblock damaged",
    reopened_without_crash: "recovery: reopened without power loss",
    refused_open: "recovery: open failed by a fault, then worked",
    long_tails: "recovery: tail of several batches",
    tails_left: "recovery: left a tail behind a torn batch",
    written_again: "batches written again behind it",
    overlapped: "batches written beside a sync",
    syncs_shared: "batches synced with the one before",
    abandoned: "batches abandoned under way",
    recycled: "segments made of old files",
    prepared: "segments made ahead",
    segments_removed: "segments removed",
    reserves_used: "space kept back that was used",
    compactions: "compactions finished",
    compactions_cut_off: "compactions cut off",
    values_moved: "values moved",
    moves_lost: "moves that came too late",
    compressed: "bytes saved by compression",
    flips_detected: "bit flips detected",
    flips_dead: "bit flips in dead space",
}

impl Branches {
    fn add(&mut self, report: &RecoveryReport) {
        let damaged = |structure| {
            report
                .damage
                .iter()
                .any(|damage| damage.structure == structure)
        };
        self.created += u64::from(report.created);
        self.clean += u64::from(report.clean);
        self.replayed += report.batches_replayed;
        self.tail_taken += report.tail_batches_taken;
        self.tail_discarded += report.tail_batches_discarded;
        let tail = report.tail_batches_taken + report.tail_batches_discarded;
        self.long_tails += u64::from(tail > 1);
        self.files_removed += report.files_removed;
        self.without_checkpoint += u64::from(report.without_checkpoint);
        self.one_checkpoint += u64::from(damaged("checkpoint") && !report.without_checkpoint);
        self.superblock_copy += u64::from(damaged("superblock"));
    }

    /// What a store that ends did.
    fn add_life(&mut self, stats: &StoreStats) {
        self.segments_removed += stats.segments_removed;
        self.reserves_used += stats.reserves_used;
        self.compactions += stats.compactions_finished;
        self.compactions_cut_off += stats.compactions_begun - stats.compactions_finished;
        self.values_moved += stats.values_moved;
        self.moves_lost += stats.moves_lost;
    }
}

/// Why it is not known whether a batch is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// It failed: before it was begun, without a trace, so that the next may be there alone, or in the middle.
    /// Or nobody waited for it.
    Alone,
    /// As that, and it is there only if the one before is.
    Behind,
}

struct Simulation<'a> {
    volume: SimVolume,
    random: Random,
    store: Option<NvmeStore>,
    /// What was acknowledged.
    model: Model,
    /// What the store may hold instead: the outcome of the batches under way is unknown, but they count in
    /// order.
    maybe: Vec<Model>,
    /// Those after which the next batch may follow: they have the last of these batches, or it left no trace.
    tips: Vec<Model>,
    /// Whether the disk may be full.
    bounded: bool,
    /// Whether the device refuses some of what it is told to do.
    device_fails: bool,
    branches: &'a mut Branches,
}

impl Simulation<'_> {
    fn config() -> StorageConfig {
        StorageConfig::default()
            .with_segment_bytes(SEGMENT_BYTES)
            .with_compression(CompressionType::LZ4)
            .with_background(false)
            .with_cache_size(100_000)
            .with_prefetch_distance(4)
    }

    /// Opens the store, without faults after some tries, and compares everything.
    fn open(&mut self) {
        for attempt in 0.. {
            match NvmeStore::on_volume(self.volume.handle(), Self::config()) {
                Ok(store) => {
                    self.branches.add(store.recovery_report());
                    self.store = Some(store);
                    break;
                }
                Err(error) => {
                    self.branches.refused_open += 1;
                    let excused = matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace);
                    assert!(excused, "open failed: {error:?}");
                    self.volume.crash();
                    if attempt > 2 {
                        self.volume.set_faults(FaultRates::default());
                        self.volume.set_capacity(u64::MAX);
                    }
                }
            }
        }
        self.settle();
    }

    /// Decides which of the models the store holds, and that it is one of them.
    fn settle(&mut self) {
        let held = self.read_all();
        let maybe = std::mem::take(&mut self.maybe);
        self.tips.clear();
        if let Some(other) = maybe.into_iter().find(|other| *other == held) {
            self.model = other;
        }
        assert_eq!(
            keys(&held),
            keys(&self.model),
            "the keys are not those acknowledged"
        );
        assert_eq!(held, self.model, "a value is not the one acknowledged");
    }

    fn read_all(&mut self) -> Model {
        let store = self.store.as_ref().unwrap();
        let mut held = Model::new();
        for key in store.keys_with_prefix("") {
            let value = loop {
                match store.read_direct(&key) {
                    Ok(value) => break value.unwrap().to_vec(),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{error:?}"),
                }
            };
            held.insert(key, value);
        }
        held
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.random.below(10) {
            0 => 0,
            1..=4 => self.random.below(300),
            5..=6 => self.random.below(6000),
            7 => 4096 * (1 + self.random.below(4)),
            _ => self.random.below(30_000),
        };
        let mut value = vec![0; len as usize];
        // A third can be compressed.
        let filled = if self.random.chance(333) {
            16.min(value.len())
        } else {
            value.len()
        };
        self.random.fill(&mut value[..filled]);
        value
    }

    fn changes(&mut self) -> Changes {
        let one = |this: &mut Self| {
            let key = format!("key-{}", this.random.below(24)).into_bytes();
            let value = (!this.random.chance(250)).then(|| this.value());
            (key, value)
        };
        (0..=self.random.below(5)).map(|_| one(self)).collect()
    }

    fn batch(&mut self, changes: &Changes) -> WriteBatch {
        changes
            .iter()
            .fold(WriteBatch::new(), |batch, (key, value)| match value {
                Some(value) => batch.put(key.clone(), self.buffer(value)),
                None => batch.delete(key.clone()),
            })
    }

    /// The value in memory that is aligned, or that is not.
    fn buffer(&mut self, value: &[u8]) -> BufferMut {
        if value.is_empty() || self.random.chance(500) {
            return BufferMut::from_vec(value.to_vec());
        }
        let mut buffer = BufferMut::zeroed(value.len(), 4096).unwrap();
        buffer.copy_from_slice(value);
        buffer
    }

    /// Takes in how a batch ended; `false` if the store has to be reopened.
    fn note(&mut self, changes: &Changes, outcome: Result<(), ErrorKind>) -> bool {
        match outcome {
            Ok(()) => {
                // One that failed before this did so without a trace: else the store would have stopped.
                self.maybe.clear();
                self.tips.clear();
                apply(&mut self.model, changes);
            }
            Err(ErrorKind::NoSpace) => {}
            Err(ErrorKind::InvalidInput) => {
                let lens = changes.iter().filter_map(|(_, value)| value.as_ref());
                let len_bytes: usize = lens.map(Vec::len).sum();
                let is_long = len_bytes as u64 > SEGMENT_BYTES * 3 / 4;
                assert!(is_long, "{len_bytes} bytes were refused");
            }
            Err(ErrorKind::Poisoned) => self.doubt(changes, Doubt::Behind),
            Err(kind) => {
                assert_eq!(kind, ErrorKind::Io);
                self.doubt(changes, Doubt::Alone);
            }
        }
        self.maybe.is_empty()
    }

    /// The batch may be there.
    fn doubt(&mut self, changes: &Changes, doubt: Doubt) {
        let mut without = Vec::new();
        let mut tips = std::mem::take(&mut self.tips);
        if doubt == Doubt::Alone {
            without.push(self.model.clone());
            without.extend(self.maybe.iter().cloned());
            tips.clone_from(&without);
        }
        for after in &mut tips {
            apply(after, changes);
        }
        self.maybe.extend(tips.iter().cloned());
        self.tips = without;
        self.tips.extend(tips);
    }

    /// Writes a batch; `false` if the store has to be reopened.
    fn write(&mut self) -> bool {
        let changes = self.changes();
        let batch = self.batch(&changes);
        let outcome = self.store.as_ref().unwrap().write_batch(batch);
        self.note(&changes, outcome.map_err(|error| error.kind()))
    }

    /// Hands several batches over that are under way at once, and may not wait for them.
    fn write_several(&mut self) -> bool {
        let mut under_way = Vec::new();
        for _ in 0..2 + self.random.below(4) {
            let changes = self.changes();
            let batch = self.batch(&changes);
            let store = self.store.as_ref().unwrap();
            under_way.push((changes, store.write_batch_async(batch)));
            for _ in 0..self.random.below(3) {
                store.step();
            }
        }
        let abandon = !self.bounded && self.random.chance(250);
        let mut works = !abandon;
        let mut given_up = false;
        for (changes, write) in under_way {
            let is_done = write.is_done();
            if abandon && (given_up || !is_done) {
                self.branches.abandoned += 1;
                let refused = is_done.then(|| write.wait().err()).flatten();
                if refused.is_some_and(|failure| failure.kind() == ErrorKind::InvalidInput) {
                    self.note(&changes, Err(ErrorKind::InvalidInput));
                    continue;
                }
                // Where the device fails, each may fail before it is begun.
                let is_first = !std::mem::replace(&mut given_up, true);
                let doubt = match is_first || self.device_fails {
                    true => Doubt::Alone,
                    false => Doubt::Behind,
                };
                self.doubt(&changes, doubt);
                continue;
            }
            let outcome = write.wait().map_err(|failure| failure.kind());
            works &= self.note(&changes, outcome);
        }
        works
    }

    fn step(&mut self) -> bool {
        match self.random.below(20) {
            0 if self.random.chance(300) => {
                self.write_again();
                true
            }
            0 => self.checkpoint(),
            1..=3 => {
                self.read_one();
                true
            }
            4 => self.random.chance(700),
            5 => self.compact(),
            6..=7 => self.step_background(),
            8..=10 => self.write_several(),
            _ => self.write(),
        }
    }

    /// Compacts at once, or lets the writes to come and the steps between them do it.
    fn compact(&mut self) -> bool {
        let store = self.store.as_ref().unwrap();
        let result = if self.random.chance(300) {
            store.compact().map(drop)
        } else {
            store.begin_compaction()
        };
        went_well(result)
    }

    fn step_background(&mut self) -> bool {
        let store = self.store.as_ref().unwrap();
        (0..self.random.below(20))
            .all(|_| went_well(store.step_background(Duration::MAX).map(drop)))
    }

    fn checkpoint(&mut self) -> bool {
        went_well(self.store.as_ref().unwrap().checkpoint())
    }

    fn read_one(&mut self) {
        let key = format!("key-{}", self.random.below(24)).into_bytes();
        let way = self.random.below(reads::WAYS);
        match reads::read(self.store.as_ref().unwrap(), &key, way) {
            Ok(value) => assert_eq!(value.as_ref(), self.model.get(&key)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{error:?}"),
        }
    }

    /// Ends the life of the open store in some way, and opens it again.
    fn reopen(&mut self) {
        let store = self.store.take().unwrap();
        let stats = store.stats();
        self.branches.add_life(&stats);
        self.branches.overlapped += stats.batches_overlapped;
        self.branches.syncs_shared += stats.syncs_shared;
        self.branches.recycled += stats.segments_recycled;
        self.branches.prepared += stats.segments_prepared;
        self.branches.compressed += stats.live_raw_bytes - stats.live_bytes;
        match self.random.below(5) {
            0 => {
                let closed = store.close().is_ok();
                drop(store);
                if closed && self.maybe.is_empty() {
                    self.damage();
                }
            }
            1 => {
                // The process dies and the system lives on.
                self.volume.kill();
                drop(store);
                self.branches.reopened_without_crash += 1;
            }
            _ => {
                self.volume.crash();
                drop(store);
            }
        }
        self.choose_faults();
        self.open();
    }

    /// Flips bits on a copy of a cleanly closed disk.
    fn damage(&mut self) {
        if self.volume.has_power() {
            let copy = self.volume.fork(0);
            copy.set_faults(FaultRates::default());
            let store = NvmeStore::on_volume(copy.handle(), Self::config()).unwrap();
            let removed = store.recovery_report().files_removed;
            assert_eq!(removed, 0, "files that the store did not know were left");
        }
        for _ in 0..4 {
            let copy = self.volume.fork(self.random.next_u64());
            copy.set_faults(FaultRates::default());
            // A reserve whose length was lost with the power has no bit to flip.
            let mut files = copy.files();
            files.retain(|(_, len)| *len > 0);
            let (name, len) = &files[self.random.below(files.len() as u64) as usize];
            let name = if self.random.chance(300) {
                "STORE"
            } else {
                name
            };
            let len = if name == "STORE" { 8192 } else { *len };
            // Headers and checkpoints are at the front; half of the flips go there.
            let range = if self.random.chance(500) {
                len.min(8192)
            } else {
                len
            };
            let bit = self.random.below(range * 8);
            assert!(copy.flip_bit(name, bit));
            // Superblocks, the first page of each file, and the first batch header of a segment.
            let headers_bytes = match name {
                name if name.starts_with("CHECKPOINT") => 4096,
                // Nothing is in them.
                name if name.starts_with("RESERVE") => 0,
                // Without power, closing left files behind that the store knows no more.
                name if name.starts_with("SEGMENT") && !self.volume.has_power() => 0,
                name if name.starts_with("SEGMENT") && !has_batches(&self.volume, name) => 4096,
                _ => 8192,
            };
            let whole = self.check_damaged(&copy);
            assert!(
                !whole || bit >= headers_bytes * 8,
                "verify missed bit {bit} of {name}"
            );
        }
        let copy = self.volume.fork(self.random.next_u64());
        copy.set_faults(FaultRates::default());
        let both = ["CHECKPOINT-A", "CHECKPOINT-B"];
        assert!(both.iter().all(|name| copy.flip_bit(name, 100)));
        if let Ok(store) = NvmeStore::on_volume(copy.handle(), Self::config()) {
            self.branches.add(store.recovery_report());
            for (key, value) in &self.model {
                assert_eq!(
                    store.read_direct(key).unwrap().as_deref(),
                    Some(value.as_slice())
                );
            }
            assert_eq!(store.len(), self.model.len() as u64);
        }
    }

    /// After one flipped bit: named by verify and never a wrong byte, or without any consequence, which is
    /// what it tells.
    fn check_damaged(&mut self, copy: &SimVolume) -> bool {
        let store = match NvmeStore::on_volume(copy.handle(), Self::config().with_read_only(true)) {
            Ok(store) => store,
            Err(error) => panic!("one flipped bit kept the store from opening: {error:?}"),
        };
        self.branches.add(store.recovery_report());
        let whole = store.verify().unwrap().is_whole();
        if whole {
            self.branches.flips_dead += 1;
        } else {
            self.branches.flips_detected += 1;
        }
        assert_eq!(keys_of(&store), keys(&self.model));
        for (way, (key, value)) in (0..).zip(&self.model) {
            match reads::read(&store, key, way) {
                Ok(read) => assert_eq!(read.as_ref(), Some(value)),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
                    assert!(!whole, "verify missed what a read found: {error}");
                }
            }
        }
        whole
    }

    fn choose_faults(&mut self) {
        let rate = |random: &mut Random, per_mille| if random.chance(300) { per_mille } else { 0 };
        let rates = FaultRates {
            read_errors: rate(&mut self.random, 20),
            write_errors: rate(&mut self.random, 20),
            sync_errors: rate(&mut self.random, 20),
            short_transfers: rate(&mut self.random, 200),
            interruptions: rate(&mut self.random, 100),
            ..FaultRates::default()
        };
        self.volume.set_faults(rates);
        self.device_fails = rates.read_errors + rates.write_errors + rates.sync_errors > 0;
        let latency = self.random.chance(600).then(Latency::of_flash);
        self.volume.set_latency(latency);
        self.bounded = self.random.chance(300);
        let capacity = if self.bounded {
            6 * SEGMENT_BYTES
        } else {
            u64::MAX
        };
        self.volume.set_capacity(capacity);
        if self.random.chance(700) {
            self.volume.fail_power_after(self.random.below(120));
        }
    }

    fn run(&mut self) {
        self.open();
        for _ in 0..OPERATIONS {
            if !self.step() {
                self.reopen();
            }
        }
        self.volume.crash();
        self.store = None;
        self.volume.set_faults(FaultRates::default());
        self.volume.set_capacity(u64::MAX);
        self.open();
        let report = self.store.as_ref().unwrap().verify().unwrap();
        assert!(report.is_whole(), "{report:?}");
    }
}

/// Whether the store can go on after something that changes no value.
fn went_well(result: Result<(), NvmeError>) -> bool {
    match result {
        Ok(()) | Err(NvmeError::NoSpace { .. }) => true,
        Err(NvmeError::Poisoned { .. }) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
            false
        }
    }
}

/// Whether a segment has a batch of its own: one that was made ahead has none, whatever it held before.
fn has_batches(volume: &SimVolume, name: &str) -> bool {
    let bytes = volume.bytes_of(name).unwrap();
    let id = u64::from_str_radix(&name["SEGMENT-".len()..], 16).unwrap();
    bytes[4096..].starts_with(b"STEPBTCH") && bytes[4096 + 24..4096 + 32] == id.to_le_bytes()
}

fn keys(model: &Model) -> Vec<Vec<u8>> {
    model.keys().cloned().collect()
}

fn keys_of(store: &NvmeStore) -> Vec<Vec<u8>> {
    store.keys_with_prefix("")
}

fn simulate(seed: u64, branches: &mut Branches) -> FaultCounts {
    let volume = SimVolume::new(seed);
    let mut simulation = Simulation {
        volume: volume.clone(),
        random: Random::new(seed ^ 0x5717_e11e),
        store: None,
        model: Model::new(),
        maybe: Vec::new(),
        tips: Vec::new(),
        bounded: false,
        device_fails: false,
        branches,
    };
    simulation.run();
    volume.counts()
}

#[test]
fn a_seed_gives_the_same_life_again() {
    let life = |seed| {
        let mut branches = Branches::default();
        let counts = simulate(seed, &mut branches);
        (counts, branches)
    };
    for seed in 0..8 {
        assert_eq!(life(seed), life(seed), "seed {seed}");
    }
}

/// Lies of the disk have a test of their own; a commit has one write in flight here, so that nothing
/// overtakes it.
const ELSEWHERE: [&str; 7] = [
    "completions out of order",
    "operations cut off in flight",
    "writes after death",
    "misdirected reads",
    "misdirected writes",
    "flipped reads",
    "flipped writes",
];

#[test]
fn no_acknowledged_batch_is_lost_and_no_byte_is_wrong() {
    let mut branches = Branches::default();
    let mut counts = FaultCounts::default();
    let seeds = Seeds::from_environment(100);
    seeds.for_each(REPLAY, |seed| {
        counts += simulate(seed, &mut branches);
    });
    println!("{} seeds of {OPERATIONS} operations", seeds.count());
    let faults = counts.rows().into_iter();
    let faults = faults.filter(|(name, _)| !ELSEWHERE.contains(name));
    demand_all(&seeds, faults.chain(branches.rows()));
}
