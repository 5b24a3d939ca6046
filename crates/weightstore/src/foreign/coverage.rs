//! Checksums of content that is read in pieces, out of order.

use std::collections::BTreeMap;

use crc_fast::{CrcAlgorithm, checksum, checksum_combine};

const CRC32: CrcAlgorithm = CrcAlgorithm::Crc32IsoHdlc;

/// What was read of some content, and the checksum of each stretch of it.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    /// By start: end and checksum. Stretches neither overlap nor touch.
    stretches: BTreeMap<u64, (u64, u32)>,
}

impl Coverage {
    /// Takes bytes in that were read at `start`, but for those that were taken in before.
    pub(super) fn add(&mut self, start: u64, bytes: &[u8]) {
        let end = start + bytes.len() as u64;
        let mut at = start;
        for (from, to) in self.gaps(start, end) {
            let skip = usize::try_from(from - at).unwrap_or(usize::MAX);
            let piece = bytes
                .get((at - start) as usize + skip..)
                .and_then(|rest| rest.get(..(to - from) as usize));
            if let Some(piece) = piece {
                self.insert(from, to, checksum(CRC32, piece) as u32);
            }
            at = from;
        }
    }

    fn insert(&mut self, mut start: u64, mut end: u64, mut crc: u32) {
        if let Some((&before, &(touch, first))) = self.stretches.range(..start).next_back()
            && touch == start
        {
            crc = combined(first, crc, end - start);
            start = before;
        }
        if let Some((after, second)) = self.stretches.remove(&end) {
            crc = combined(crc, second, after - end);
            end = after;
        }
        self.stretches.insert(start, (end, crc));
    }

    /// What was not read between `start` and `end`.
    pub(super) fn gaps(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut at = start;
        let first = self
            .stretches
            .range(..=start)
            .next_back()
            .map(|(from, _)| *from);
        for (&from, &(to, _)) in self.stretches.range(first.unwrap_or(start)..end) {
            if from > at {
                gaps.push((at, from));
            }
            at = at.max(to);
        }
        if at < end {
            gaps.push((at, end));
        }
        gaps
    }

    /// The checksum of the first `len` bytes, once all of them were read.
    pub(super) fn whole(&self, len: u64) -> Option<u32> {
        match self.stretches.get(&0) {
            Some((end, crc)) if *end == len => Some(*crc),
            _ if len == 0 => Some(0),
            _ => None,
        }
    }
}

fn combined(first: u32, second: u32, second_len: u64) -> u32 {
    checksum_combine(CRC32, u64::from(first), u64::from(second), second_len) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_in_any_order_give_the_checksum_of_the_whole(
            content in prop::collection::vec(any::<u8>(), 1..400),
            reads in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..100), 0..40),
        ) {
            let mut coverage = Coverage::default();
            let mut seen = vec![false; content.len()];
            let len = content.len() as u64;
            for (start, piece_len) in reads {
                let start = start.index(content.len());
                let end = (start + piece_len).min(content.len());
                coverage.add(start as u64, &content[start..end]);
                seen[start..end].fill(true);
                let missing: u64 = coverage.gaps(0, len).iter().map(|(from, to)| to - from).sum();
                prop_assert_eq!(missing, seen.iter().filter(|seen| !**seen).count() as u64);
                prop_assert_eq!(coverage.whole(len).is_some(), missing == 0);
            }
            for (from, to) in coverage.gaps(0, len) {
                coverage.add(from, &content[from as usize..to as usize]);
            }
            prop_assert_eq!(coverage.whole(len), Some(checksum(CRC32, &content) as u32));
        }
    }
}
