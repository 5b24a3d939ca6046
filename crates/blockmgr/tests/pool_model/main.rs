//! The pool beside a naive one, under every sequence of calls that chance makes.
#![cfg(not(shuttle))]
#![expect(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod model;
mod panics;
mod policies;
mod steps;
mod world;

use blockmgr::Duplicates;
use blockmgr::policy::PolicyKind;
use proptest::prelude::*;

use steps::{Step, step};
use world::World;

/// Cases for each property: `STEPWELL_SEEDS`, or so many.
fn cases() -> u32 {
    let seeds = std::env::var("STEPWELL_SEEDS").ok();
    seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(300)
}

fn run(
    policy: PolicyKind,
    capacity: usize,
    shards: usize,
    duplicates: Duplicates,
    steps: Vec<Step>,
) {
    let mut world = World::new(policy, capacity, shards, duplicates);
    for step in steps {
        world.apply(step);
        world.check();
    }
    world.finish();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn one_shard_does_what_the_model_does(
        capacity in 1usize..24,
        reject: bool,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        run(PolicyKind::Lru, capacity, 1, duplicates(reject), steps);
    }

    #[test]
    fn shards_lose_and_leak_nothing(
        capacity in 4usize..40,
        shards in prop::sample::select(vec![2usize, 4]),
        reject: bool,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        run(PolicyKind::Lru, capacity, shards, duplicates(reject), steps);
    }

    #[test]
    fn shards_that_learn_together_lose_and_leak_nothing(
        capacity in 4usize..40,
        shards in prop::sample::select(vec![1usize, 4]),
        reject: bool,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        run(PolicyKind::Adaptive, capacity, shards, duplicates(reject), steps);
    }
}

#[test]
fn a_duplicate_that_takes_over_leaves_in_its_turn() {
    let register = |batch| Step::Register {
        batch,
        chain: 2,
        from: 0,
    };
    let steps = vec![
        Step::Allocate { blocks: 1 },
        register(0),
        Step::Allocate { blocks: 4 },
        register(0),
        Step::DropUsed { batch: 0 },
        Step::Reset,
        Step::DropUsed { batch: 0 },
        Step::Allocate { blocks: 2 },
    ];
    run(PolicyKind::Lru, 5, 1, Duplicates::Allow, steps);
}

fn duplicates(reject: bool) -> Duplicates {
    if reject {
        Duplicates::Reject
    } else {
        Duplicates::Allow
    }
}
