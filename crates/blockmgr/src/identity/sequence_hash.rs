//! Hashes as values.

use std::fmt;

/// The keyed hash of one block's own tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockHash(u128);

impl BlockHash {
    /// A hash that was made before.
    pub const fn new(hash: u128) -> Self {
        Self(hash)
    }

    /// The bits.
    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

/// The keyed hash of a block and all before it, with the block's place in the sequence. The hash covers the place.
///
/// Two blocks are the same when the 128 bits are; the place comes along so that a block which is found by its hash
/// tells where it belongs.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SequenceHash {
    // Two words rather than one of 16 bytes, whose alignment would make this a third larger.
    low: u64,
    high: u64,
    position: u32,
}

impl SequenceHash {
    /// A hash that was made before, by [`Salt`](super::Salt) or by an engine of its own mind: 128 bits, as good as
    /// random, of the block at `position` (0 for the first) and all before it.
    pub const fn new(hash: u128, position: u32) -> Self {
        Self {
            low: hash as u64,
            high: (hash >> 64) as u64,
            position,
        }
    }

    /// The bits.
    pub const fn as_u128(self) -> u128 {
        (self.high as u128) << 64 | self.low as u128
    }

    /// The block's place in its sequence, 0 for the first.
    pub const fn position(self) -> u32 {
        self.position
    }

    pub(crate) const fn words(self) -> [u64; 2] {
        [self.low, self.high]
    }
}

impl fmt::Debug for SequenceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SequenceHash({self})")
    }
}

impl fmt::Display for SequenceHash {
    /// Place and hash, `3:00…2a`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:032x}", self.position, self.as_u128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bits_are_kept() {
        let bits = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210;
        let hash = SequenceHash::new(bits, 9);
        assert_eq!((hash.as_u128(), hash.position()), (bits, 9));
        assert_eq!(size_of::<SequenceHash>(), 24);
    }
}
