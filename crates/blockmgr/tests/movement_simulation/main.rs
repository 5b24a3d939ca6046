//! Tiers that delay, fail, tear, flip bits, fill up, hang past the deadline and lose their way, by a seed: never a wrong
//! byte, never a leaked block, every offer accounted for, and after a restart what was acknowledged and nothing that was
//! never on its way.
//!
//! `STEPWELL_SEEDS` sets how many seeds run (300 if unset), `STEPWELL_FIRST_SEED` where they begin, `STEPWELL_SEED`
//! runs one alone.
#![cfg(all(feature = "trace", not(shuttle)))]
#![expect(clippy::unwrap_used, reason = "tests")]

mod notes;
mod tiers;
mod turns;
mod world;

use std::collections::BTreeMap;

use tier_nvme::sim::Seeds;
use world::World;

const COMMAND: &str = "cargo test -p blockmgr --test movement_simulation";

/// What all seeds together met, by name.
type Counts = BTreeMap<String, u64>;

/// What some seed has to have met.
const KINDS: [&str; 27] = [
    "injected: delayed",
    "injected: failed",
    "injected: torn",
    "injected: flipped when stored",
    "injected: hung past the deadline",
    "injected: abandoned",
    "injected: full",
    "injected: cancelled",
    "injected: flipped at rest",
    "injected: rotten unnoticed",
    "injected: swapped",
    "verified",
    "withheld",
    "late operations",
    "dropped: failed",
    "dropped: timed_out",
    "dropped: queue_full",
    "dropped: target_full",
    "dropped: evicted",
    "dropped: present",
    "dropped: stalled",
    "missed: mismatch",
    "missed: failed",
    "missed: timed_out",
    "missed: cancelled",
    "mismatched: checksum",
    "mismatched: identity",
];

#[test]
fn tiers_that_fail_give_no_wrong_byte_and_leak_nothing() {
    let seeds = Seeds::from_environment(300);
    let mut counts = Counts::new();
    seeds.for_each(COMMAND, |seed| {
        World::run(seed, &mut counts);
    });
    println!("{} seeds: {counts:#?}", seeds.count());
    if seeds.is_replay() {
        return;
    }
    for kind in KINDS {
        assert!(
            counts.get(kind).is_some_and(|&count| count > 0),
            "no {kind} in {} seeds: {counts:#?}",
            seeds.count()
        );
    }
}

#[test]
fn a_seed_reproduces_every_event_and_count() {
    let run = |seed| {
        let mut counts = Counts::new();
        let events = World::run(seed, &mut counts);
        (events, counts)
    };
    Seeds::from(0..20).for_each(COMMAND, |seed| {
        let (events, counts) = run(seed);
        assert!(!events.is_empty());
        assert_eq!((events, counts), run(seed));
    });
}
