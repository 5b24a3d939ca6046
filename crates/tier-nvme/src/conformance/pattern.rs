//! Bytes and numbers that follow from a seed.

use core_view::BufferMut;

use crate::{Alignment, NvmeError, VolumeFile};

/// A generator of numbers (SplitMix64, Steele et al. 2014).
pub(super) struct Sequence(u64);

impl Sequence {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// Fills `target`.
    pub(super) fn fill(&mut self, target: &mut [u8]) {
        for chunk in target.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            for (byte, value) in chunk.iter_mut().zip(bytes) {
                *byte = value;
            }
        }
    }
}

/// A zeroed buffer that `alignment` allows.
pub(super) fn buffer(alignment: Alignment, len_bytes: usize) -> Result<BufferMut, NvmeError> {
    BufferMut::zeroed(len_bytes, alignment.memory_bytes.max(128)).map_err(|error| {
        NvmeError::Invalid {
            field: "buffer",
            reason: error.to_string(),
        }
    })
}

/// A buffer for `file` with bytes of `sequence`.
pub(super) fn filled(
    file: &dyn VolumeFile,
    len_bytes: usize,
    sequence: &mut Sequence,
) -> Result<BufferMut, NvmeError> {
    let mut buffer = buffer(file.alignment(), len_bytes)?;
    sequence.fill(&mut buffer);
    Ok(buffer)
}
