//! The most that a cache without limits hits.

use super::{HitCount, Workload};

/// Hits of a cache that never evicts.
pub fn hit_ceiling(workload: &Workload) -> HitCount {
    let mut seen = vec![false; workload.distinct_blocks() as usize];
    let mut count = HitCount::default();
    for request in workload.requests() {
        let found = request
            .blocks
            .iter()
            .take_while(|&&block| seen[block as usize])
            .count();
        count.add(request.blocks.len(), found);
        for &block in request.blocks {
            seen[block as usize] = true;
        }
    }
    count
}
