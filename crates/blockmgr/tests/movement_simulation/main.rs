//! Tiers that delay, fail, tear, flip bits, fill up, hang past the deadline and lose their way, by a seed: never a wrong
//! byte, never a leaked block, every offer accounted for, and after a restart what was acknowledged and nothing that was
//! never on its way.
//!
//! `STEPWELL_SEEDS` sets how many seeds (300 unless given), `STEPWELL_SEED` replays one.
#![cfg(all(feature = "trace", not(shuttle)))]
#![expect(clippy::unwrap_used, reason = "tests")]

mod notes;
mod tiers;
mod turns;
mod world;

use std::collections::BTreeMap;
use std::env;

use world::World;

/// What all seeds together met, by name.
type Counts = BTreeMap<String, u64>;

/// What some seed has to have met.
const KINDS: [&str; 26] = [
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
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let mut counts = Counts::new();
    if let Some(seed) = number("STEPWELL_SEED") {
        World::run(seed, &mut counts);
        println!("seed {seed}: {counts:#?}");
        return;
    }
    let seeds = number("STEPWELL_SEEDS").unwrap_or(300);
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            World::run(seed, &mut counts);
        }));
        assert!(
            outcome.is_ok(),
            "seed {seed} failed; replay it with STEPWELL_SEED={seed}"
        );
    }
    println!("{seeds} seeds: {counts:#?}");
    for kind in KINDS {
        assert!(
            counts.get(kind).is_some_and(|&count| count > 0),
            "no {kind} in {seeds} seeds: {counts:#?}"
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
    for seed in 0..20 {
        let (events, counts) = run(seed);
        assert!(!events.is_empty());
        assert_eq!((events, counts), run(seed), "seed {seed}");
    }
}
