//! Seeded simulation of the store on a disk that loses power and fails: families of models come, go and are
//! collected, and after each loss everything that was acknowledged is there, bit for bit.
//!
//! `STEPWELL_MODEL_SEEDS` sets how many seeds run (12 if unset), `STEPWELL_SEED` runs one alone.
#![cfg(feature = "native")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod content;
mod counts;
mod expected;
mod life;
mod operations;

use tier_nvme::sim::FaultCounts;

use counts::{Counts, RARE};

/// Operations of a seed.
const OPERATIONS: u64 = 200;

/// From so many seeds on, what is rare has to be met too.
const SEEDS_MANY: u64 = 1000;

/// The faults that a disk admits to.
const MET: [&str; 12] = [
    "power losses",
    "sectors kept",
    "sectors lost",
    "writes torn",
    "directory changes kept",
    "directory changes lost",
    "read errors",
    "write errors",
    "sync errors",
    "no space",
    "short transfers",
    "interruptions",
];

const COMMAND: &str = "cargo test -p weightstore --test store_simulation";

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.trim().parse().ok()
}

/// Names the seed if the life in it fails.
struct Failing(u64);

impl Drop for Failing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "seed {0} failed; replay it with: STEPWELL_SEED={0} {COMMAND}",
                self.0
            );
        }
    }
}

fn live(seed: u64) -> (Counts, FaultCounts) {
    let failing = Failing(seed);
    let lived = life::run(failing.0);
    assert!(lived.0.operations >= OPERATIONS && lived.1.crashes > 0);
    lived
}

#[test]
fn what_was_acknowledged_survives() {
    let replayed = number("STEPWELL_SEED");
    let seeds = match replayed {
        Some(seed) => seed..seed + 1,
        None => 0..number("STEPWELL_MODEL_SEEDS").unwrap_or(12),
    };
    let (mut counts, mut faults) = (Counts::default(), FaultCounts::default());
    for seed in seeds.clone() {
        let (lived, met) = live(seed);
        counts += lived;
        faults += met;
    }
    println!("{} seeds", seeds.end - seeds.start);
    let met = faults.rows().into_iter();
    let met = met.filter(|(name, _)| MET.contains(name));
    let rows: Vec<(&str, u64)> = counts.rows().into_iter().chain(met).collect();
    for (name, count) in &rows {
        println!("  {count:>9}  {name}");
    }
    if replayed.is_none() {
        let many = seeds.end - seeds.start >= SEEDS_MANY;
        let never: Vec<&str> = rows
            .iter()
            .filter(|row| row.1 == 0)
            .map(|row| row.0)
            .filter(|name| many || !RARE.contains(name))
            .collect();
        assert!(never.is_empty(), "never seen: {never:?}");
    }
}

#[test]
fn a_seed_is_lived_the_same_way_again() {
    for seed in [7, 8, 9] {
        assert_eq!(live(seed), live(seed));
    }
}
