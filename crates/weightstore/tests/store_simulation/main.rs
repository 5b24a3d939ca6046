//! Seeded simulation of the store on a disk that loses power and fails: families of models come, go and are
//! collected, and after each loss everything that was acknowledged is there, bit for bit.
//!
//! `STEPWELL_MODEL_SEEDS` sets how many seeds run (12 if unset), `STEPWELL_FIRST_SEED` where they begin,
//! `STEPWELL_SEED` runs one alone.
#![cfg(feature = "native")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod content;
mod counts;
mod expected;
mod life;
mod operations;
#[path = "../simulation/mod.rs"]
mod simulation;

use counts::{Counts, RARE};
use simulation::Simulation;

const SIMULATION: Simulation<Counts> = Simulation {
    command: "cargo test -p weightstore --test store_simulation",
    life: life::run,
    rare: &RARE,
    seeds_many: 1000,
};

#[test]
fn what_was_acknowledged_survives() {
    SIMULATION.run();
}

#[test]
fn a_seed_is_lived_the_same_way_again() {
    SIMULATION.run_again(7..10);
}
