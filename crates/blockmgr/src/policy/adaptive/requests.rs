//! What the newest requests found.

use std::sync::atomic::{AtomicU64, Ordering};

/// Requests remembered; a pool that serves more at once knows less of the oldest.
const REMEMBERED: usize = 256;

/// The newest requests, each in the place that its tick gives it, shared by all shards of a pool.
///
/// A request is served by one thread at a time, mostly; where two tell of it at once, what one told may be lost.
#[derive(Debug)]
pub(super) struct Requests {
    places: Box<[Place]>,
}

/// Words that begin with the tick of their request; each is whole in itself.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Place {
    found: AtomicU64,
    /// One more than the position from which on the chain is not known; 0 if that was not seen.
    unknown: AtomicU64,
}

/// What a request found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Found {
    /// Leading blocks that were known, in the pool or as ghosts.
    blocks: u32,
    /// The largest generation among ghosts.
    generation: u8,
}

/// Bits for the blocks that a request found.
const BLOCKS_BITS: u32 = 24;

impl Found {
    fn packed(self, tick: u32) -> u64 {
        let blocks = self.blocks.min((1 << BLOCKS_BITS) - 1);
        let facts = u32::from(self.generation) << BLOCKS_BITS | blocks;
        u64::from(tick) << 32 | u64::from(facts)
    }

    /// Nothing, if the word is of another request.
    fn unpacked(word: u64, tick: u32) -> Self {
        if (word >> 32) as u32 != tick {
            return Self::default();
        }
        let facts = word as u32;
        Self {
            blocks: facts & ((1 << BLOCKS_BITS) - 1),
            generation: (facts >> BLOCKS_BITS) as u8,
        }
    }
}

impl Requests {
    pub(super) fn new() -> Self {
        Self {
            places: (0..REMEMBERED).map(|_| Place::default()).collect(),
        }
    }

    fn place(&self, tick: u32) -> &Place {
        &self.places[tick as usize % REMEMBERED]
    }

    /// A request knew so many leading blocks, the last of this generation.
    #[inline]
    pub(super) fn found(&self, tick: u32, blocks: u32, generation: u8) {
        let place = self.place(tick);
        let word = place.found.load(Ordering::Relaxed);
        let before = Found::unpacked(word, tick);
        let now = Found {
            blocks: before.blocks.max(blocks),
            generation: before.generation.max(generation),
        };
        if now != before {
            place.found.store(now.packed(tick), Ordering::Relaxed);
        }
    }

    /// A request has a block at `position` that is neither in the pool nor a ghost.
    #[inline]
    pub(super) fn unknown(&self, tick: u32, position: u32) {
        if !self.is_unknown(tick, position.saturating_add(1)) {
            let word = u64::from(tick) << 32 | u64::from(position.saturating_add(1));
            self.place(tick).unknown.store(word, Ordering::Relaxed);
        }
    }

    /// Whether a block before `position` was not known: then those behind it need not be looked for.
    #[inline]
    pub(super) fn is_unknown(&self, tick: u32, position: u32) -> bool {
        let word = self.place(tick).unknown.load(Ordering::Relaxed);
        let from = word as u32;
        (word >> 32) as u32 == tick && from != 0 && from <= position
    }

    /// Leading blocks that a request knew.
    pub(super) fn found_blocks(&self, tick: u32) -> u32 {
        self.read(tick).blocks
    }

    /// The generation of the last ghost that a request brought back.
    pub(super) fn generation(&self, tick: u32) -> u8 {
        self.read(tick).generation
    }

    fn read(&self, tick: u32) -> Found {
        let word = self.place(tick).found.load(Ordering::Relaxed);
        Found::unpacked(word, tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_remembered_until_another_takes_its_place() {
        let requests = Requests::new();
        for tick in [0, 9, u32::MAX] {
            assert!(!requests.is_unknown(tick, 5));
            requests.found(tick, 3, 0);
            requests.found(tick, 7, 2);
            requests.found(tick, 5, 1);
            requests.unknown(tick, 9);
            requests.unknown(tick, 8);
            requests.unknown(tick, 12);
            assert_eq!(
                (requests.found_blocks(tick), requests.generation(tick)),
                (7, 2)
            );
            assert!(requests.is_unknown(tick, 9) && !requests.is_unknown(tick, 8));
        }
        let later = 9 + REMEMBERED as u32;
        assert_eq!(requests.found_blocks(later), 0);
        requests.found(later, 1, 0);
        assert_eq!(requests.found_blocks(9), 0);
        assert!(requests.is_unknown(9, 9) && !requests.is_unknown(later, 9));
    }
}
