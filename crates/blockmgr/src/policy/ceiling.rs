//! An estimate of what a cache without limits would hit.

/// Two to this power registers: a standard error of 1.04 / √4096 = 1.6 % of the number of different blocks.
const PRECISION_BITS: u32 = 12;
const REGISTERS: usize = 1 << PRECISION_BITS;

/// Estimates the hit rate of a cache that never evicts, while requests pass, in 4 KiB.
///
/// Of all uses of blocks, the first of each block can't be a hit, all others could. The number of different blocks is
/// estimated by HyperLogLog (Flajolet, Fusy, Gandouet, Meunier, 2007).
///
/// ```
/// use blockmgr::policy::HitCeiling;
///
/// let mut ceiling = HitCeiling::new();
/// for hash in [1_u128 << 100, 2 << 100, 1 << 100, 1 << 100] {
///     ceiling.observe(hash);
/// }
/// assert!((ceiling.hit_rate() - 0.5).abs() < 0.01);
/// ```
#[derive(Debug, Clone)]
pub struct HitCeiling {
    registers: Box<[u8]>,
    uses: u64,
}

impl HitCeiling {
    /// Nothing observed yet.
    pub fn new() -> Self {
        Self {
            registers: vec![0; REGISTERS].into_boxed_slice(),
            uses: 0,
        }
    }

    /// Counts one use of the block of this identity.
    #[inline]
    pub fn observe(&mut self, sequence_hash: u128) {
        self.uses += 1;
        // Folded and mixed, so that it does not matter where an identity keeps its entropy.
        let folded = (sequence_hash >> 64) as u64 ^ (sequence_hash as u64).rotate_left(32);
        let hash = mix(folded);
        let register = &mut self.registers[(hash >> (64 - PRECISION_BITS)) as usize];
        let rank =
            ((hash << PRECISION_BITS) | (1 << (PRECISION_BITS - 1))).leading_zeros() as u8 + 1;
        *register = (*register).max(rank);
    }

    /// Adds what another observed, of another shard for example.
    pub fn merge(&mut self, other: &Self) {
        self.uses += other.uses;
        for (register, other) in self.registers.iter_mut().zip(&other.registers) {
            *register = (*register).max(*other);
        }
    }

    /// Uses counted.
    pub fn uses(&self) -> u64 {
        self.uses
    }

    /// About how many different blocks were used.
    pub fn distinct_blocks(&self) -> f64 {
        let count = REGISTERS as f64;
        let sum: f64 = self
            .registers
            .iter()
            .map(|&rank| 0.5_f64.powi(i32::from(rank)))
            .sum();
        let estimate = 0.7213 / (1.0 + 1.079 / count) * count * count / sum;
        let empty = self.registers.iter().filter(|&&rank| rank == 0).count();
        if estimate <= 2.5 * count && empty > 0 {
            // Few blocks: the share of untouched registers says more.
            count * (count / empty as f64).ln()
        } else {
            estimate
        }
    }

    /// About the share of all uses that a cache without limits finds, from 0 to 1; 0 before the first use.
    pub fn hit_rate(&self) -> f64 {
        if self.uses == 0 {
            return 0.0;
        }
        (1.0 - self.distinct_blocks() / self.uses as f64).clamp(0.0, 1.0)
    }
}

impl Default for HitCeiling {
    fn default() -> Self {
        Self::new()
    }
}

/// A bijection in which every bit of the result depends on every bit given (Stafford's variant 13).
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(distinct: u64, uses_each: u64) -> HitCeiling {
        let mut ceiling = HitCeiling::new();
        for number in 0..distinct * uses_each {
            ceiling.observe(u128::from(number % distinct));
        }
        ceiling
    }

    #[test]
    fn the_number_of_blocks_is_right_within_four_standard_errors() {
        for distinct in [1, 10, 500, 5_000, 12_000, 40_000, 1_000_000] {
            let estimate = observed(distinct, 1).distinct_blocks();
            let error = (estimate / distinct as f64 - 1.0).abs();
            assert!(error < 0.065, "{estimate} for {distinct}");
        }
    }

    #[test]
    fn the_rate_counts_every_use_but_the_first() {
        assert!((observed(10_000, 4).hit_rate() - 0.75).abs() < 0.02);
        assert!(observed(10_000, 1).hit_rate() < 0.07);
        assert_eq!(HitCeiling::new().hit_rate(), 0.0);
    }

    #[test]
    fn shards_that_are_merged_know_what_one_would() {
        let mut whole = HitCeiling::new();
        let mut parts = [HitCeiling::new(), HitCeiling::new()];
        for number in 0..5_000_u128 {
            whole.observe(number % 1_000);
            parts[(number % 2) as usize].observe(number % 1_000);
        }
        let [mut merged, other] = parts;
        merged.merge(&other);
        assert_eq!(merged.hit_rate(), whole.hit_rate());
        assert_eq!(merged.uses(), 5_000);
    }
}
