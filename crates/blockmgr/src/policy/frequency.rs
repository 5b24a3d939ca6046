//! About how often blocks were used lately.

use super::ceiling::mix;

const ROWS: u64 = 4;
const COUNTER_MAX: u64 = 15;

/// Counts of 4 bits each in four rows, of which the least is the answer (TinyLFU's sketch: G. Einziger, R. Friedman, B.
/// Manes, 2017). All counts are halved after ten uses for each slot.
#[derive(Debug, Clone)]
pub(super) struct FrequencySketch {
    /// Sixteen counters each.
    words: Vec<u64>,
    uses: u64,
    uses_max: u64,
}

impl FrequencySketch {
    /// For a pool of `slots` slots.
    pub(super) fn new(slots: u32) -> Self {
        let words = (slots as usize).max(16).next_power_of_two();
        Self {
            words: vec![0; words],
            uses: 0,
            uses_max: u64::from(slots.max(16)) * 10,
        }
    }

    /// Word and shift of an identity's counter in a row.
    fn place(&self, hash: u64, row: u64) -> (usize, u64) {
        let hash = mix(hash ^ row << 60);
        let word = (hash >> 8) as usize & (self.words.len() - 1);
        (word, (row * 4 + (hash & 3)) * 4)
    }

    /// Counts a use.
    pub(super) fn count(&mut self, sequence_hash: u128) {
        let hash = fold(sequence_hash);
        for row in 0..ROWS {
            let (word, shift) = self.place(hash, row);
            if (self.words[word] >> shift) & COUNTER_MAX < COUNTER_MAX {
                self.words[word] += 1 << shift;
            }
        }
        self.uses += 1;
        if self.uses >= self.uses_max {
            self.uses /= 2;
            for word in &mut self.words {
                *word = (*word >> 1) & 0x7777_7777_7777_7777;
            }
        }
    }

    /// About how often it was used; not less unless counts were halved or full.
    pub(super) fn estimate(&self, sequence_hash: u128) -> u8 {
        let hash = fold(sequence_hash);
        let counters = (0..ROWS).map(|row| {
            let (word, shift) = self.place(hash, row);
            (self.words[word] >> shift) & COUNTER_MAX
        });
        counters.min().unwrap_or(0) as u8
    }
}

/// An identity in half its bits.
pub(super) fn fold(sequence_hash: u128) -> u64 {
    (sequence_hash >> 64) as u64 ^ sequence_hash as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_tells_too_little_before_it_halves() {
        let mut sketch = FrequencySketch::new(1_000);
        for round in 1..=12 {
            for hash in 0..800_u128 {
                sketch.count(hash * 0x1_0000_0001);
                assert!(sketch.estimate(hash * 0x1_0000_0001) >= round);
            }
        }
        assert!(sketch.estimate(u128::MAX) <= 12);
    }

    #[test]
    fn counts_stop_at_fifteen_and_halve() {
        let mut sketch = FrequencySketch::new(16);
        for _ in 0..159 {
            sketch.count(1);
        }
        assert_eq!(sketch.estimate(1), 15);
        sketch.count(1);
        assert_eq!(sketch.estimate(1), 7);
    }
}
