//! Taking blocks down: batches of offers, in steps.

use std::collections::HashSet;
use std::sync::PoisonError;

use core_view::BufferMut;
use core_view::contract::SlotId;

use super::durable::{DurableTier, Exchange, Removal};
use super::memory::{MemoryLevel, Stop, Targets, settle};
use super::patience::Patience;
use super::queue::Offer;
use super::watch::Watch;
use super::{Cancellation, DropReason, MoveEvent, OffloadOptions, TierId, TieredCache};
use crate::{BlockPool, ImmutableBlock, ImmutableBlocks, MutableBlocks, SequenceHash};

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
        traffic.offered_blocks += blocks.len() as u64;
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
        let watch = Watch::offload(target, held.len());
        let moved = match target {
            TierId::G3 => self.offload_to_disk(source, held, &patience),
            _ => self.offload_to_host(source, held, &patience),
        };
        watch.moved(moved);
    }

    /// Ends a batch early: none of its `count` blocks were moved.
    fn give_up(&self, stop: Stop, count: usize) {
        self.traffic_mut().drop_offers(stop.reason, count);
        if let Some(late) = stop.late {
            self.add_late(late);
        }
    }

    /// Takes hold of the offered blocks that are still there and that the target lacks.
    fn hold(&self, offers: Vec<Offer>, target: &BlockPool) -> Vec<Held> {
        let mut seen = HashSet::new();
        // A store of these that was given up may yet take effect: until it has ended, nothing else is done to them.
        let undecided: Vec<SequenceHash> = self
            .late_mut()
            .iter()
            .flat_map(|late| late.stored.iter().copied())
            .collect();
        let mut traffic = self.traffic_mut();
        let mut held = Vec::with_capacity(offers.len());
        for offer in offers {
            let hash = offer.sequence_hash();
            if target.count_sequence_hashes(&[hash]) > 0 || !seen.insert(hash.as_u128()) {
                traffic.drop_offers(DropReason::Present, 1);
            } else if undecided.contains(&hash) {
                traffic.drop_offers(DropReason::Stalled, 1);
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

    /// Tells how many blocks were moved.
    fn offload_to_host(&self, from: &MemoryLevel, held: Vec<Held>, patience: &Patience) -> usize {
        let count = held.len();
        let Err(stop) = self.copy_to_host(from, held, patience) else {
            return count;
        };
        self.give_up(stop, count);
        0
    }

    fn copy_to_host(
        &self,
        from: &MemoryLevel,
        held: Vec<Held>,
        patience: &Patience,
    ) -> Result<(), Stop> {
        let failed = || Stop::at(0, DropReason::Failed);
        let (source, Some(host)) = (from.id, &self.g2) else {
            return Err(failed());
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
            let blocks: Vec<ImmutableBlock> = held.into_iter().map(|held| held.block).collect();
            if let Some(late) = &mut stop.late {
                late.held.push(Box::new((fresh, blocks)));
            }
            return Err(stop);
        }
        let complete = fresh.complete(&hashes).map_err(|_| failed())?;
        let registered = host.pool.register_blocks(complete);
        let registered = registered.map_err(|_| failed())?;
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

    /// Tells how many blocks were moved.
    fn offload_to_disk(
        &self,
        from: &MemoryLevel,
        mut held: Vec<Held>,
        patience: &Patience,
    ) -> usize {
        let buffers = self.staging.take(held.len());
        let staged = buffers.len();
        if staged < held.len() {
            self.traffic_mut()
                .drop_offers(DropReason::Stalled, held.len() - staged);
            held.truncate(staged);
        }
        let hashes = identities(&held);
        let sources: Vec<SlotId> = held.iter().map(|held| held.block.slot()).collect();
        let read = from.read(&sources, buffers);
        match settle(read, staged, &self.staging, patience) {
            Ok(buffers) => self.store_on_disk(from.id, &hashes, buffers, patience),
            Err(mut stop) => {
                if let Some(late) = &mut stop.late {
                    late.held.push(Box::new(held));
                }
                self.give_up(stop, staged);
                0
            }
        }
    }

    /// Stores blocks, in the place of those that were evicted for them; tells how many are there durably.
    fn store_on_disk(
        &self,
        source: TierId,
        hashes: &[SequenceHash],
        buffers: Vec<BufferMut>,
        patience: &Patience,
    ) -> usize {
        let count = hashes.len();
        let refuse = |buffers, reason| {
            self.staging.give(buffers, count);
            self.give_up(Stop::at(0, reason), count);
            0
        };
        let Some(disk) = &self.g3 else {
            return refuse(buffers, DropReason::Failed);
        };
        disk.withheld.attempt(count);
        let Ok(mut places) = disk.pool.allocate_blocks(count) else {
            return refuse(buffers, DropReason::TargetFull);
        };
        let leaving = disk.take_doomed(hashes);
        let watch = (!leaving.is_empty()).then(|| Watch::evict(TierId::G3, leaving.len()));
        self.announce_leaving(&leaving, hashes);
        let Exchange { put, removal } = disk.exchange(&leaving, hashes, buffers, patience);
        let removed = self.end_removal(&leaving, removal);
        if let Some(watch) = watch {
            watch.moved(removed);
        }
        let undecided = put.late.is_some();
        match put.late {
            Some(late) => self.add_late(late),
            None => self.staging.give(put.buffers, count),
        }
        let mut stored = Vec::new();
        let mut failed = Vec::new();
        for (index, &hash) in hashes.iter().enumerate() {
            let rest = places.split_off(1);
            let place = std::mem::replace(&mut places, rest);
            let mut refuse = |reason| {
                self.traffic_mut().drop_offers(reason, 1);
                failed.push(hash);
            };
            let reason = put.refused.get(index).copied();
            let reason = reason.unwrap_or(Some(DropReason::Failed));
            if reason.is_some() {
                // mutant: kv-no-durable-check
                refuse(reason.unwrap_or(DropReason::Failed));
                continue;
            }
            match self.register_on_disk(disk, place, hash) {
                true => stored.push(hash),
                false => refuse(DropReason::Failed),
            }
        }
        if !undecided {
            disk.doom(&failed);
        }
        self.traffic_mut()
            .carry(source, TierId::G3, stored.len(), self.block_bytes);
        self.announce(stored.iter().map(|&sequence_hash| MoveEvent::Moved {
            source,
            target: TierId::G3,
            sequence_hash,
        }));
        if let Some(reason) = put.full {
            self.make_room(disk, reason, patience);
        }
        stored.len()
    }

    /// Sees to it that the next blocks find room in a store that had none for these.
    fn make_room(&self, disk: &DurableTier, reason: String, patience: &Patience) {
        let (strays, is_complete) = disk.strays();
        let strays: Vec<_> = strays
            .into_iter()
            .map(|key| SequenceHash::new(key.0, 0))
            .collect();
        // Only if the pool's blocks alone fill the store is it smaller than the pool: what others left in it goes, and
        // what was given up may yet take room or give it.
        if strays.is_empty() && is_complete && self.late_operations() == 0 {
            disk.withheld.refuse(&disk.pool, self.batch_blocks, reason);
        }
        self.remove_from_disk(&strays, patience);
    }

    fn register_on_disk(
        &self,
        disk: &DurableTier,
        place: MutableBlocks,
        hash: SequenceHash,
    ) -> bool {
        let complete = place.complete(&[hash]);
        complete.is_ok_and(|complete| disk.pool.register_blocks(complete).is_ok())
    }

    /// Removes what was evicted from the disk tier, or found damaged there.
    fn remove_doomed(&self, patience: &Patience) {
        if let Some(disk) = &self.g3 {
            let doomed = disk.take_doomed(&[]);
            self.remove_from_disk(&doomed, patience);
        }
    }

    fn remove_from_disk(&self, hashes: &[SequenceHash], patience: &Patience) {
        let Some(disk) = &self.g3 else { return };
        if hashes.is_empty() {
            return;
        }
        let watch = Watch::evict(TierId::G3, hashes.len());
        self.announce_leaving(hashes, &[]);
        let removed = self.end_removal(hashes, disk.remove(hashes, patience));
        watch.moved(removed);
    }

    /// Tells what is about to leave the disk tier, and what is about to come.
    fn announce_leaving(&self, leaving: &[SequenceHash], coming: &[SequenceHash]) {
        let tier = TierId::G3;
        let leaving = leaving.iter().map(|&sequence_hash| MoveEvent::Removing {
            tier,
            sequence_hash,
        });
        let coming = coming.iter().map(|&sequence_hash| MoveEvent::Began {
            target: tier,
            sequence_hash,
        });
        self.announce(leaving.chain(coming));
    }

    /// Tells how many blocks are gone.
    fn end_removal(&self, hashes: &[SequenceHash], removal: Removal) -> usize {
        match removal {
            Removal::Done => {
                self.announce(hashes.iter().map(|&sequence_hash| MoveEvent::Removed {
                    tier: TierId::G3,
                    sequence_hash,
                }));
                hashes.len()
            }
            Removal::Failed => 0,
            Removal::Late(late) => {
                self.add_late(late);
                0
            }
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
