//! Blocks that are likely to live alike.

/// Steps of popularity: each of 1 to 8, then doublings.
const POPULARITIES: usize = 14;
/// Steps of how much the last request added to the chain.
const GROWTHS: usize = 3;
/// Ends of chains, and the rest.
const ENDS: usize = 2;

/// How many classes there are.
pub(super) const CLASSES: usize = ENDS * POPULARITIES * GROWTHS;

/// Rows of a table that also has what classes share: first the ends, then the popularities of each, then the classes.
pub(super) const ROWS: usize = SHARED_ROWS + CLASSES;
const FIRST_POPULARITY: usize = ENDS;
/// How many rows come before the classes.
pub(super) const SHARED_ROWS: usize = FIRST_POPULARITY + ENDS * POPULARITIES;

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

    /// Its row.
    pub(super) fn row(self) -> usize {
        SHARED_ROWS + self.index()
    }
}

/// The row of what a row shares with its like; always before it.
pub(super) fn parent(row: usize) -> Option<usize> {
    if row < FIRST_POPULARITY {
        None
    } else if row < SHARED_ROWS {
        Some((row - FIRST_POPULARITY) / POPULARITIES)
    } else {
        Some(FIRST_POPULARITY + (row - SHARED_ROWS) / GROWTHS)
    }
}

/// So many blocks' worth of evidence is what the row's parent says, or for a row without one the step before. Blocks of one
/// request live and die together, so evidence is worth less than its count; the closer the parent, the
/// less a row differs from it.
pub(super) fn trust(row: usize) -> f32 {
    match row {
        0..FIRST_POPULARITY => 20.0,
        FIRST_POPULARITY..SHARED_ROWS => 300.0,
        _ => 1000.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_a_number_of_its_own_and_ancestors_before_it() {
        let mut seen = [false; CLASSES];
        for ends_chain in [false, true] {
            for popularity in (0..=8).chain([9, 20, 40, 80, 1_000, u32::MAX]) {
                for growth_blocks in [0, 7, u32::MAX] {
                    let class = Class::of(Traits {
                        ends_chain,
                        popularity,
                        growth_blocks,
                    });
                    seen[class.index()] = true;
                    let popularity_row = parent(class.row()).unwrap_or(ROWS);
                    assert!(popularity_row < SHARED_ROWS);
                    assert_eq!(parent(popularity_row), Some(usize::from(ends_chain)));
                }
            }
        }
        let unused = seen.iter().filter(|seen| !**seen).count();
        assert_eq!(unused, 0);
    }
}
