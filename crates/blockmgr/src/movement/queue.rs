//! Blocks that wait to be copied to a lower tier.

use std::collections::BTreeMap;

use super::DropReason;
use crate::{SequenceHash, WeakBlock};

/// Where the content of a block came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Origin {
    /// It was computed from a prompt, which others may share.
    #[default]
    Prompt,
    /// It was generated.
    Answer,
}

/// What is known of blocks when they are registered, beside who they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OffloadOptions {
    /// Larger is moved earlier, and dropped later.
    pub priority: u8,
    /// Where the content came from.
    pub origin: Origin,
}

/// A block offered to a lower tier. It is not kept for that: what is evicted before its turn is dropped.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) block: WeakBlock,
    pub(super) options: OffloadOptions,
}

impl Offer {
    pub(super) fn sequence_hash(&self) -> SequenceHash {
        self.block.sequence_hash()
    }
}

/// Offers in the order in which they are taken: by priority, then as they came.
#[derive(Debug)]
pub(super) struct OfferQueue {
    offers: BTreeMap<(u8, u64), Offer>,
    /// Counts down, so that of equal priority the first offer is the last key.
    next: u64,
    offers_max: usize,
}

impl OfferQueue {
    pub(super) fn new(offers_max: usize) -> Self {
        Self {
            offers: BTreeMap::new(),
            next: u64::MAX,
            offers_max,
        }
    }

    /// Adds an offer. At the bound the least urgent goes, the newest among equals: this one or another.
    pub(super) fn push(&mut self, offer: Offer) -> Result<(), DropReason> {
        self.next -= 1;
        self.offers
            .insert((offer.options.priority, self.next), offer);
        if self.offers.len() <= self.offers_max {
            return Ok(());
        }
        drop(self.offers.pop_first());
        Err(DropReason::QueueFull)
    }

    /// Takes up to `count` offers.
    pub(super) fn pop(&mut self, count: usize) -> Vec<Offer> {
        let mut popped = Vec::new();
        while popped.len() < count {
            let Some((_, offer)) = self.offers.pop_last() else {
                break;
            };
            popped.push(offer);
        }
        popped
    }

    pub(super) fn len(&self) -> usize {
        self.offers.len()
    }
}
