//! Bringing blocks up: a whole prefix or nothing.

use std::time::Duration;

use core_view::contract::SlotId;

use super::memory::{Stop, Targets};
use super::patience::Patience;
use super::plan::Move;
use super::watch::Watch;
use super::{Cancellation, DropReason, MoveEvent, MovePlan, OffloadOptions, TierId, TieredCache};
use crate::{BlockPool, ImmutableBlocks, RequestOptions, SequenceHash};

/// The leading blocks of a sequence that the engine can use now.
#[derive(Debug)]
pub struct Matched {
    /// The blocks, in the engine's memory.
    pub blocks: ImmutableBlocks,
    /// How many of them, the last ones, were brought from lower tiers by this call.
    pub onboarded_blocks: usize,
}

impl TieredCache {
    /// Takes hold of the longest leading part of a sequence that the tiers have, and brings what is below to the
    /// engine's memory. What can't be brought in time, or isn't what was asked for, is a miss.
    pub fn match_blocks(&self, hashes: &[SequenceHash], options: &RequestOptions) -> Matched {
        self.match_blocks_within(hashes, options, self.timeout, &Cancellation::default())
    }

    /// The same, with an end to all waiting.
    pub fn match_blocks_within(
        &self,
        hashes: &[SequenceHash],
        options: &RequestOptions,
        timeout: Duration,
        cancellation: &Cancellation,
    ) -> Matched {
        if self.counts_uses {
            self.sketch().note(hashes);
        }
        let mut blocks = self.g1.pool.match_sequence_hashes_with(hashes, options);
        self.traffic_mut().hit(TierId::G1, blocks.len());
        let patience = Patience::new(&self.clock, timeout, cancellation.clone());
        let mut onboarded_blocks = 0;
        let mut limit = hashes.len() - blocks.len();
        while limit > 0 {
            let plan = self.plan_onboard(&hashes[blocks.len()..][..limit]);
            if plan.is_empty() {
                break;
            }
            let lowest = plan.moves.iter().map(|block| block.source).max();
            let watch = Watch::onboard(lowest.unwrap_or(TierId::G1), plan.len());
            match self.bring(&plan, &patience) {
                Ok(brought) => {
                    watch.moved(brought.len());
                    onboarded_blocks = brought.len();
                    // They are of the same pool.
                    drop(blocks.append(brought));
                    break;
                }
                // The blocks before the first that failed are whole as well.
                Err(index) => limit = index.min(plan.len() - 1),
            }
        }
        Matched {
            blocks,
            onboarded_blocks,
        }
    }

    /// What [`TieredCache::match_blocks`] would bring, after what is in the engine's memory.
    pub fn plan_onboard(&self, hashes: &[SequenceHash]) -> MovePlan {
        let count = |pool: Option<&BlockPool>, hashes: &[SequenceHash]| {
            pool.map_or(0, |pool| pool.count_sequence_hashes(hashes))
        };
        let host = |hashes: &[SequenceHash]| count(self.pool_of(TierId::G2), hashes);
        let disk = |hashes: &[SequenceHash]| count(self.pool_of(TierId::G3), hashes);
        let room = self.g1.pool.available_blocks();
        MovePlan::onboard(hashes, room, &[(TierId::G2, &host), (TierId::G3, &disk)])
    }

    /// Carries a plan out: all blocks are registered, or none. Tells how many leading blocks may be tried again.
    fn bring(&self, plan: &MovePlan, patience: &Patience) -> Result<ImmutableBlocks, usize> {
        let miss = |reason, at: usize| {
            self.traffic_mut().miss(reason, plan.len() - at);
            match reason {
                DropReason::Mismatch | DropReason::Lost | DropReason::Failed => at,
                _ => 0,
            }
        };
        if self.is_stalled() {
            return Err(miss(DropReason::Stalled, 0));
        }
        if let Some(reason) = patience.ended() {
            return Err(miss(reason, 0));
        }
        let Ok(fresh) = self.g1.pool.allocate_blocks(plan.len()) else {
            return Err(miss(DropReason::TargetFull, 0));
        };
        let hashes: Vec<SequenceHash> =
            plan.moves.iter().map(|block| block.sequence_hash).collect();
        let slots: Vec<SlotId> = fresh.slots().collect();
        for (start, run) in plan.runs() {
            for (index, batch) in run.chunks(self.batch_blocks).enumerate() {
                let at = start + index * self.batch_blocks;
                if let Err(stop) = self.fetch(batch, &slots[at..at + batch.len()], patience) {
                    if let Some(mut late) = stop.late {
                        late.held.push(Box::new(fresh));
                        self.add_late(late);
                    }
                    return Err(miss(stop.reason, at + stop.index));
                }
            }
        }
        let failed = |()| miss(DropReason::Failed, 0);
        let complete = fresh.complete(&hashes).map_err(|_| failed(()))?;
        let brought = self
            .g1
            .pool
            .register_blocks(complete)
            .map_err(|_| failed(()))?;
        self.note_brought(plan, &brought);
        Ok(brought)
    }

    fn note_brought(&self, plan: &MovePlan, brought: &ImmutableBlocks) {
        let mut traffic = self.traffic_mut();
        for (_, run) in plan.runs() {
            let Some(first) = run.first() else { continue };
            traffic.carry(first.source, TierId::G1, run.len(), self.block_bytes);
            traffic.hit(first.source, run.len());
        }
        drop(traffic);
        self.announce(plan.moves.iter().map(|block| MoveEvent::Moved {
            source: block.source,
            target: block.target,
            sequence_hash: block.sequence_hash,
        }));
        if self.g2.is_some() && plan.moves.iter().any(|block| block.source == TierId::G3) {
            self.offer(TierId::G1, brought, OffloadOptions::default());
        }
    }

    /// Fills slots of the engine's memory with blocks of one lower tier.
    fn fetch(&self, run: &[Move], slots: &[SlotId], patience: &Patience) -> Result<(), Stop> {
        let Some(source) = run.first().map(|block| block.source) else {
            return Ok(());
        };
        let hashes: Vec<SequenceHash> = run.iter().map(|block| block.sequence_hash).collect();
        let Some(pool) = self.pool_of(source) else {
            return Err(Stop::at(0, DropReason::Lost));
        };
        let pins = pool.match_sequence_hashes(&hashes);
        // They are held until they are copied: whoever needs room below can't have theirs.
        if pins.len() < hashes.len() {
            // mutant: kv-threads-no-pin-check
            return Err(Stop::at(pins.len(), DropReason::Lost));
        }
        let outcome = match source {
            TierId::G3 => self.fetch_from_disk(&hashes, slots, patience),
            _ => match &self.g2 {
                Some(host) => {
                    let sources: Vec<SlotId> = pins.slots().collect();
                    self.copy(host, &sources, &self.g1, slots, patience)
                }
                None => Err(Stop::at(0, DropReason::Lost)),
            },
        };
        let Err(mut stop) = outcome else {
            return Ok(());
        };
        match &mut stop.late {
            Some(late) => late.held.push(Box::new(pins)),
            None => drop(pins),
        }
        if let (TierId::G3, Some(disk)) = (source, &self.g3) {
            for &hash in stop.lost.iter().filter_map(|&index| hashes.get(index)) {
                disk.forget(hash);
            }
        }
        Err(stop)
    }

    fn fetch_from_disk(
        &self,
        hashes: &[SequenceHash],
        slots: &[SlotId],
        patience: &Patience,
    ) -> Result<(), Stop> {
        let Some(disk) = &self.g3 else {
            return Err(Stop::at(0, DropReason::Lost));
        };
        let stop = |reason| Stop::at(0, reason);
        let targets = self.g1.targets(slots, &self.staging).map_err(stop)?;
        let staged = targets.staged;
        let outcome = disk.get(hashes, targets.buffers, staged, patience);
        if let Some((index, reason)) = outcome.failed {
            let mut traffic = self.traffic_mut();
            for &(_, reason, mismatch) in &outcome.wrong {
                match mismatch {
                    Some(mismatch) => traffic.mismatch(mismatch),
                    None if reason == DropReason::Mismatch => {
                        *traffic.mismatches.entry("store").or_default() += 1;
                    }
                    None => {}
                }
            }
            drop(traffic);
            if outcome.late.is_none() && staged > 0 {
                self.staging.give(outcome.buffers, staged);
            }
            return Err(Stop {
                index,
                reason,
                late: outcome.late,
                lost: outcome.wrong.iter().map(|(index, ..)| *index).collect(),
            });
        }
        let targets = Targets {
            buffers: outcome.buffers,
            staged,
        };
        self.g1.deliver(slots, targets, &self.staging, patience)
    }
}
