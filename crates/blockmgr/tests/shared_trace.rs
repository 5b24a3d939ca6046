//! The figures that a published trace of conversations gives; they pin what a hit is.
#![cfg(feature = "trace")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use blockmgr::policy::PolicyKind;
use blockmgr::simulate::{Workload, hit_ceiling, optimum, simulate};
use blockmgr::trace::TraceReader;

const CAPACITIES: [u32; 5] = [1_000, 5_000, 10_000, 20_000, 50_000];

/// The trace, where `STEPWELL_DATA` has it.
fn conversation() -> Option<Workload> {
    let path = std::env::var_os("STEPWELL_DATA")
        .map(|folder| PathBuf::from(folder).join("mooncake_conversation_trace.jsonl"))
        .filter(|path| path.exists());
    let Some(path) = path else {
        println!("skipped: no data");
        return None;
    };
    Some(
        TraceReader::open(path)
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap(),
    )
}

fn thousandths(rate: f64) -> u32 {
    (rate * 1000.0).round() as u32
}

#[test]
fn the_optimum_is_what_was_published_for_it() {
    let Some(workload) = conversation() else {
        return;
    };
    assert_eq!(workload.total_blocks(), 288_500);
    let rates = CAPACITIES.map(|capacity| thousandths(optimum(&workload, capacity).rate()));
    assert_eq!(rates, [191, 341, 366, 366, 366]);
    assert_eq!(thousandths(hit_ceiling(&workload).rate()), 366);
}

#[test]
fn the_least_recently_used_policy_is_where_it_was_measured() {
    let Some(workload) = conversation() else {
        return;
    };
    let rates = CAPACITIES
        .map(|capacity| thousandths(simulate(&workload, PolicyKind::Lru, capacity).rate()));
    assert_eq!(rates, [45, 112, 212, 288, 355]);
}

#[test]
fn the_default_is_nowhere_below_the_best_known() {
    let Some(workload) = conversation() else {
        return;
    };
    let rates = CAPACITIES
        .map(|capacity| thousandths(simulate(&workload, PolicyKind::default(), capacity).rate()));
    for (rate, best_known) in rates.iter().zip([56, 145, 225, 289, 355]) {
        assert!(*rate >= best_known, "{rates:?}");
    }
}
