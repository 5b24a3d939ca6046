//! What the default policy earns in a pool of several shards, and with several threads, beside one that sees everything.
#![cfg(all(feature = "trace", not(shuttle)))]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use blockmgr::policy::PolicyKind;
use blockmgr::trace::TraceRequest;
use blockmgr::trace::generate::{Generator, Scenario};
use blockmgr::{BlockPool, RequestOptions, SequenceHash};

/// What shards may cost, and threads that get in each other's way.
const LOSS_MAX: [f64; 2] = [0.015, 0.03];

struct Service {
    requests: Vec<(u64, Vec<SequenceHash>)>,
}

impl Service {
    fn new(scenario: Scenario) -> Self {
        let hash = |(position, name): (usize, u64)| {
            let mixed =
                u128::from(name + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            SequenceHash::new(mixed ^ mixed >> 64, position as u32)
        };
        let request = |request: TraceRequest| {
            let hashes = request.hash_ids.into_iter().enumerate().map(hash);
            (request.timestamp_ms, hashes.collect())
        };
        let requests = Generator::new(scenario, 23).take(6_000).map(request);
        Self {
            requests: requests.collect(),
        }
    }

    /// The hit rate when threads take request after request.
    fn hit_rate(&self, pool: &BlockPool, threads: usize) -> f64 {
        let next = AtomicUsize::new(0);
        let hits = AtomicU64::new(0);
        let serve = || {
            while let Some((time_ms, hashes)) =
                self.requests.get(next.fetch_add(1, Ordering::Relaxed))
            {
                let options = RequestOptions {
                    time_ms: Some(*time_ms),
                    ..RequestOptions::default()
                };
                let found = pool.match_sequence_hashes_with(hashes, &options);
                let missing = &hashes[found.len()..];
                let fresh = pool.allocate_blocks(missing.len()).unwrap();
                let complete = fresh.complete(missing).unwrap();
                let registered = pool.register_blocks(complete).unwrap();
                hits.fetch_add(found.len() as u64, Ordering::Relaxed);
                drop(registered);
                drop(found);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(serve);
            }
        });
        let blocks: usize = self.requests.iter().map(|(_, hashes)| hashes.len()).sum();
        hits.into_inner() as f64 / blocks as f64
    }
}

fn pool(policy: PolicyKind, capacity: usize, shards: usize) -> BlockPool {
    let builder = BlockPool::builder().capacity_blocks(capacity);
    builder.policy(policy).shards(shards).build().unwrap()
}

#[test]
fn shards_and_threads_cost_few_hits() {
    for (scenario, capacity) in [(Scenario::Documents, 1_500), (Scenario::Batch, 2_000)] {
        let service = Service::new(scenario);
        let adaptive = |shards, threads| {
            service.hit_rate(&pool(PolicyKind::Adaptive, capacity, shards), threads)
        };
        let whole = adaptive(1, 1);
        for threads in [1, 2] {
            let rate = adaptive(4, threads);
            println!("{scenario:?}, {threads} threads: {rate:.4}, one shard: {whole:.4}");
            assert!(
                rate >= whole - LOSS_MAX[threads - 1],
                "{scenario:?} {threads}"
            );
        }
        let oldest = service.hit_rate(&pool(PolicyKind::Lru, capacity, 1), 1);
        assert!(whole > oldest, "{scenario:?}: {whole}, {oldest}");
    }
}

#[test]
fn a_pool_has_several_shards_where_it_is_large_enough_and_threads_run_at_once() {
    let processors = std::thread::available_parallelism().unwrap().get();
    let useful = processors.next_power_of_two();
    for (capacity, fitting) in [(1, 1), (511, 1), (512, 2), (1_024, 4), (1_000_000, 4)] {
        let pool = BlockPool::builder().capacity_blocks(capacity);
        let shards = pool.build().unwrap().status().shards;
        assert_eq!(shards, fitting.min(useful), "{capacity} blocks");
    }
}
