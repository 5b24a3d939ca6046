//! Counts of movement, for the recorder of the `metrics` facade.

use metrics::{counter, gauge};

use super::{DropReason, TieredCache};

impl TieredCache {
    /// Hands the counts of [`TieredCache::traffic`], the lengths of the queues and the status of each tier's pool to the
    /// recorder that the program installed; an exporter calls it before it renders. What moves takes is recorded as it
    /// happens, in the histograms `stepwell_kv_offload_seconds`, `stepwell_kv_onboard_seconds`,
    /// `stepwell_kv_evict_seconds` and `stepwell_kv_restart_seconds` by `tier`.
    pub fn record_metrics(&self) {
        let traffic = self.traffic();
        for (&tier, moved) in &traffic.tiers {
            let name = tier.name();
            for (direction, blocks, bytes) in [
                ("in", moved.blocks_in, moved.bytes_in),
                ("out", moved.blocks_out, moved.bytes_out),
            ] {
                counter!("stepwell_kv_moved_blocks_total", "tier" => name, "direction" => direction)
                    .absolute(blocks);
                counter!("stepwell_kv_moved_bytes_total", "tier" => name, "direction" => direction)
                    .absolute(bytes);
            }
            counter!("stepwell_kv_tier_hits_total", "tier" => name).absolute(moved.hits);
            if let Some(pool) = self.pool_of(tier) {
                pool.record_metrics(name);
            }
        }
        for &tier in self.queues.keys() {
            let queued = self.queued_blocks_of(tier);
            gauge!("stepwell_kv_queued_blocks", "tier" => tier.name()).set(queued as f64);
        }
        gauge!("stepwell_kv_late_operations").set(self.late_operations() as f64);
        gauge!("stepwell_kv_staged_blocks").set(self.staged_blocks() as f64);
        counter!("stepwell_kv_offered_blocks_total").absolute(traffic.offered_blocks);
        let reasons = |counts: &std::collections::BTreeMap<DropReason, u64>, name: &'static str| {
            for (reason, &blocks) in counts {
                counter!(name, "reason" => reason.name()).absolute(blocks);
            }
        };
        reasons(&traffic.dropped, "stepwell_kv_dropped_blocks_total");
        reasons(&traffic.missed, "stepwell_kv_missed_blocks_total");
        for (what, &blocks) in &traffic.mismatches {
            counter!("stepwell_kv_mismatched_blocks_total", "what" => *what).absolute(blocks);
        }
    }
}
