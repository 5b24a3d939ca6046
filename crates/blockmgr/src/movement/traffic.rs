//! Counts of what moved, what did not, and why.

use std::collections::BTreeMap;
use std::fmt;

use super::header::Mismatch;

/// A tier of the hierarchy; a smaller one is nearer to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TierId {
    /// The engine's own memory: a device's, or the host's where there is none.
    G1,
    /// Host memory, pinned where there is a device.
    G2,
    /// The disk.
    G3,
}

impl TierId {
    /// The name in the field.
    pub const fn name(self) -> &'static str {
        match self {
            Self::G1 => "G1",
            Self::G2 => "G2",
            Self::G3 => "G3",
        }
    }
}

impl fmt::Display for TierId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a block was not moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The queue was full of offers as urgent.
    QueueFull,
    /// It has not been asked for often enough.
    Frequency,
    /// Its priority is too low.
    Priority,
    /// It belongs to an answer, and only prompts are kept.
    NotPrompt,
    /// The target has it already.
    Present,
    /// It left its tier before its turn came.
    Evicted,
    /// The target can't give up any block now, or its device is full.
    TargetFull,
    /// So many transfers hang that the tier takes no more.
    Stalled,
    /// The deadline passed.
    TimedOut,
    /// The caller asked for an end.
    Cancelled,
    /// What was fetched is not what was asked for.
    Mismatch,
    /// The tier lost it.
    Lost,
    /// The tier reported an error.
    Failed,
}

impl DropReason {
    /// A word for scripts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Frequency => "frequency",
            Self::Priority => "priority",
            Self::NotPrompt => "not_prompt",
            Self::Present => "present",
            Self::Evicted => "evicted",
            Self::TargetFull => "target_full",
            Self::Stalled => "stalled",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Mismatch => "mismatch",
            Self::Lost => "lost",
            Self::Failed => "failed",
        }
    }
}

/// Blocks that went into and out of a tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TierTraffic {
    /// Blocks that came from another tier or from the engine.
    pub blocks_in: u64,
    /// Blocks that were copied to another tier.
    pub blocks_out: u64,
    /// Bytes of those that came.
    pub bytes_in: u64,
    /// Bytes of those that were copied out.
    pub bytes_out: u64,
    /// Blocks of requests that were found here first, and brought to the engine.
    pub hits: u64,
}

/// What moved since the cache was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// By tier, those that there are.
    pub tiers: BTreeMap<TierId, TierTraffic>,
    /// Blocks that were offered to a lower tier; each has come to it, is in `dropped`, or waits still.
    pub offered_blocks: u64,
    /// Offers that were not taken to a lower tier, by reason.
    pub dropped: BTreeMap<DropReason, u64>,
    /// Blocks that a lower tier had and that could not be brought, by reason.
    pub missed: BTreeMap<DropReason, u64>,
    /// Blocks that were fetched and were not what was asked for, by [`Mismatch::name`].
    pub mismatches: BTreeMap<&'static str, u64>,
}

impl Traffic {
    pub(super) fn carry(
        &mut self,
        source: TierId,
        target: TierId,
        blocks: usize,
        block_bytes: usize,
    ) {
        let (blocks, bytes) = (blocks as u64, blocks as u64 * block_bytes as u64);
        let from = self.tiers.entry(source).or_default();
        from.blocks_out += blocks;
        from.bytes_out += bytes;
        self.arrive(target, blocks, bytes);
    }

    pub(super) fn arrive(&mut self, target: TierId, blocks: u64, bytes: u64) {
        let to = self.tiers.entry(target).or_default();
        to.blocks_in += blocks;
        to.bytes_in += bytes;
    }

    pub(super) fn hit(&mut self, tier: TierId, blocks: usize) {
        self.tiers.entry(tier).or_default().hits += blocks as u64;
    }

    pub(super) fn drop_offers(&mut self, reason: DropReason, count: usize) {
        if count > 0 {
            *self.dropped.entry(reason).or_default() += count as u64;
        }
    }

    pub(super) fn miss(&mut self, reason: DropReason, count: usize) {
        if count > 0 {
            *self.missed.entry(reason).or_default() += count as u64;
        }
    }

    pub(super) fn mismatch(&mut self, mismatch: Mismatch) {
        *self.mismatches.entry(mismatch.name()).or_default() += 1;
    }
}
