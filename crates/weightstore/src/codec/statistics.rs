//! What a sample of a plane says about how to code it.

/// Symbols that have a rank of their own in a pair.
const RANKS: usize = 15;
/// The most low bits that pairs leave as they are.
pub(crate) const SHIFT_MAX: u32 = 4;

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
    Huffman,
    /// Pairs of ranks below the symbol `top`, above `shift` bits that stay as they are.
    Pairs {
        top: u8,
        shift: u32,
    },
}

impl Histogram {
    pub(crate) fn of(sample: &[u8]) -> Self {
        // Four counters each, so that runs of a byte don't wait for their own sums.
        let mut counts = [[0_u32; 256]; 4];
        let [a, b, c, d] = &mut counts;
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
        let mut sum = counts[0];
        for part in &counts[1..] {
            for (sum, count) in sum.iter_mut().zip(part) {
                *sum += count;
            }
        }
        Self {
            counts: sum,
            total: sample.len() as u32,
        }
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
        let mut best = Plan {
            code: Code::Huffman,
            price: self.huffman_price(len),
        };
        let mut counts = self.counts;
        for shift in 0..=SHIFT_MAX {
            let symbols = 256 >> shift;
            if shift > 0 {
                for symbol in 0..symbols {
                    counts[symbol] = counts[2 * symbol] + counts[2 * symbol + 1];
                }
            }
            let (top, price) = self.pairs_price(&counts[..symbols], len);
            let price = price + shift as f32;
            if price < best.price {
                let code = Code::Pairs { top, shift };
                best = Plan { code, price };
            }
        }
        if best.price < WORTH { best } else { raw }
    }

    fn huffman_price(&self, len: usize) -> f32 {
        /// What Huffman codes of many symbols lose, about.
        const LOSS: f32 = 0.055;
        let total = self.total as f32;
        let distinct = self.counts.iter().filter(|count| **count > 0).count();
        let table = 4.0 * distinct as f32 / len.max(1) as f32;
        let largest = self.counts.iter().copied().max().unwrap_or(0) as f32 / total;
        let entropy = entropy(&self.counts, total);
        let price = match largest > 0.5 {
            // One bit for the frequent symbol, whatever it is worth.
            true => 1.0 + (entropy - entropy_of_share(largest)).max(0.0) + LOSS * (1.0 - largest),
            false => entropy + LOSS,
        };
        price + table
    }

    /// The best top of the ranks and the price of the pairs, without bits that stay as they are.
    fn pairs_price(&self, counts: &[u32], len: usize) -> (u8, f32) {
        /// What a Huffman code of pairs loses for each of the two, about.
        const LOSS: f32 = 0.02;
        /// Bits of a code's lengths and of its lanes' lengths.
        const TABLE: f32 = 8.0 * 160.0;
        let total = self.total as f32;
        let (mut covered, mut best, mut top) = (0_u32, 0, 0);
        for (symbol, count) in counts.iter().enumerate() {
            covered += count;
            if symbol >= RANKS {
                covered -= counts[symbol - RANKS];
            }
            if covered > best {
                (best, top) = (covered, symbol);
            }
        }
        let ranked = &counts[top.saturating_sub(RANKS - 1)..=top];
        let escapes = (self.total - best) as f32;
        let mut entropy = entropy(ranked, total);
        if escapes > 0.0 {
            entropy -= escapes / total * (escapes / total).log2();
        }
        let table = TABLE / len.max(1) as f32;
        let price = (entropy + LOSS).max(0.5) + 8.0 * escapes / total + table;
        (top as u8, price)
    }
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
        assert_eq!(plan.code, Code::Pairs { top: 126, shift: 0 });
        assert!((2.3..3.0).contains(&plan.price), "{plan:?}");
        // The same above three bits of noise.
        let shifted: Vec<u8> = (1..8192)
            .map(|i| ((exponent(i) - 96) << 3) | (((i * 167) >> 4) as u8 & 7))
            .collect();
        let plan = Histogram::of(&shifted).plan(1 << 17);
        assert_eq!(plan.code, Code::Pairs { top: 30, shift: 3 });
        // Letters are spread too far for ranks.
        let letters: Vec<u8> = (0..8192_u32)
            .map(|i| b"the grey owl \x01\x02\xF0\x80\xC0"[(i * 7 % 18) as usize])
            .collect();
        assert_eq!(Histogram::of(&letters).plan(1 << 17).code, Code::Huffman);
        assert_eq!(Histogram::of(&[]).plan(0).code, Code::Raw);
    }
}
