//! What a subscriber is told of movement.
#![cfg(all(feature = "tracing", feature = "trace", not(shuttle)))]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use blockmgr::layout::{Layout, LayoutConfig};
use blockmgr::movement::TieredCache;
use blockmgr::replay::Replay;
use blockmgr::trace::TraceRequest;
use blockmgr::{BlockPool, Salt};
use core_alloc::{StorageAllocator, SystemAllocator};
use core_view::contract::HostTier;
use core_view::contract::mock::{MockBlockStore, MockMedia, Schedule};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Fields of a span, as text.
type Fields = BTreeMap<&'static str, String>;

#[derive(Default)]
struct Seen(Mutex<BTreeMap<u64, (&'static str, Fields)>>);

/// Keeps every span with the fields that it had in the end.
struct Collector(Arc<Seen>, AtomicU64);

struct Visitor<'a>(&'a mut Fields);

impl Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Subscriber for Collector {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = self.1.fetch_add(1, Ordering::Relaxed);
        let mut fields = Fields::new();
        span.record(&mut Visitor(&mut fields));
        let mut seen = self.0.0.lock().unwrap();
        seen.insert(id, (span.metadata().name(), fields));
        Id::from_u64(id)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut seen = self.0.0.lock().unwrap();
        let (_, fields) = seen.get_mut(&id.into_u64()).unwrap();
        values.record(&mut Visitor(fields));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn layout() -> Layout {
    let layout = LayoutConfig::builder()
        .num_blocks(1)
        .num_layers(1)
        .outer_dim(1)
        .page_size(1);
    layout.inner_dim(64).dtype_bytes(1).build().unwrap()
}

fn cache(media: &MockMedia) -> TieredCache {
    let storage = SystemAllocator.allocate(4 * 64).unwrap();
    let store = MockBlockStore::open(media.clone(), Schedule::immediate());
    let pool = BlockPool::builder().capacity_blocks(4).build().unwrap();
    TieredCache::builder(&layout(), Salt::new("m"))
        .device(Arc::new(HostTier::new(storage, 64).unwrap()), pool)
        .disk(Arc::new(store), BlockPool::builder().capacity_blocks(6))
        .build()
        .unwrap()
}

#[test]
fn offload_onboard_eviction_and_restart_have_spans() {
    let seen = Arc::new(Seen::default());
    let collector = Collector(Arc::clone(&seen), AtomicU64::new(1));
    tracing::subscriber::with_default(collector, || {
        let media = MockMedia::default();
        let request = |first: u64| TraceRequest {
            hash_ids: (first..first + 4).collect(),
            ..TraceRequest::default()
        };
        for life in 0..2 {
            let cache = cache(&media);
            let mut replay = Replay::new(&cache, Salt::new("m"));
            for first in [10, 20] {
                replay.request(&request(life * 100 + first)).unwrap();
                cache.drain();
            }
            replay.request(&request(life * 100 + 20)).unwrap();
            cache.pool().reset();
            replay.request(&request(life * 100 + 20)).unwrap();
        }
    });
    let seen = seen.0.lock().unwrap();
    let of = |name| {
        let spans = seen.values().filter(move |(found, _)| *found == name);
        spans.map(|(_, fields)| fields.clone()).collect::<Vec<_>>()
    };
    let fields = |pairs: &[(&'static str, &str)]| -> Fields {
        let pairs = pairs.iter().map(|&(name, value)| (name, value.to_owned()));
        pairs.collect()
    };
    let tier = ("tier", "\"G3\"");
    let four = [tier, ("blocks", "4"), ("moved", "4")];
    assert_eq!(of("kv_offload"), vec![fields(&four); 4]);
    assert_eq!(of("kv_onboard"), vec![fields(&four); 2]);
    assert_eq!(
        of("kv_restart"),
        [
            fields(&[tier, ("moved", "0")]),
            fields(&[tier, ("moved", "6")])
        ]
    );
    // Of 4 and 4 blocks 6 fit; then 4 come in the place of others, twice.
    let evicted: Vec<String> = of("kv_evict")
        .iter()
        .map(|span| span["moved"].clone())
        .collect();
    assert_eq!(evicted, ["2", "4", "4"]);
}
