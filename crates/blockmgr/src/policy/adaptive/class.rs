//! Blocks that are likely to live alike.

/// Steps of popularity: each of 1 to 8, then doublings.
const POPULARITIES: usize = 14;
/// Steps of how much the last request added to the chain.
const GROWTHS: usize = 3;
/// Ends of chains, and the rest.
pub(super) const ENDS: usize = 2;

/// What classes of the same popularity and end share.
pub(super) const FAMILIES: usize = ENDS * POPULARITIES;

/// How many classes there are; a family's come together, and those of an end.
pub(super) const CLASSES: usize = FAMILIES * GROWTHS;

/// A class, by number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Class(pub(super) u8);

/// What is known of a block when its last user lets go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traits {
    /// No block followed in the last request. Most such blocks were partly filled and never come again.
    pub(super) ends_chain: bool,
    /// Times that the block, or before it the chain that it continues, was used again.
    pub(super) popularity: u32,
    /// Blocks that the last request added to what was known of its chain.
    pub(super) growth_blocks: u32,
}

impl Class {
    pub(super) fn of(traits: Traits) -> Self {
        let popularity = match traits.popularity {
            few @ 0..=8 => few as usize,
            many => (6 + many.ilog2() as usize).min(POPULARITIES - 1),
        };
        let growth = match traits.growth_blocks {
            0..4 => 0,
            4..16 => 1,
            _ => 2,
        };
        let end = usize::from(traits.ends_chain);
        Self(((end * POPULARITIES + popularity) * GROWTHS + growth) as u8)
    }

    /// Its number.
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The family of a class.
pub(super) const fn family(class: usize) -> usize {
    class / GROWTHS
}

/// The end that a family belongs to.
pub(super) const fn end(family: usize) -> usize {
    family / POPULARITIES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_a_number_of_its_own_and_belongs_to_a_family() {
        let mut seen = [false; CLASSES];
        for ends_chain in [false, true] {
            for popularity in (0..=8).chain([9, 20, 40, 80, 1_000, u32::MAX]) {
                let families = [0, 7, u32::MAX].map(|growth_blocks| {
                    let class = Class::of(Traits {
                        ends_chain,
                        popularity,
                        growth_blocks,
                    });
                    seen[class.index()] = true;
                    family(class.index())
                });
                assert!(families.iter().all(|family| *family == families[0]));
                assert_eq!(end(families[0]), usize::from(ends_chain));
            }
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}
