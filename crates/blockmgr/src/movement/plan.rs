//! What is to be moved, as values: made without I/O, carried out by others.

use super::TierId;
use crate::SequenceHash;

/// How many of the leading blocks of a sequence a tier has.
pub type CountLeading<'a> = &'a dyn Fn(&[SequenceHash]) -> usize;

/// One block from one tier to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The block.
    pub sequence_hash: SequenceHash,
    /// Where it is.
    pub source: TierId,
    /// Where it goes.
    pub target: TierId,
}

/// Blocks to move, in the order of their sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MovePlan {
    /// The moves.
    pub moves: Vec<Move>,
}

impl MovePlan {
    /// Brings the longest leading part of `hashes` to [`TierId::G1`] that the lower tiers have between them, of at
    /// most `room_blocks`. `tiers` are in the order in which they are preferred, each with a function that says how
    /// many of the leading blocks of a sequence it has. A run once begun is taken from one tier, in long copies.
    ///
    /// ```
    /// use blockmgr::SequenceHash;
    /// use blockmgr::movement::{MovePlan, TierId};
    ///
    /// let hashes: Vec<_> = (0u32..4).map(|i| SequenceHash::new(u128::from(i) + 10, i)).collect();
    /// let leading = |hashes: &[SequenceHash], kept: &[u128]| {
    ///     hashes.iter().take_while(|hash| kept.contains(&hash.as_u128())).count()
    /// };
    /// let host = |hashes: &[SequenceHash]| leading(hashes, &[10, 12]);
    /// let disk = |hashes: &[SequenceHash]| leading(hashes, &[10, 11, 12]);
    /// let plan = MovePlan::onboard(&hashes, 9, &[(TierId::G2, &host), (TierId::G3, &disk)]);
    /// let sources: Vec<_> = plan.moves.iter().map(|block| block.source).collect();
    /// assert_eq!(sources, [TierId::G2, TierId::G3, TierId::G3]);
    /// ```
    pub fn onboard(
        hashes: &[SequenceHash],
        room_blocks: usize,
        tiers: &[(TierId, CountLeading<'_>)],
    ) -> Self {
        let hashes = &hashes[..hashes.len().min(room_blocks)];
        let mut moves = Vec::new();
        while moves.len() < hashes.len() {
            let rest = &hashes[moves.len()..];
            let run = tiers.iter().find_map(|(tier, count)| {
                let run = count(rest).min(rest.len());
                (run > 0).then_some((*tier, run))
            });
            let Some((source, run)) = run else { break };
            moves.extend(rest[..run].iter().map(|&sequence_hash| Move {
                sequence_hash,
                source,
                target: TierId::G1,
            }));
        }
        Self { moves }
    }

    /// Runs of moves that have one source, with the place of the first.
    pub fn runs(&self) -> impl Iterator<Item = (usize, &[Move])> {
        let mut at = 0;
        self.moves
            .chunk_by(|one, next| one.source == next.source)
            .map(move |run| {
                let start = at;
                at += run.len();
                (start, run)
            })
    }

    /// How many blocks.
    pub fn len(&self) -> usize {
        self.moves.len()
    }

    /// Whether nothing is to be moved.
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(count: u32) -> Vec<SequenceHash> {
        (0..count)
            .map(|i| SequenceHash::new(u128::from(i) + 1, i))
            .collect()
    }

    #[test]
    fn a_gap_ends_the_plan() {
        let has =
            |hashes: &[SequenceHash]| hashes.iter().take_while(|hash| hash.as_u128() != 3).count();
        let plan = MovePlan::onboard(&hashes(6), 9, &[(TierId::G3, &has)]);
        assert_eq!(plan.len(), 2);
        assert!(MovePlan::onboard(&hashes(6)[2..], 9, &[(TierId::G3, &has)]).is_empty());
    }

    #[test]
    fn room_bounds_the_plan_and_runs_cover_it() {
        let odd = |hashes: &[SequenceHash]| {
            hashes
                .iter()
                .take_while(|hash| hash.as_u128() % 2 == 1)
                .count()
        };
        let all = |hashes: &[SequenceHash]| hashes.len();
        let plan = MovePlan::onboard(&hashes(9), 5, &[(TierId::G2, &odd), (TierId::G3, &all)]);
        assert_eq!(plan.len(), 5);
        let starts: Vec<_> = plan.runs().map(|(at, run)| (at, run.len())).collect();
        assert_eq!(starts, [(0, 1), (1, 4)]);
    }
}
