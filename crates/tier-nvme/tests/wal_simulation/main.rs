//! Seeded simulation of the log on a disk that fails: at least 200 operations and one power loss a seed,
//! compared with a list of records. The log does nothing by itself: the seed decides when a group is
//! written, when it is synced, and how many groups share the sync.
//!
//! `STEPWELL_SEEDS` sets how many seeds run (100 if unset), `STEPWELL_SEED` runs one alone.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what is wrong by panicking"
)]

mod model;
mod points;
#[path = "../simulation/mod.rs"]
mod simulation;

use core_view::contract::ErrorKind;
use model::{Life, is_excused};
use simulation::{branches, demand_all};
use tier_nvme::sim::{FaultCounts, FaultRates, Latency, Random, Seeds, SimVolume};
use tier_nvme::{Lsn, NvmeError, Wal, WalRecovery};

const OPERATIONS: u64 = 220;
const FILE_BYTES: u64 = 48 << 10;

/// Faults that report success, which this simulation leaves out but for the flips after closing.
const LIES: [&str; 4] = [
    "misdirected reads",
    "misdirected writes",
    "flipped reads",
    "flipped writes",
];

branches! {
    created: "recovery: created",
    clean: "recovery: clean",
    tail_taken: "recovery: unacknowledged tail taken",
    tail_discarded: "recovery: torn tail discarded",
    files_removed: "recovery: unfinished files removed",
    refused_open: "recovery: failed by a fault, then worked",
    reopened_without_crash: "recovery: without power loss",
    unacknowledged_lost: "records: unacknowledged, lost",
    unacknowledged_kept: "records: unacknowledged, kept",
    files_made: "files made",
    files_recycled: "files used again",
    files_retired: "files removed",
    shared_syncs: "groups that shared a sync",
    stalls: "appends that waited for memory",
    truncations_failed: "truncations that failed, and the log went on",
    headers_damaged: "bit flips: in a file's header, not needed",
    flips_detected: "bit flips: detected",
    flips_dead: "bit flips: in dead space",
}

impl Branches {
    fn add(&mut self, report: &WalRecovery) {
        self.created += u64::from(report.created);
        self.clean += u64::from(report.clean);
        self.tail_taken += report.tail_groups_taken;
        self.tail_discarded += report.tail_groups_discarded;
        self.files_removed += report.files_removed;
        self.headers_damaged += report.headers_damaged;
    }

    fn add_work(&mut self, wal: &Wal) {
        let stats = wal.stats();
        self.files_made += stats.files_made;
        self.files_recycled += stats.files_recycled;
        self.files_retired += stats.files_removed;
        self.shared_syncs += stats.groups.saturating_sub(stats.syncs);
        self.stalls += stats.stalls;
    }
}

struct Simulation<'a> {
    life: Life,
    random: Random,
    branches: &'a mut Branches,
}

impl Simulation<'_> {
    /// Opens the log, without faults after some tries, and compares everything.
    fn open(&mut self) {
        for attempt in 0.. {
            let volume = self.life.volume.clone();
            let opened = self.life.try_open(&volume).and_then(|()| {
                let appended = self.life.expected.records.len() as u64;
                let acknowledged = self.life.expected.acknowledged as u64;
                let held = self.life.wal().next_lsn().get() - 1;
                self.life.settle("after opening")?;
                self.branches.unacknowledged_lost += appended - held;
                self.branches.unacknowledged_kept += held - acknowledged;
                Ok(())
            });
            match opened {
                Ok(()) => {
                    self.branches.add(self.life.wal().recovery_report());
                    return;
                }
                Err(error) => {
                    self.branches.refused_open += 1;
                    assert!(is_excused(&error), "open failed: {error:?}");
                    self.life.volume.crash();
                    self.life.forget();
                    if attempt > 2 {
                        self.life.without_faults();
                    }
                }
            }
        }
    }

    fn payload(&mut self) -> Vec<u8> {
        let len = match self.random.below(12) {
            0 => 0,
            1..=7 => self.random.below(200),
            8..=9 => self.random.below(5000),
            10 => 4096 * self.random.below(4),
            _ => self.random.below(24_000),
        };
        let mut payload = vec![0; len as usize];
        self.random.fill(&mut payload);
        payload
    }

    fn payloads(&mut self) -> Vec<Vec<u8>> {
        let count = if self.random.chance(300) {
            1 + self.random.below(3)
        } else {
            1
        };
        let mut payloads: Vec<_> = (0..count).map(|_| self.payload()).collect();
        while payloads
            .iter()
            .map(|payload| payload.len() + 24)
            .sum::<usize>()
            > 36_000
        {
            payloads.pop();
        }
        if payloads.is_empty() {
            vec![Vec::new()]
        } else {
            payloads
        }
    }

    fn step(&mut self) -> Result<(), NvmeError> {
        match self.random.below(20) {
            0..=7 => {
                let payloads = self.payloads();
                self.life.send(payloads)?;
                self.life.collect()
            }
            8..=14 => {
                for _ in 0..=self.random.below(3) {
                    let patient = self.random.chance(600);
                    if !self.life.wal().step(patient) || self.random.chance(300) {
                        self.life.volume.step();
                    }
                }
                self.life.collect()
            }
            15 => {
                self.life.wal().sync()?;
                self.life.collect()
            }
            16..=17 => self.truncate(),
            18 => self.replay(),
            _ => self.life.finish(),
        }
    }

    fn truncate(&mut self) -> Result<(), NvmeError> {
        let durable = self.life.wal().durable_lsn().get();
        let lsn = if self.random.chance(500) {
            durable
        } else {
            1 + self.random.below(durable)
        };
        self.life.expected.floor = self.life.expected.floor.max(lsn);
        match self.life.wal().truncate_before(Lsn::new(lsn)) {
            // It may be tried again, unless the power is off.
            Err(error) if self.random.chance(700) && is_excused(&error) => {
                self.branches.truncations_failed += 1;
                Ok(())
            }
            outcome => outcome.map(drop),
        }
    }

    fn replay(&mut self) -> Result<(), NvmeError> {
        let wal = self.life.wal();
        let (first, durable) = (wal.first_lsn().get(), wal.durable_lsn().get());
        let from = first + self.random.below(durable - first + 1);
        let next = self.life.expected.compare(wal, from, "while it is open")?;
        assert_eq!(next, durable);
        Ok(())
    }

    /// Ends the life of the open log in some way, and opens it again.
    fn reopen(&mut self) {
        self.branches.add_work(self.life.wal());
        match self.random.below(5) {
            0 => {
                let closed = self.life.wal().close();
                let all = self.life.collect().is_ok() && self.life.outstanding.is_empty();
                self.life.forget();
                if closed.is_ok() {
                    assert!(all, "closed, and records are outstanding");
                    self.damage();
                }
            }
            1 => {
                // The process dies and the system lives on.
                self.life.volume.kill();
                self.life.forget();
                self.branches.reopened_without_crash += 1;
            }
            _ => {
                self.life.volume.crash();
                self.life.forget();
            }
        }
        self.choose_faults();
        self.open();
    }

    /// Flips bits on copies of a cleanly closed disk: found, or without consequence.
    fn damage(&mut self) {
        for _ in 0..4 {
            let copy = self.life.volume.fork(self.random.next_u64());
            copy.set_faults(FaultRates::default());
            let files = copy.files();
            let (name, len) = &files[self.random.below(files.len() as u64) as usize];
            let range = if self.random.chance(600) {
                4096 + 200
            } else {
                *len
            };
            let bit = self.random.below(range * 8);
            assert!(copy.flip_bit(name, bit));
            let config = self.life.config().with_read_only(true);
            let read = Wal::open(copy.handle(), config).and_then(|wal| {
                self.branches.headers_damaged += wal.recovery_report().headers_damaged;
                let first = wal.first_lsn().get();
                assert!(first <= self.life.expected.floor);
                let what = format!("bit {bit} of {name} flipped");
                self.life.expected.compare(&wal, first, &what)
            });
            match read {
                Ok(_) => self.branches.flips_dead += 1,
                Err(error) => {
                    let kind = error.kind();
                    assert_eq!(kind, ErrorKind::Corrupt, "{error:?}");
                    self.branches.flips_detected += 1;
                }
            }
        }
    }

    fn choose_faults(&mut self) {
        let rate = |random: &mut Random, per_mille| if random.chance(300) { per_mille } else { 0 };
        self.life.volume.set_faults(FaultRates {
            read_errors: rate(&mut self.random, 20),
            write_errors: rate(&mut self.random, 20),
            sync_errors: rate(&mut self.random, 20),
            short_transfers: rate(&mut self.random, 100),
            interruptions: rate(&mut self.random, 100),
            ..FaultRates::default()
        });
        let capacity = if self.random.chance(300) {
            5 * FILE_BYTES
        } else {
            u64::MAX
        };
        self.life.volume.set_capacity(capacity);
        let latency = self.random.chance(500).then(Latency::of_flash);
        self.life.volume.set_latency(latency);
        self.life.spare_files = self.random.below(4) as usize;
        if self.random.chance(700) {
            self.life.volume.fail_power_after(self.random.below(60));
        }
    }

    fn run(&mut self) {
        self.open();
        for _ in 0..OPERATIONS {
            match self.step() {
                Ok(()) => {
                    if self.random.chance(15) {
                        self.reopen();
                    }
                }
                Err(NvmeError::NoSpace { .. }) => {}
                Err(error) => {
                    assert!(is_excused(&error), "{error:?}");
                    if error.kind() != ErrorKind::NoSpace {
                        self.reopen();
                    }
                }
            }
        }
        self.branches.add_work(self.life.wal());
        self.life.volume.crash();
        self.life.forget();
        self.life.without_faults();
        self.open();
        self.life.wal().append(b"goes on").unwrap();
    }
}

fn simulate(seed: u64, branches: &mut Branches) -> FaultCounts {
    let volume = SimVolume::new(seed);
    let mut simulation = Simulation {
        life: Life::new(volume.clone(), FILE_BYTES),
        random: Random::new(seed ^ 0x0a11_0b5e),
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

#[test]
fn no_acknowledged_record_is_lost_and_no_byte_is_wrong() {
    let mut branches = Branches::default();
    let mut counts = FaultCounts::default();
    let seeds = Seeds::from_environment(100);
    let replay = "cargo test -p tier-nvme --features sim --test wal_simulation";
    seeds.for_each(replay, |seed| {
        counts += simulate(seed, &mut branches);
    });
    println!("{} seeds of {OPERATIONS} operations", seeds.count());
    let faults = counts
        .rows()
        .into_iter()
        .filter(|(name, _)| !LIES.contains(name));
    demand_all(&seeds, faults.chain(branches.rows()));
}
