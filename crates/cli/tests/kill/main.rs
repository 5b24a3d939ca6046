//! SIGKILL while models are added, removed and collected, while values are put, while a KV cache is replayed, and
//! while an HDF5 file is changed: what was acknowledged is whole, nothing is half there.
//!
//! `STEPWELL_KILLS` sets how often (10 unless given), `STEPWELL_SEED` the random numbers. A kill says
//! nothing of syncs; the simulated volume of tier-nvme does.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod blocks;
mod changes;
mod child;
mod exchange;
mod expectation;
mod models;
mod parent;
mod stage;
mod values;
mod victim;

use std::env;
use std::path::Path;

/// What the process does that is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Mostly adds models.
    Adding,
    /// Removes as many as it adds, and collects what they leave after each.
    Collecting,
}

/// The process that is killed. The other tests start it; alone it has nothing to do.
#[test]
#[ignore = "the tests of kills start it in a process of its own"]
fn child_process() {
    if let Some(folder) = env::var_os(victim::FOLDER_VARIABLE) {
        if env::var_os(exchange::EXCHANGING_VARIABLE).is_some() {
            return exchange::run_child(Path::new(&folder));
        }
        let collecting = env::var_os(parent::COLLECTING_VARIABLE).is_some();
        let work = if collecting {
            Work::Collecting
        } else {
            Work::Adding
        };
        child::run(Path::new(&folder), work);
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn acknowledged_models_survive_kills() {
    let kills = number("STEPWELL_KILLS", 10);
    parent::run(Work::Adding, kills, number("STEPWELL_SEED", 1));
}

#[test]
fn acknowledged_models_survive_kills_of_collections() {
    let kills = number("STEPWELL_KILLS", 10);
    parent::run(Work::Collecting, kills, number("STEPWELL_SEED", 2));
}

#[test]
fn acknowledged_values_survive_kills_of_store_put() {
    values::run(number("STEPWELL_KILLS", 10), number("STEPWELL_SEED", 1));
}

#[test]
fn acknowledged_blocks_survive_kills_of_kv_replay() {
    blocks::run(number("STEPWELL_KILLS", 10), number("STEPWELL_SEED", 1));
}

#[test]
fn acknowledged_weights_survive_kills_while_an_hdf5_file_is_changed() {
    exchange::run(number("STEPWELL_KILLS", 10), number("STEPWELL_SEED", 3));
}
