//! What a recorder is told of a pool.
#![cfg(all(feature = "metrics", not(shuttle)))]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use blockmgr::{BlockPool, SequenceHash};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

type Values = Arc<Mutex<BTreeMap<String, f64>>>;

/// Keeps the last value of each name and labels.
#[derive(Default)]
struct Table(Values);

struct Place(Values, String);

impl Place {
    fn new(table: &Table, key: &Key) -> Arc<Self> {
        let labels = key
            .labels()
            .map(|label| format!(" {}={}", label.key(), label.value()));
        let name = key.name().to_owned() + &labels.collect::<String>();
        Arc::new(Self(Arc::clone(&table.0), name))
    }

    fn put(&self, value: f64) {
        self.0.lock().unwrap().insert(self.1.clone(), value);
    }
}

impl CounterFn for Place {
    fn increment(&self, _value: u64) {}

    fn absolute(&self, value: u64) {
        self.put(value as f64);
    }
}

impl GaugeFn for Place {
    fn increment(&self, _value: f64) {}

    fn decrement(&self, _value: f64) {}

    fn set(&self, value: f64) {
        self.put(value);
    }
}

/// Counts what was recorded.
impl HistogramFn for Place {
    fn record(&self, value: f64) {
        assert!(value >= 0.0);
        *self.0.lock().unwrap().entry(self.1.clone()).or_default() += 1.0;
    }
}

impl Recorder for Table {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Place::new(self, key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Place::new(self, key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Place::new(self, key))
    }
}

#[test]
fn a_recorder_is_told_the_status() {
    let pool = BlockPool::builder().capacity_blocks(8).build().unwrap();
    let hashes: Vec<_> = (0..3)
        .map(|place| SequenceHash::new(9 + u128::from(place), place))
        .collect();
    let fresh = pool.allocate_blocks(3).unwrap();
    drop(
        pool.register_blocks(fresh.complete(&hashes).unwrap())
            .unwrap(),
    );
    let held = pool.match_sequence_hashes(&hashes[..2]);
    let table = Table::default();
    metrics::with_local_recorder(&table, || pool.record_metrics("host"));
    drop(held);
    let values = table.0.lock().unwrap();
    for (name, expected) in [
        ("stepwell_kv_blocks tier=host state=free", 5.0),
        ("stepwell_kv_blocks tier=host state=cached", 1.0),
        ("stepwell_kv_blocks tier=host state=in_use", 2.0),
        ("stepwell_kv_requests_total tier=host", 1.0),
        ("stepwell_kv_blocks_total tier=host event=requested", 2.0),
        ("stepwell_kv_blocks_total tier=host event=hit", 2.0),
        ("stepwell_kv_blocks_total tier=host event=registered", 3.0),
        ("stepwell_kv_blocks_total tier=host event=evicted", 0.0),
    ] {
        assert_eq!(values.get(name), Some(&expected), "{name}");
    }
    assert_eq!(values.len(), 10);
}

#[cfg(feature = "trace")]
#[test]
fn a_recorder_is_told_of_movement() {
    use blockmgr::Salt;
    use blockmgr::layout::LayoutConfig;
    use blockmgr::movement::TieredCache;
    use blockmgr::replay::Replay;
    use blockmgr::trace::TraceRequest;
    use core_alloc::{StorageAllocator, SystemAllocator};
    use core_view::contract::mock::{MockBlockStore, Schedule};
    use core_view::contract::{BlockKey, HostTier};

    let layout = LayoutConfig::builder().num_blocks(1).num_layers(1);
    let layout = layout.outer_dim(1).page_size(1).inner_dim(64);
    let layout = layout.dtype_bytes(1).build().unwrap();
    let table = Table::default();
    metrics::with_local_recorder(&table, || {
        let storage = SystemAllocator.allocate(4 * 64).unwrap();
        let store = Arc::new(MockBlockStore::new(Schedule::immediate()));
        let pool = BlockPool::builder().capacity_blocks(4).build().unwrap();
        let cache = TieredCache::builder(&layout, Salt::new("m"))
            .device(Arc::new(HostTier::new(storage, 64).unwrap()), pool)
            .disk(
                Arc::clone(&store) as _,
                BlockPool::builder().capacity_blocks(6),
            )
            .queue_blocks(4)
            .build()
            .unwrap();
        let mut replay = Replay::new(&cache, Salt::new("m"));
        let mut play = |first: u64| {
            let request = TraceRequest {
                hash_ids: (first..first + 4).collect(),
                ..TraceRequest::default()
            };
            replay.request(&request).unwrap();
            replay.sequence_hashes(&request)
        };
        play(10);
        cache.drain();
        let second = play(20);
        cache.drain();
        cache.pool().reset();
        play(20);
        cache.pool().reset();
        store.media().flip_bit(BlockKey(second[2].as_u128()), 5);
        play(20);
        cache.record_metrics();
    });
    let values = table.0.lock().unwrap();
    for (name, expected) in [
        ("stepwell_kv_moved_blocks_total tier=G3 direction=in", 8.0),
        ("stepwell_kv_moved_bytes_total tier=G3 direction=in", 512.0),
        ("stepwell_kv_moved_blocks_total tier=G3 direction=out", 6.0),
        ("stepwell_kv_tier_hits_total tier=G3", 6.0),
        ("stepwell_kv_queued_blocks tier=G3", 2.0),
        ("stepwell_kv_offered_blocks_total", 10.0),
        ("stepwell_kv_missed_blocks_total reason=mismatch", 2.0),
        ("stepwell_kv_mismatched_blocks_total what=store", 1.0),
        ("stepwell_kv_late_operations", 0.0),
        ("stepwell_kv_staged_blocks", 0.0),
        ("stepwell_kv_blocks tier=G3 state=in_use", 0.0),
        ("stepwell_kv_offload_seconds tier=G3", 2.0),
        ("stepwell_kv_onboard_seconds tier=G3", 3.0),
        ("stepwell_kv_evict_seconds tier=G3", 1.0),
        ("stepwell_kv_restart_seconds tier=G3", 1.0),
    ] {
        assert_eq!(values.get(name), Some(&expected), "{name}: {values:#?}");
    }
}
