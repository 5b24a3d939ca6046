//! The sizes that a pool rounds requests up to.

use crate::request::SIZE_MAX_BYTES;

/// Classes per doubling of the size. Between a power of two and the next, classes are an eighth of
/// the lower one apart, so that rounding up adds less than an eighth to what was asked for.
const STEPS: usize = 8;

/// Size classes: multiples of a granule up to eight granules, then eight per doubling. All are
/// multiples of the granule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SizeClasses {
    granule_shift: u32,
    count: usize,
}

impl SizeClasses {
    /// Classes of multiples of `granule_bytes`, a power of two, up to at least `largest_bytes`.
    pub(crate) fn new(granule_bytes: usize, largest_bytes: usize) -> Self {
        let mut classes = Self {
            granule_shift: granule_bytes.trailing_zeros(),
            count: 0,
        };
        let largest = largest_bytes.clamp(1, SIZE_MAX_BYTES / 2);
        classes.count = classes.index(largest) + 1;
        classes
    }

    /// How many classes there are.
    pub(crate) fn count(self) -> u32 {
        self.count as u32
    }

    /// The smallest class that `size` (not zero) fits in; none if it is too large for all.
    #[inline]
    pub(crate) fn of(self, size: usize) -> Option<u32> {
        let class = self.index(size);
        (class < self.count).then_some(class as u32)
    }

    #[inline]
    fn index(self, size: usize) -> usize {
        let last = (size - 1) >> self.granule_shift;
        if last < STEPS {
            return last;
        }
        // `last` has its top bit at `octave + 3`; the three bits below it choose the step.
        let octave = last.ilog2() - STEPS.ilog2();
        let step = (last >> octave) & (STEPS - 1);
        STEPS + octave as usize * STEPS + step
    }

    /// The size of a class in bytes.
    #[inline]
    pub(crate) fn size_bytes(self, class: u32) -> usize {
        let class = class as usize;
        let granules = match class.checked_sub(STEPS) {
            None => class + 1,
            Some(above) => (STEPS + above % STEPS + 1) << (above / STEPS),
        };
        granules << self.granule_shift
    }
}

#[cfg(test)]
mod tests {
    use super::SizeClasses;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn waste_is_at_most_an_eighth(shift in 0u32..22, size in 1usize..1 << 46) {
            let granule = 1usize << shift;
            let classes = SizeClasses::new(granule, 1 << 46);
            let class = classes.of(size).unwrap();
            let rounded = classes.size_bytes(class);
            prop_assert!(rounded >= size);
            prop_assert!(rounded.is_multiple_of(granule));
            prop_assert!(class == 0 || classes.size_bytes(class - 1) < size);
            if size >= 8 * granule {
                prop_assert!(8 * (rounded - size) <= size);
            } else {
                prop_assert!(rounded - size < granule);
            }
        }
    }

    #[test]
    fn every_class_is_its_own() {
        let classes = SizeClasses::new(128, 1 << 46);
        let mut before = 0;
        for class in 0..classes.count() {
            let size = classes.size_bytes(class);
            assert!(size > before, "class {class}");
            assert_eq!(classes.of(size), Some(class));
            assert_eq!(classes.of(before + 1), Some(class));
            before = size;
        }
        assert_eq!(classes.of(before + 1), None);
        assert_eq!(classes.of(usize::MAX), None);
    }
}
