//! What is remembered of blocks that have left.

use super::class::Class;

/// Places in which one block may be remembered: a cache line.
const WAYS: usize = 4;

/// A bounded memory of evicted blocks: 16 bytes each; of four that compete, the one used longest ago gives way.
#[derive(Debug)]
pub(super) struct Ghosts {
    sets: Vec<[Ghost; WAYS]>,
}

/// What is known of a block, in the pool or after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ghost {
    /// Part of the identity; 0 in an empty place.
    pub(super) fingerprint: u32,
    /// When the block was used last.
    pub(super) tick: u32,
    /// The record that it entered then.
    pub(super) record: u32,
    pub(super) class: Class,
    /// How often the chain had grown before this block came.
    pub(super) generation: u8,
    /// How often the block was used again.
    pub(super) hits: u8,
}

impl Ghosts {
    /// Remembers up to `count` blocks, rounded up to a power of two.
    pub(super) fn new(count: usize) -> Self {
        let sets = (count / WAYS).max(1).next_power_of_two();
        Self {
            sets: vec![[Ghost::default(); WAYS]; sets],
        }
    }

    /// Remembers a block.
    pub(super) fn insert(&mut self, identity: u64, ghost: Ghost) {
        let (set, fingerprint) = self.find(identity);
        let mut victim = 0;
        for (way, entry) in set.iter().enumerate() {
            if entry.fingerprint == fingerprint || entry.fingerprint == 0 {
                victim = way;
                break;
            }
            let age = |way: usize| ghost.tick.wrapping_sub(set[way].tick);
            if age(way) > age(victim) {
                victim = way;
            }
        }
        set[victim] = Ghost {
            fingerprint,
            ..ghost
        };
    }

    /// Forgets a block, and tells what was known.
    pub(super) fn take(&mut self, identity: u64) -> Option<Ghost> {
        let (set, fingerprint) = self.find(identity);
        let entry = set
            .iter_mut()
            .find(|entry| entry.fingerprint == fingerprint)?;
        let ghost = *entry;
        entry.fingerprint = 0;
        Some(ghost)
    }

    fn find(&mut self, identity: u64) -> (&mut [Ghost; WAYS], u32) {
        let mixed = identity.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let set = (mixed >> 32) as usize & (self.sets.len() - 1);
        (&mut self.sets[set], identity as u32 | 1)
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
        let mut ghosts = Ghosts::new(64);
        ghosts.insert(99, ghost(5));
        assert_eq!(ghosts.take(98 << 8), None);
        let known = ghosts.take(99).map(|ghost| (ghost.tick, ghost.hits));
        assert_eq!(known, Some((5, 7)));
        assert_eq!(ghosts.take(99), None);
    }

    #[test]
    fn the_oldest_gives_way_even_when_the_clock_turns_over() {
        let mut ghosts = Ghosts::new(4);
        for (identity, tick) in [(2, u32::MAX - 1), (4, u32::MAX), (6, 0), (8, 1), (10, 2)] {
            ghosts.insert(identity, ghost(tick));
        }
        assert_eq!(ghosts.take(2), None);
        for identity in [4, 6, 8, 10] {
            assert!(ghosts.take(identity).is_some(), "{identity}");
        }
    }
}
