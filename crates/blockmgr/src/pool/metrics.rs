//! Counts of a pool, for the recorder of the `metrics` facade.

use metrics::{counter, gauge};

use super::BlockPool;

impl BlockPool {
    /// Hands the counts of [`BlockPool::status`] to the recorder that the program installed, under the label `tier`:
    /// gauges `stepwell_kv_blocks` by state, and counters `stepwell_kv_requests_total` and
    /// `stepwell_kv_blocks_total` by what happened. An exporter calls it before it renders; calls of the pool itself
    /// pay nothing for it.
    pub fn record_metrics(&self, tier: &'static str) {
        let status = self.status();
        for (state, blocks) in [
            ("free", status.free_blocks),
            ("cached", status.cached_blocks),
            ("in_use", status.in_use_blocks),
        ] {
            gauge!("stepwell_kv_blocks", "tier" => tier, "state" => state).set(blocks as f64);
        }
        counter!("stepwell_kv_requests_total", "tier" => tier).absolute(status.requests);
        for (event, blocks) in [
            ("requested", status.requested_blocks),
            ("hit", status.hit_blocks),
            ("registered", status.registered_blocks),
            ("duplicate", status.duplicate_blocks),
            ("evicted", status.evicted_blocks),
            ("removed", status.removed_blocks),
        ] {
            counter!("stepwell_kv_blocks_total", "tier" => tier, "event" => event).absolute(blocks);
        }
    }
}
