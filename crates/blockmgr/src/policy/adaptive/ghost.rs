//! What is remembered of blocks that have left.

use std::hint::select_unpredictable;
use std::sync::atomic::{AtomicU64, Ordering};

use super::class::Class;

/// Places in which one block may be remembered: a cache line.
const WAYS: usize = 8;

/// Bits of what is packed into a word.
const FINGERPRINT_BITS: u32 = 20;
const TICK_BITS: u32 = 24;
const CLASS_BITS: u32 = 7;
const HITS_BITS: u32 = 7;
const GENERATION_BITS: u32 = 6;

/// The largest counts that are kept.
pub(super) const HITS_MAX: u8 = (1 << HITS_BITS) - 1;
pub(super) const GENERATION_MAX: u8 = (1 << GENERATION_BITS) - 1;

/// A bounded memory of evicted blocks, shared by all shards of a pool: 8 bytes each; of eight that compete, the one used
/// longest ago gives way.
///
/// There is no lock: each block is one word. Of two threads that remember blocks in one place at the same time one may be in
/// vain, and that a block is told only once is certain.
#[derive(Debug)]
pub(super) struct Ghosts {
    sets: Box<[Set]>,
}

/// Packed ghosts; 0 is an empty place.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

/// What is known of a block, in the pool or after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ghost {
    /// When the block was used last.
    pub(super) tick: u32,
    /// The class that it entered then.
    pub(super) class: Class,
    /// How often the chain had grown before this block came.
    pub(super) generation: u8,
    /// How often the block was used again.
    pub(super) hits: u8,
}

impl Ghost {
    /// Only the low bits of the tick are kept.
    fn packed(self, fingerprint: u64) -> u64 {
        let mut word = fingerprint;
        for (bits, value) in [
            (TICK_BITS, self.tick & low_bits(TICK_BITS)),
            (CLASS_BITS, u32::from(self.class.0)),
            (HITS_BITS, u32::from(self.hits.min(HITS_MAX))),
            (
                GENERATION_BITS,
                u32::from(self.generation.min(GENERATION_MAX)),
            ),
        ] {
            word = word << bits | u64::from(value);
        }
        word
    }

    /// A ghost that was packed at most as long ago as the kept bits of ticks reach, before `now`.
    fn unpacked(word: u64, now: u32) -> Self {
        let field = |shift: u32, bits: u32| (word >> shift) as u32 & low_bits(bits);
        let hits = GENERATION_BITS;
        let class = hits + HITS_BITS;
        let tick = class + CLASS_BITS;
        Self {
            tick: now.wrapping_sub(age(word, now)),
            class: Class(field(class, tick - class) as u8),
            generation: field(0, hits) as u8,
            hits: field(hits, class - hits) as u8,
        }
    }
}

const fn low_bits(bits: u32) -> u32 {
    (1 << bits) - 1
}

/// Requests between the last use of a packed ghost and a later one.
fn age(word: u64, now: u32) -> u32 {
    let tick = (word >> (GENERATION_BITS + HITS_BITS + CLASS_BITS)) as u32;
    now.wrapping_sub(tick) & low_bits(TICK_BITS)
}

fn fingerprint(word: u64) -> u64 {
    word >> (64 - FINGERPRINT_BITS)
}

impl Ghosts {
    /// Remembers up to `count` blocks, rounded up to a power of two.
    pub(super) fn new(count: usize) -> Self {
        let sets = (count / WAYS).max(1).next_power_of_two();
        Self {
            sets: (0..sets).map(|_| Set::default()).collect(),
        }
    }

    /// Remembers blocks. All their places are read first: they are seldom in a near cache, and to wait for all at once takes not much longer
    /// than for one.
    pub(super) fn insert_all(&self, departed: &[(u64, Ghost)], now: u32) {
        let first = |identity| self.find(identity).0[0].load(Ordering::Relaxed);
        let words = departed.iter().map(|&(identity, _)| first(identity));
        std::hint::black_box(words.fold(0, |all, word| all ^ word));
        for &(identity, ghost) in departed {
            self.insert(identity, ghost, now);
        }
    }

    /// Remembers a block, at the time of a request that is not before its last use.
    fn insert(&self, identity: u64, ghost: Ghost, now: u32) {
        let (set, own) = self.find(identity);
        // Nobody can guess which place it will be, so that branches would cost more than to look at all.
        let mut victim = 0;
        let mut oldest = 0;
        for (way, place) in set.iter().enumerate() {
            let word = place.load(Ordering::Relaxed);
            let is_vacant = (word == 0) | (fingerprint(word) == own);
            let age = select_unpredictable(is_vacant, u32::MAX, age(word, now));
            let is_older = age > oldest;
            victim = select_unpredictable(is_older, way, victim);
            oldest = select_unpredictable(is_older, age, oldest);
        }
        set[victim].store(ghost.packed(own), Ordering::Relaxed);
    }

    /// Forgets a block, and tells what was known.
    pub(super) fn take(&self, identity: u64, now: u32) -> Option<Ghost> {
        let (set, own) = self.find(identity);
        for place in set {
            let word = place.load(Ordering::Relaxed);
            if fingerprint(word) == own {
                let taken = place.compare_exchange(word, 0, Ordering::Relaxed, Ordering::Relaxed);
                return taken.is_ok().then(|| Ghost::unpacked(word, now));
            }
        }
        None
    }

    fn find(&self, identity: u64) -> (&[AtomicU64; WAYS], u64) {
        let mixed = identity.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let set = (mixed >> 32) as usize & (self.sets.len() - 1);
        // Never 0, so that no ghost looks like an empty place.
        let fingerprint = identity & u64::from(low_bits(FINGERPRINT_BITS)) | 1;
        (&self.sets[set].0, fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ghost(tick: u32) -> Ghost {
        Ghost {
            tick,
            hits: 7,
            ..Ghost::default()
        }
    }

    #[test]
    fn a_block_is_told_once() {
        let ghosts = Ghosts::new(64);
        let known = Ghost {
            tick: 5,
            class: Class(83),
            generation: 63,
            hits: 127,
        };
        ghosts.insert(99, known, 6);
        assert_eq!(ghosts.take(98 << 8, 6), None);
        assert_eq!(ghosts.take(99, 900), Some(known));
        assert_eq!(ghosts.take(99, 900), None);
    }

    #[test]
    fn counts_that_are_too_large_stay_at_the_most() {
        let ghosts = Ghosts::new(8);
        let known = Ghost {
            generation: 200,
            hits: 255,
            ..Ghost::default()
        };
        ghosts.insert(3, known, 0);
        let told = ghosts.take(3, 0).unwrap_or_default();
        assert_eq!((told.generation, told.hits), (GENERATION_MAX, HITS_MAX));
    }

    #[test]
    fn the_oldest_gives_way_even_when_the_clock_turns_over() {
        for start in [100, u32::MAX - 3, (1 << TICK_BITS) - 4] {
            let ghosts = Ghosts::new(8);
            for step in 0..9_u32 {
                let tick = start.wrapping_add(step);
                ghosts.insert(u64::from(2 * step + 2), ghost(tick), tick);
            }
            let now = start.wrapping_add(1000);
            assert_eq!(ghosts.take(2, now), None);
            for step in 1..9_u32 {
                let told = ghosts.take(u64::from(2 * step + 2), now);
                assert_eq!(told, Some(ghost(start.wrapping_add(step))));
            }
        }
    }
}
