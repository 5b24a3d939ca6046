//! What a sample of a plane says about how to code it.

/// How often each byte occurs in a sample.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: [u32; 256],
    total: u32,
}

/// A way to code a plane, with its price.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Plan {
    pub(crate) code: Code,
    /// Estimate, in bits a byte.
    pub(crate) price: f32,
}

/// A way to code a plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Raw,
    /// A prefix code by the library: the least overhead, for short planes.
    Huffman,
    Rans,
}

impl Histogram {
    pub(crate) fn of(sample: &[u8]) -> Self {
        Self::of_all(std::iter::once(sample))
    }

    pub(crate) fn of_all<'s>(samples: impl Iterator<Item = &'s [u8]>) -> Self {
        // Four counters each, so that runs of a byte don't wait for their own sums.
        let mut counts = [[0_u32; 256]; 4];
        let [a, b, c, d] = &mut counts;
        let mut total = 0;
        for sample in samples {
            let (groups, rest) = sample.as_chunks::<4>();
            for [w, x, y, z] in groups {
                a[usize::from(*w)] += 1;
                b[usize::from(*x)] += 1;
                c[usize::from(*y)] += 1;
                d[usize::from(*z)] += 1;
            }
            for byte in rest {
                a[usize::from(*byte)] += 1;
            }
            total += sample.len() as u32;
        }
        let counts = std::array::from_fn(|byte| counts.iter().map(|part| part[byte]).sum());
        Self { counts, total }
    }

    pub(crate) fn counts(&self) -> &[u32; 256] {
        &self.counts
    }

    /// The cheapest way to code `len` bytes that are distributed like the sample.
    pub(crate) fn plan(&self, len: usize) -> Plan {
        /// Below this saving the time to decode is not worth it.
        const WORTH: f32 = 7.75;
        let raw = Plan {
            code: Code::Raw,
            price: 8.0,
        };
        if self.total == 0 {
            return raw;
        }
        let entropy = entropy(&self.counts, self.total as f32);
        let distinct = self.counts.iter().filter(|count| **count > 0).count();
        let len = len.max(1) as f32;
        let rans = Plan {
            code: Code::Rans,
            price: rans_price(entropy, distinct, len),
        };
        let huffman = Plan {
            code: Code::Huffman,
            price: self.huffman_price(entropy, distinct, len),
        };
        let best = match cfg!(feature = "zstd") && huffman.price < rans.price {
            true => huffman,
            false => rans,
        };
        if best.price < WORTH { best } else { raw }
    }

    fn huffman_price(&self, entropy: f32, distinct: usize, len: f32) -> f32 {
        /// What Huffman codes of many symbols lose, about.
        const LOSS: f32 = 0.055;
        let table = 4.0 * distinct as f32 / len;
        let largest = self.counts.iter().copied().max().unwrap_or(0) as f32 / self.total as f32;
        let price = match largest > 0.5 {
            // One bit for the frequent symbol, whatever it is worth.
            true => 1.0 + (entropy - entropy_of_share(largest)).max(0.0) + LOSS * (1.0 - largest),
            false => entropy + LOSS,
        };
        price + table
    }
}

fn rans_price(entropy: f32, distinct: usize, len: f32) -> f32 {
    /// What frequencies out of 4096 lose, about.
    const LOSS: f32 = 0.005;
    /// Bits of the lanes' states that hold nothing.
    const LANES: f32 = 32.0 * 24.0;
    /// Bits of a frequency.
    const FREQUENCY: f32 = 10.0;
    entropy + LOSS + (LANES + FREQUENCY * distinct as f32) / len
}

/// Bits a symbol.
fn entropy(counts: &[u32], total: f32) -> f32 {
    let bits: f32 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| *count as f32 * (*count as f32 / total).log2())
        .sum();
    -bits / total
}

/// Bits to tell what has a share from what has not.
pub(crate) fn entropy_of_share(share: f32) -> f32 {
    if share <= 0.0 || share >= 1.0 {
        return 0.0;
    }
    -share * share.log2() - (1.0 - share) * (1.0 - share).log2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_plane_has_its_plan() {
        let uniform: Vec<u8> = (0..8192_u32).map(|i| (i * 167) as u8).collect();
        assert_eq!(Histogram::of(&uniform).plan(1 << 17).code, Code::Raw);
        // Exponents that fall off, none with a share near a power of two.
        let exponent = |i: u32| {
            let part = (i as f32 * 0.618_034).fract().max(1e-3);
            ((part * part.sqrt()).to_bits() >> 23) as u8
        };
        let exponents: Vec<u8> = (1..8192).map(exponent).collect();
        let plan = Histogram::of(&exponents).plan(1 << 17);
        assert_eq!(plan.code, Code::Rans);
        assert!((2.3..2.6).contains(&plan.price), "{plan:?}");
        // A short plane does not earn the lanes.
        let plan = Histogram::of(&exponents).plan(600);
        let short = if cfg!(feature = "zstd") {
            Code::Huffman
        } else {
            Code::Rans
        };
        assert_eq!(plan.code, short);
        // Nearly constant bytes take less than a bit each.
        let rare: Vec<u8> = (0..8192_u32).map(|i| u8::from(i % 100 == 0)).collect();
        let plan = Histogram::of(&rare).plan(1 << 17);
        assert!(plan.code == Code::Rans && plan.price < 0.1, "{plan:?}");
        assert_eq!(Histogram::of(&[]).plan(0).code, Code::Raw);
    }

    #[test]
    fn every_byte_is_counted() {
        let bytes: Vec<u8> = (0..1003_u32).map(|i| (i * i) as u8).collect();
        let histogram = Histogram::of(&bytes);
        for (byte, count) in (0_u8..=255).zip(histogram.counts()) {
            let wanted = bytes.iter().filter(|other| **other == byte).count();
            assert_eq!(*count as usize, wanted);
        }
    }
}
