//! Taking blocks down: batches of offers, in steps.

use std::collections::HashSet;
use std::sync::PoisonError;

use core_view::contract::SlotId;

use super::memory::{MemoryLevel, Stop, Targets, settle};
use super::patience::Patience;
use super::queue::Offer;
use super::{Cancellation, DropReason, MoveEvent, OffloadOptions, TierId, TieredCache};
use crate::{BlockPool, ImmutableBlock, ImmutableBlocks, SequenceHash};

/// An offer whose block is still there, and held.
struct Held {
    block: ImmutableBlock,
    options: OffloadOptions,
}

impl TieredCache {
    /// Offers blocks of `source` to the tier below it.
    pub(super) fn offer(&self, source: TierId, blocks: &ImmutableBlocks, options: OffloadOptions) {
        let Some(target) = self.below(source) else {
            return;
        };
        let Some(level) = self.queues.get(&target) else {
            return;
        };
        let sketch = (level.admission.frequency_min > 0).then(|| self.sketch());
        let mut offers = Vec::with_capacity(blocks.len());
        let mut refused = Vec::new();
        for index in 0..blocks.len() {
            let Some(block) = blocks.get(index) else {
                continue;
            };
            let frequency = sketch
                .as_ref()
                .map_or(0, |sketch| sketch.frequency(block.sequence_hash()));
            match level.admission.refuse(options, frequency) {
                Some(reason) => refused.push(reason),
                None => offers.push(Offer {
                    block: block.downgrade(),
                    options,
                }),
            }
        }
        drop(sketch);
        let mut queue = level.offers.lock().unwrap_or_else(PoisonError::into_inner);
        refused.extend(
            offers
                .into_iter()
                .filter_map(|offer| queue.push(offer).err()),
        );
        drop(queue);
        let mut traffic = self.traffic_mut();
        for reason in refused {
            traffic.drop_offers(reason, 1);
        }
    }

    /// Carries out one batch of offers for each lower tier, and tells how many offers were handled. While another
    /// thread is at it, nothing happens.
    ///
    /// There is no thread behind a cache: whoever has time calls this, or [`TieredCache::drain`].
    pub fn step(&self) -> usize {
        let Ok(_stepping) = self.stepping.try_lock() else {
            return 0;
        };
        self.collect_late();
        let mut handled = 0;
        for (&target, level) in &self.queues {
            let offers = level
                .offers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop(self.batch_blocks);
            handled += offers.len();
            if !offers.is_empty() {
                self.offload(target, offers);
            }
        }
        if handled == 0 {
            self.remove_doomed(&self.patience(&Cancellation::default()));
        }
        handled
    }

    /// Steps until no offer waits; tells how many were handled.
    pub fn drain(&self) -> usize {
        let mut total = 0;
        loop {
            let handled = self.step();
            if handled == 0 {
                return total;
            }
            total += handled;
        }
    }

    fn offload(&self, target: TierId, offers: Vec<Offer>) {
        let dropped = |reason, count| self.traffic_mut().drop_offers(reason, count);
        if self.is_stalled() {
            return dropped(DropReason::Stalled, offers.len());
        }
        let Some(source) = self.above(target) else {
            return;
        };
        let pool = match target {
            TierId::G3 => self.g3.as_ref().map(|tier| &tier.pool),
            _ => self.g2.as_ref().map(|level| &level.pool),
        };
        let Some(pool) = pool else { return };
        let mut held = self.hold(offers, pool);
        let room = pool.available_blocks();
        if held.len() > room {
            dropped(DropReason::TargetFull, held.len() - room);
            held.truncate(room);
        }
        if held.is_empty() {
            return;
        }
        let patience = self.patience(&Cancellation::default());
        let count = held.len();
        let stop = match target {
            TierId::G3 => self.offload_to_disk(source, held, &patience),
            _ => self.offload_to_host(source, held, &patience),
        };
        if let Err(stop) = stop {
            dropped(stop.reason, count);
            if let Some(late) = stop.late {
                self.add_late(late);
            }
        }
    }

    /// Takes hold of the offered blocks that are still there and that the target lacks.
    fn hold(&self, offers: Vec<Offer>, target: &BlockPool) -> Vec<Held> {
        let mut seen = HashSet::new();
        let mut traffic = self.traffic_mut();
        let mut held = Vec::with_capacity(offers.len());
        for offer in offers {
            let hash = offer.sequence_hash();
            if target.count_sequence_hashes(&[hash]) > 0 || !seen.insert(hash.as_u128()) {
                traffic.drop_offers(DropReason::Present, 1);
            } else if let Some(block) = offer.block.upgrade() {
                held.push(Held {
                    block,
                    options: offer.options,
                });
            } else {
                traffic.drop_offers(DropReason::Evicted, 1);
            }
        }
        held
    }

    fn offload_to_host(
        &self,
        from: &MemoryLevel,
        held: Vec<Held>,
        patience: &Patience,
    ) -> Result<(), Stop> {
        let (source, Some(host)) = (from.id, &self.g2) else {
            return Ok(());
        };
        let hashes = identities(&held);
        let full = |_| Stop::at(0, DropReason::TargetFull);
        let fresh = host.pool.allocate_blocks(held.len()).map_err(full)?;
        let slots: Vec<SlotId> = fresh.slots().collect();
        let sources: Vec<SlotId> = held.iter().map(|held| held.block.slot()).collect();
        self.announce(hashes.iter().map(|&sequence_hash| MoveEvent::Began {
            target: TierId::G2,
            sequence_hash,
        }));
        let copied = self.copy(from, &sources, host, &slots, patience);
        if let Err(mut stop) = copied {
            let options: Vec<ImmutableBlock> = held.into_iter().map(|held| held.block).collect();
            if let Some(late) = &mut stop.late {
                late.held.push(Box::new((fresh, options)));
            }
            return Err(stop);
        }
        let failed = |_| Stop::at(0, DropReason::Failed);
        let complete = fresh.complete(&hashes).map_err(failed)?;
        let registered = host
            .pool
            .register_blocks(complete)
            .map_err(|_| Stop::at(0, DropReason::Failed))?;
        self.traffic_mut()
            .carry(source, TierId::G2, hashes.len(), self.block_bytes);
        self.announce(hashes.iter().map(|&sequence_hash| MoveEvent::Moved {
            source,
            target: TierId::G2,
            sequence_hash,
        }));
        // Each keeps its own urgency on the way down.
        for (block, held) in registered.into_iter().zip(held) {
            self.offer(TierId::G2, &block.into(), held.options);
        }
        Ok(())
    }

    fn offload_to_disk(
        &self,
        from: &MemoryLevel,
        mut held: Vec<Held>,
        patience: &Patience,
    ) -> Result<(), Stop> {
        let (source, Some(disk)) = (from.id, &self.g3) else {
            return Ok(());
        };
        let buffers = self.staging.take(held.len());
        let staged = buffers.len();
        if staged < held.len() {
            self.traffic_mut()
                .drop_offers(DropReason::Stalled, held.len() - staged);
            held.truncate(staged);
        }
        let hashes = identities(&held);
        let sources: Vec<SlotId> = held.iter().map(|held| held.block.slot()).collect();
        let read = settle(
            from.read(&sources, buffers),
            staged,
            &self.staging,
            patience,
        );
        let buffers = read.map_err(|mut stop| {
            if let Some(late) = &mut stop.late {
                late.held.push(Box::new(held));
            }
            stop
        })?;
        let Ok(mut fresh) = disk.pool.allocate_blocks(hashes.len()) else {
            self.staging.give(buffers, staged);
            return Err(Stop::at(0, DropReason::TargetFull));
        };
        self.remove_doomed(patience);
        if self.is_stalled() {
            self.staging.give(buffers, staged);
            return Err(Stop::at(0, DropReason::Stalled));
        }
        self.announce(hashes.iter().map(|&sequence_hash| MoveEvent::Began {
            target: TierId::G3,
            sequence_hash,
        }));
        let outcome = disk.put(&hashes, buffers, patience);
        match outcome.late {
            Some(late) => self.add_late(late),
            None => self.staging.give(outcome.buffers, staged),
        }
        let mut stored = Vec::new();
        for (index, &hash) in hashes.iter().enumerate() {
            let rest = fresh.split_off(1);
            let place = std::mem::replace(&mut fresh, rest);
            let reason = outcome
                .refused
                .get(index)
                .copied()
                .unwrap_or(Some(DropReason::Failed));
            match reason {
                Some(reason) => self.traffic_mut().drop_offers(reason, 1),
                None => {
                    if let Ok(complete) = place.complete(&[hash]) {
                        drop(disk.pool.register_blocks(complete));
                        stored.push(hash);
                    }
                }
            }
        }
        self.traffic_mut()
            .carry(source, TierId::G3, stored.len(), self.block_bytes);
        self.announce(stored.iter().map(|&sequence_hash| MoveEvent::Moved {
            source,
            target: TierId::G3,
            sequence_hash,
        }));
        if outcome.refused.contains(&Some(DropReason::TargetFull)) {
            // The store has blocks that the pool doesn't know.
            let strays = disk
                .strays()
                .into_iter()
                .map(|key| SequenceHash::new(key.0, 0));
            self.remove_from_disk(&strays.collect::<Vec<_>>(), patience);
        }
        Ok(())
    }

    /// Removes what was evicted from the disk tier, or found damaged there.
    fn remove_doomed(&self, patience: &Patience) {
        if let Some(disk) = &self.g3 {
            let doomed = disk.take_doomed();
            self.remove_from_disk(&doomed, patience);
        }
    }

    fn remove_from_disk(&self, hashes: &[SequenceHash], patience: &Patience) {
        let Some(disk) = &self.g3 else { return };
        self.announce(hashes.iter().map(|&sequence_hash| MoveEvent::Removing {
            tier: TierId::G3,
            sequence_hash,
        }));
        if let Some(mut late) = disk.remove(hashes, patience) {
            // It may still take effect: until then nothing may be stored, lest it be removed.
            late.fences = true;
            self.add_late(late);
        }
    }

    /// Copies slots of one tier into those of another, through memory that both reach.
    pub(super) fn copy(
        &self,
        from: &MemoryLevel,
        sources: &[SlotId],
        to: &MemoryLevel,
        targets: &[SlotId],
        patience: &Patience,
    ) -> Result<(), Stop> {
        let stop = |reason| Stop::at(0, reason);
        let Targets { buffers, staged } = to.targets(targets, &self.staging).map_err(stop)?;
        let buffers = settle(from.read(sources, buffers), staged, &self.staging, patience)?;
        to.deliver(
            targets,
            Targets { buffers, staged },
            &self.staging,
            patience,
        )
    }
}

fn identities(held: &[Held]) -> Vec<SequenceHash> {
    held.iter().map(|held| held.block.sequence_hash()).collect()
}
