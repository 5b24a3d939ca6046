//! SIGKILL while blocks are put, replaced and removed: what was acknowledged is there bit for bit, and nothing that
//! was never put.
//!
//! `STEPWELL_KILLS` sets how often (10 unless given), `STEPWELL_SEED` the random numbers. A kill says
//! nothing of syncs; the simulated volume does.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod blocks;
mod child;
mod expectation;
mod parent;
mod stage;

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

#[test]
fn acknowledged_blocks_survive_kills() {
    let number =
        |name: &str, default: u64| env::var(name).map_or(default, |text| text.parse().unwrap());
    parent::run(number("STEPWELL_KILLS", 10), number("STEPWELL_SEED", 1));
}
