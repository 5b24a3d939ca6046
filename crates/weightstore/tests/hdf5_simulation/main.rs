//! Seeded simulation of the store over one HDF5 file, on a disk that loses power, fails and fills up: after each
//! loss the file is what the last acknowledged commit made of it, or what the one that was under way would have.
//!
//! `STEPWELL_MODEL_SEEDS` sets how many seeds run (12 if unset), `STEPWELL_FIRST_SEED` where they begin,
//! `STEPWELL_SEED` runs one alone.
#![cfg(feature = "hdf5")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod content;
mod life;
#[path = "../simulation/mod.rs"]
mod simulation;

use life::Counts;
use simulation::Simulation;

const SIMULATION: Simulation<Counts> = Simulation {
    command: "cargo test -p weightstore --features hdf5 --test hdf5_simulation",
    life: life::run,
    rare: &["opens that a fault cut off", "no space"],
    seeds_many: 200,
};

#[test]
fn a_commit_is_whole_or_absent_after_power_failures() {
    SIMULATION.run();
}

#[test]
fn a_seed_is_lived_the_same_way_again() {
    SIMULATION.run_again(3..5);
}
