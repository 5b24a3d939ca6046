//! What a recorder is told of a pool.
#![cfg(all(feature = "metrics", not(shuttle)))]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use blockmgr::{BlockPool, SequenceHash};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    Unit,
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

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
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
