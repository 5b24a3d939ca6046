//! The default policy beside the others, on services of every kind.
#![cfg(feature = "trace")]

use blockmgr::policy::{Access, Adaptive, EvictionPolicy, Heritage, PolicyKind, Request, Slot};
use blockmgr::simulate::{Workload, optimum, simulate};
use blockmgr::trace::generate::{Generator, Scenario};

/// What the figures of one policy differ by between two seeds.
const NOISE: f64 = 0.004;

#[test]
fn the_default_is_at_the_best_of_the_others_in_every_service() {
    for scenario in Scenario::ALL {
        let workload: Workload = Generator::new(scenario, 11).take(8_000).collect();
        for capacity in [1_000, 4_000, 16_000] {
            let rate = |kind| simulate(&workload, kind, capacity).rate();
            let ours = rate(PolicyKind::default());
            let best = [
                PolicyKind::Lru,
                PolicyKind::MultiLru,
                PolicyKind::S3Fifo,
                PolicyKind::Arc,
            ]
            .map(rate)
            .into_iter()
            .fold(0.0, f64::max);
            let most = optimum(&workload, capacity).rate();
            println!(
                "{} {capacity}: {ours:.4}, others {best:.4}, optimum {most:.4}",
                scenario.name()
            );
            assert!(
                ours >= best - NOISE,
                "{scenario:?} {capacity}: {ours} {best}"
            );
        }
    }
}

#[test]
fn a_block_that_nobody_asked_for_says_nothing_of_a_request() {
    let known = |decodes: bool| {
        let mut policy = Adaptive::new(8);
        let access = |name: u128, position, tick, heritage| Access {
            sequence_hash: name << 64,
            position,
            request: Request {
                tick,
                chain_blocks: position + 1,
                matched_blocks: position,
                heritage: Heritage(heritage),
                ..Request::default()
            },
        };
        // A long chain's end leaves and is remembered.
        policy.insert(Slot::new(0), &access(77, 20, 4, 9));
        let before = policy.heritage(Slot::new(0));
        policy.release(Slot::new(0));
        assert_eq!(policy.evict(), Some(Slot::new(0)));
        if decodes {
            // Another sequence grows by a block that was not asked for, whatever request is the newest.
            for (slot, tick) in [(1, 4), (2, 5)] {
                let mut decoded = access(tick.into(), 9, tick, 30);
                decoded.request.is_unasked = true;
                policy.insert(Slot::new(slot), &decoded);
            }
        }
        // A request brings the end of the chain back, with nothing lost before it.
        policy.insert(Slot::new(3), &access(77, 20, 5, 0));
        policy.insert(Slot::new(4), &access(78, 21, 5, 0));
        let after = [3, 4].map(|slot| policy.heritage(Slot::new(slot)));
        assert_eq!(after, [before, Heritage(before.0 + 1)]);
        after
    };
    assert_eq!(known(false), known(true));
}
