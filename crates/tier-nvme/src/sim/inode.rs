//! A file of a simulated disk: what is durable, and what only seems to be there.

use super::random::Random;
use super::{FaultCounts, SECTOR_BYTES, Survival};

/// A write that was not synced.
#[derive(Debug, Clone)]
pub(super) struct PendingWrite {
    pub(super) offset: usize,
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    /// What reads see.
    pub(super) current: Vec<u8>,
    /// What is certain to survive.
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<PendingWrite>,
}

impl Inode {
    /// Writes what is not durable yet.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(target) = self.current.get_mut(offset..offset + bytes.len()) {
            target.copy_from_slice(bytes);
            self.pending.push(PendingWrite {
                offset,
                bytes: bytes.to_vec(),
            });
        }
    }

    /// Writes any of the sectors.
    pub(super) fn write_some(&mut self, offset: usize, bytes: &[u8], random: &mut Random) {
        for (i, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
            if random.chance(500) {
                self.write(offset + i * SECTOR_BYTES, sector);
            }
        }
    }

    /// Cuts the power: of what was not synced, `survival` and the seed decide what is kept.
    pub(super) fn crash(
        &mut self,
        survival: Survival,
        random: &mut Random,
        counts: &mut FaultCounts,
    ) {
        let mut pending = std::mem::take(&mut self.pending);
        if random.chance(500) {
            random.shuffle(&mut pending);
        }
        // The length is a part of what an un-synced creation may lose.
        let grows = match survival {
            Survival::Nothing => false,
            Survival::Everything => true,
            Survival::ByWrite | Survival::BySector => random.chance(700),
        };
        if grows && self.durable.len() < self.current.len() {
            self.durable.resize(self.current.len(), 0);
        }
        for write in pending {
            let whole = match survival {
                Survival::Nothing => Some(false),
                Survival::Everything => Some(true),
                Survival::ByWrite => Some(random.chance(500)),
                Survival::BySector => None,
            };
            let (mut kept_count, mut lost_count) = (0, 0);
            for (i, sector) in write.bytes.chunks(SECTOR_BYTES).enumerate() {
                let at = write.offset + i * SECTOR_BYTES;
                let kept = whole.unwrap_or_else(|| random.chance(500));
                match self.durable.get_mut(at..at + sector.len()) {
                    Some(target) if kept => {
                        target.copy_from_slice(sector);
                        kept_count += 1;
                    }
                    _ => lost_count += 1,
                }
            }
            counts.sectors_kept += kept_count;
            counts.sectors_lost += lost_count;
            counts.writes_torn += u64::from(kept_count > 0 && lost_count > 0);
        }
        self.current = self.durable.clone();
    }
}
