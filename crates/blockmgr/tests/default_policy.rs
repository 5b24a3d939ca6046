//! The default policy beside the others, on services of every kind.
#![cfg(feature = "trace")]

use blockmgr::policy::PolicyKind;
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
