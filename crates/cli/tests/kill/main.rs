//! SIGKILL while models are added and removed, and while values are: what was acknowledged is whole, nothing is
//! half there.
//!
//! `STEPWELL_KILLS` sets how often (10 unless given), `STEPWELL_SEED` the random numbers. A kill says
//! nothing of syncs; the simulated volume of tier-nvme does.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod changes;
mod child;
mod expectation;
mod models;
mod parent;
mod stage;
mod values;

use std::env;
use std::path::Path;

/// The process that is killed. The other test starts it; alone it has nothing to do.
#[test]
#[ignore = "the test of kills starts it in a process of its own"]
fn child_process() {
    if let Some(folder) = env::var_os(parent::FOLDER_VARIABLE) {
        child::run(Path::new(&folder));
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn acknowledged_models_survive_kills() {
    parent::run(number("STEPWELL_KILLS", 10), number("STEPWELL_SEED", 1));
}

#[test]
fn acknowledged_values_survive_kills_of_store_put() {
    values::run(number("STEPWELL_KILLS", 10), number("STEPWELL_SEED", 1));
}
