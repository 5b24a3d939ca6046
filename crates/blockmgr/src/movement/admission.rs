//! Which blocks are worth a place in a lower tier.

use super::{DropReason, OffloadOptions, Origin};
use crate::SequenceHash;

/// Counters of the sketch; each has a byte.
const COUNTERS: usize = 1 << 16;

/// Rows of the sketch.
const ROWS: usize = 4;

/// After so many uses for each counter all are halved, so that old fame fades.
const USES_PER_COUNTER: usize = 8;

/// What a block must have to be offered to a tier; by default every block is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Admission {
    /// The least priority.
    pub priority_min: u8,
    /// How often it must have been asked for, counted approximately, up to 255.
    pub frequency_min: u8,
    /// Whether blocks of answers are left out.
    pub prompt_only: bool,
}

impl Admission {
    /// Why a block is not admitted, if so.
    pub(super) fn refuse(&self, options: OffloadOptions, frequency: u8) -> Option<DropReason> {
        if options.priority < self.priority_min {
            return Some(DropReason::Priority);
        }
        if self.prompt_only && options.origin != Origin::Prompt {
            return Some(DropReason::NotPrompt);
        }
        (frequency < self.frequency_min).then_some(DropReason::Frequency)
    }
}

/// How often blocks were asked for, in bounded memory: a count-min sketch (Cormode and Muthukrishnan, 2005).
#[derive(Debug)]
pub(super) struct FrequencySketch {
    rows: Vec<u8>,
    uses: usize,
}

impl FrequencySketch {
    pub(super) fn new() -> Self {
        Self {
            rows: vec![0; COUNTERS * ROWS],
            uses: 0,
        }
    }

    fn places(hash: SequenceHash) -> [usize; ROWS] {
        // The bits of an identity are as good as random.
        let bits = hash.as_u128();
        std::array::from_fn(|row| row * COUNTERS + (bits >> (16 * row)) as usize % COUNTERS)
    }

    pub(super) fn note(&mut self, hashes: &[SequenceHash]) {
        for &hash in hashes {
            for place in Self::places(hash) {
                self.rows[place] = self.rows[place].saturating_add(1);
            }
        }
        self.uses += hashes.len();
        if self.uses > COUNTERS * USES_PER_COUNTER {
            self.uses /= 2;
            self.rows.iter_mut().for_each(|count| *count /= 2);
        }
    }

    pub(super) fn frequency(&self, hash: SequenceHash) -> u8 {
        let counts = Self::places(hash).map(|place| self.rows[place]);
        counts.into_iter().min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_filter_names_its_reason() {
        let admission = Admission {
            priority_min: 2,
            frequency_min: 3,
            prompt_only: true,
        };
        let ask = |priority, origin, frequency| {
            admission.refuse(OffloadOptions { priority, origin }, frequency)
        };
        assert_eq!(ask(2, Origin::Prompt, 3), None);
        assert_eq!(ask(1, Origin::Prompt, 3), Some(DropReason::Priority));
        assert_eq!(ask(2, Origin::Answer, 3), Some(DropReason::NotPrompt));
        assert_eq!(ask(2, Origin::Prompt, 2), Some(DropReason::Frequency));
        let answer = OffloadOptions {
            priority: 0,
            origin: Origin::Answer,
        };
        assert_eq!(Admission::default().refuse(answer, 0), None);
    }

    #[test]
    fn uses_are_counted_and_fade() {
        let mut sketch = FrequencySketch::new();
        let hash = |n: u64| SequenceHash::new(u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)), 0);
        for _ in 0..100 {
            sketch.note(&[hash(1)]);
        }
        assert_eq!(sketch.frequency(hash(1)), 100);
        assert_eq!(sketch.frequency(hash(2)), 0);
        for n in 0..(COUNTERS * USES_PER_COUNTER) as u64 {
            sketch.note(&[hash(n % 64 + 1000)]);
        }
        assert!(sketch.frequency(hash(1)) <= 50);
    }
}
