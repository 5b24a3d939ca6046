//! The most that any policy could have hit.

use std::collections::BinaryHeap;

use super::{HitCount, Workload};

const NEVER: u32 = u32::MAX;

/// Hits of the offline optimum: Belady's rule with bypass.
///
/// After each request it keeps, of what was kept and what the request brought, the blocks that are used soonest again, and
/// of blocks that are used again by the same request the first ones. A block is used whenever one behind it in a chain is, so it never keeps a
/// block without its parent, and each block kept until its next use is a hit. With equal sizes no choice
/// does better (L. A. Belady, 1966; with bypass, a block whose next use is the farthest is not taken in at
/// all). In contrast to a real pool the blocks of a request need no room while it runs.
pub fn optimum(workload: &Workload, capacity_blocks: u32) -> HitCount {
    let next_uses = next_uses(workload);
    let mut kept = vec![NEVER; workload.distinct_blocks() as usize];
    let mut len = 0_u32;
    // By next use, then by place in the chain. An entry is stale if its block is kept for another use or not at all.
    let mut farthest: BinaryHeap<(u32, u32, u32)> = BinaryHeap::new();
    let mut count = HitCount::default();
    let mut start = 0;
    for request in workload.requests() {
        let found = request
            .blocks
            .iter()
            .take_while(|&&block| kept[block as usize] != NEVER);
        count.add(request.blocks.len(), found.count());
        let next = &next_uses[start..start + request.blocks.len()];
        start += request.blocks.len();
        for (position, (&block, &next_use)) in request.blocks.iter().zip(next).enumerate() {
            len -= u32::from(kept[block as usize] != NEVER);
            len += u32::from(next_use != NEVER);
            kept[block as usize] = next_use;
            if next_use != NEVER {
                farthest.push((next_use, position as u32, block));
            }
        }
        while len > capacity_blocks {
            let Some((next_use, _, block)) = farthest.pop() else {
                break;
            };
            if kept[block as usize] == next_use {
                kept[block as usize] = NEVER;
                len -= 1;
            }
        }
    }
    count
}

/// For each use of a block, the number of the request that uses it next.
fn next_uses(workload: &Workload) -> Vec<u32> {
    let mut next_uses = vec![NEVER; workload.total_blocks()];
    let mut last_use = vec![usize::MAX; workload.distinct_blocks() as usize];
    let mut use_index = 0;
    for (index, request) in workload.requests().enumerate() {
        for &block in request.blocks {
            let last = std::mem::replace(&mut last_use[block as usize], use_index);
            if let Some(next_use) = next_uses.get_mut(last) {
                *next_use = index as u32;
            }
            use_index += 1;
        }
    }
    next_uses
}
