//! Simulations beside ones that are too slow or too simple to be wrong.
#![cfg(feature = "trace")]

use std::collections::HashMap;

use blockmgr::policy::PolicyKind;
use blockmgr::simulate::{PrefixCache, Workload, hit_ceiling, optimum, simulate};
use blockmgr::trace::TraceRequest;
use proptest::prelude::*;

/// Requests as paths through a tree whose nodes have `branches` children: equal ids stand for equal prefixes.
fn workload(
    branches: u64,
    depth: usize,
    requests: usize,
) -> impl Strategy<Value = (Workload, Vec<Vec<u32>>)> {
    let path = prop::collection::vec(0..branches, 1..=depth);
    prop::collection::vec(path, 0..=requests).prop_map(move |paths| {
        let requests = paths.iter().map(|path| {
            let node = |node: u64, step: &u64| node * (branches + 1) + step + 1;
            let ids = path.iter().scan(0, |id, step| {
                *id = node(*id, step);
                Some(*id)
            });
            request(ids.collect())
        });
        let workload: Workload = requests.collect();
        let blocks = workload
            .requests()
            .map(|request| request.blocks.to_vec())
            .collect();
        (workload, blocks)
    })
}

fn found(kept: u32, blocks: &[u32]) -> u64 {
    blocks
        .iter()
        .take_while(|block| kept >> **block & 1 == 1)
        .count() as u64
}

/// The most hits over every choice of what to keep after each request.
fn exhaustive(requests: &[Vec<u32>], capacity: u32) -> u64 {
    let mut best = HashMap::from([(0_u32, 0_u64)]);
    for blocks in requests {
        let brought = blocks.iter().fold(0, |set, block| set | 1_u32 << block);
        let mut next: HashMap<u32, u64> = HashMap::new();
        for (kept, hits) in best {
            let hits = hits + found(kept, blocks);
            let offered = kept | brought;
            let mut choice = offered;
            loop {
                if choice.count_ones() <= capacity {
                    let known = next.entry(choice).or_default();
                    *known = (*known).max(hits);
                }
                if choice == 0 {
                    break;
                }
                choice = (choice - 1) & offered;
            }
        }
        best = next;
    }
    best.into_values().max().unwrap_or(0)
}

/// Blocks in order of use, the oldest first.
fn least_recently_used(requests: &[Vec<u32>], capacity: usize) -> u64 {
    let mut order: Vec<u32> = Vec::new();
    let mut hits = 0;
    for blocks in requests {
        hits += blocks
            .iter()
            .take_while(|block| order.contains(block))
            .count() as u64;
        order.retain(|block| !blocks.contains(block));
        order.extend(blocks.iter().rev());
        order.drain(..order.len().saturating_sub(capacity));
    }
    hits
}

proptest! {
    #[test]
    fn no_choice_hits_more_than_the_optimum(
        (workload, requests) in workload(2, 3, 7),
        capacity in 0..5_u32,
    ) {
        prop_assert!(workload.distinct_blocks() <= 14);
        prop_assert_eq!(optimum(&workload, capacity).hits, exhaustive(&requests, capacity));
    }

    #[test]
    fn the_least_recently_used_leaves(
        (workload, requests) in workload(3, 4, 40),
        capacity in 4..30_u32,
    ) {
        let hits = simulate(&workload, PolicyKind::Lru, capacity).hits;
        prop_assert_eq!(hits, least_recently_used(&requests, capacity as usize));
    }

    #[test]
    fn no_policy_passes_the_optimum_or_the_pool(
        (workload, _) in workload(3, 5, 80),
        capacity in 0..40_u32,
    ) {
        check_bounds(&workload, capacity)?;
    }

    #[test]
    fn nor_where_an_id_comes_after_different_prefixes(
        requests in prop::collection::vec(prop::collection::vec(0..10_u64, 1..=4), 0..=30),
        capacity in 0..8_u32,
    ) {
        check_bounds(&requests.into_iter().map(request).collect(), capacity)?;
    }
}

#[test]
fn ids_that_come_after_different_prefixes_are_different_blocks() {
    let traces: [(u32, &[&[u64]]); 2] = [
        (1, &[&[7], &[0], &[0], &[0], &[3], &[6], &[6, 3]]),
        (
            4,
            &[&[9], &[4, 5], &[9, 6, 0], &[1], &[1, 6, 0], &[2, 4], &[9]],
        ),
    ];
    for (capacity, trace) in traces {
        let requests = trace.iter().map(|ids| request(ids.to_vec()));
        check_bounds(&requests.collect(), capacity).unwrap();
    }
}

fn request(hash_ids: Vec<u64>) -> TraceRequest {
    TraceRequest {
        hash_ids,
        ..TraceRequest::default()
    }
}

/// No policy hits more than the optimum, nor any more than a pool without limits.
fn check_bounds(workload: &Workload, capacity: u32) -> Result<(), TestCaseError> {
    let most = optimum(workload, capacity).hits;
    let ceiling = hit_ceiling(workload).hits;
    prop_assert!(most <= ceiling);
    for kind in PolicyKind::ALL {
        let mut cache = PrefixCache::new(kind.build(capacity), capacity);
        for request in workload.requests() {
            let found = cache.request(request);
            prop_assert!(found <= request.blocks.len());
            prop_assert!(cache.cached_blocks() <= capacity as usize);
        }
        prop_assert!(cache.count().hits <= most, "{}", kind);
        let roomy = simulate(workload, kind, workload.distinct_blocks());
        prop_assert_eq!(roomy.hits, ceiling, "{}", kind);
    }
    Ok(())
}
