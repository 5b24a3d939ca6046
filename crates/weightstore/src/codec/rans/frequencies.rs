//! How often each byte occurs, out of 4096.

use super::{DecodeTable, EncodeTable, SCALE};
use crate::codec::chunk::DecodeError;
use crate::codec::reader::Reader;
use crate::codec::sink::{Full, Sink};
use crate::codec::statistics::Histogram;

/// Frequencies from here on take two bytes.
const WIDE: u16 = 128;

/// Fewer bytes are counted in full.
const SAMPLED_MIN: usize = 32 << 10;
/// Bytes of a sample that lie together.
const SAMPLE_RUN: usize = 256;
/// The most bytes that may have a place without having been seen in the sample.
const UNSEEN_MAX: u32 = 8;

/// Frequencies of at least two bytes, which add up to [`SCALE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frequencies([u16; 256]);

impl Frequencies {
    /// Those of the bytes of a source, of long ones by a sample; `None` if it has fewer than two different ones.
    pub(super) fn of(source: &[u8]) -> Option<Self> {
        let counts = sampled_counts(source);
        Self::of_counts(&counts.unwrap_or_else(|| *Histogram::of(source).counts()))
    }

    pub(super) fn of_counts(counts: &[u32; 256]) -> Option<Self> {
        let scale = SCALE as u64;
        let total: u64 = counts.iter().copied().map(u64::from).sum();
        // What is rarer than one in 4096 takes a place all the same; the others share what is left.
        let is_rare = |count: u64| count > 0 && count * scale <= total;
        let (mut rare, mut rare_total, mut distinct) = (0, 0, 0);
        for count in counts.iter().copied().map(u64::from) {
            distinct += u32::from(count > 0);
            if is_rare(count) {
                rare += 1;
                rare_total += count;
            }
        }
        if distinct < 2 {
            return None;
        }
        let (places, total_left) = (scale - rare, (total - rare_total).max(1));
        let frequencies = counts.map(|count| match u64::from(count) {
            0 => 0,
            count if is_rare(count) => 1,
            count => ((count * places + total_left / 2) / total_left).max(1) as u16,
        });
        Some(Self(completed(frequencies)))
    }

    /// What encoders look up by the byte.
    pub(super) fn encode_table(&self) -> EncodeTable {
        let mut start = 0;
        self.0.map(|frequency| {
            let entry = u32::from(frequency) | start << 16;
            start += u32::from(frequency);
            entry
        })
    }

    /// What decoders look up by the low bits of a state.
    pub(super) fn decode_table<'t>(
        &self,
        table: &'t mut Vec<u32>,
    ) -> Result<&'t DecodeTable, DecodeError> {
        table.resize(SCALE, 0);
        let mut rest = &mut table[..];
        for (frequency, byte) in self.0.iter().zip(0_u32..) {
            let (places, after) = rest
                .split_at_mut_checked(usize::from(*frequency))
                .ok_or_else(incomplete)?;
            let entry = byte | u32::from(*frequency) << 20;
            for (place, distance) in places.iter_mut().zip(0_u32..) {
                *place = entry | distance << 8;
            }
            rest = after;
        }
        table.first_chunk().ok_or_else(incomplete)
    }

    /// The least and the largest byte that occur.
    fn bounds(&self) -> (usize, usize) {
        let occurs = |frequency: &u16| *frequency > 0;
        let first = self.0.iter().position(occurs).unwrap_or(0);
        let last = self.0.iter().rposition(occurs).unwrap_or(0);
        (first, last)
    }

    /// Writes them as the format document says.
    pub(super) fn put(&self, sink: &mut Sink<'_>) -> Result<(), Full> {
        let (first, last) = self.bounds();
        sink.put(&[first as u8, last as u8])?;
        let mut left = self.0.get(first..=last).unwrap_or_default();
        while let Some((frequency, after)) = left.split_first() {
            left = after;
            match *frequency {
                0 => {
                    let zeros = left.iter().take_while(|next| **next == 0).count();
                    sink.put(&[0, zeros as u8])?;
                    left = left.get(zeros..).unwrap_or_default();
                }
                narrow if narrow < WIDE => sink.put(&[narrow as u8])?,
                wide => sink.put(&[wide as u8 | 0x80, (wide >> 7) as u8])?,
            }
        }
        Ok(())
    }

    /// Reads what [`Frequencies::put`] writes, and nothing else.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let [first, last] = reader.array()?.map(usize::from);
        let mut frequencies = [0; 256];
        let mut places = frequencies
            .get_mut(first..=last)
            .unwrap_or_default()
            .iter_mut();
        let mut zeros_before = false;
        while let Some(place) = places.next() {
            let byte = reader.u8()?;
            if byte == 0 {
                let more = usize::from(reader.u8()?);
                // Zeros are together, and not at an end.
                if zeros_before || places.len() <= more || places.len() + 1 == last - first + 1 {
                    return Err(incomplete());
                }
                if more > 0 {
                    places.nth(more - 1);
                }
                zeros_before = true;
                continue;
            }
            zeros_before = false;
            *place = match u16::from(byte) {
                narrow if narrow < WIDE => narrow,
                low => match u16::from(reader.u8()?) << 7 | low & 0x7F {
                    wide if (WIDE..SCALE as u16).contains(&wide) => wide,
                    _ => return Err(incomplete()),
                },
            };
        }
        let total: usize = frequencies.iter().copied().map(usize::from).sum();
        match total == SCALE && first < last {
            true => Ok(Self(frequencies)),
            false => Err(incomplete()),
        }
    }
}

/// Counts in a quarter of the source, with 1 for each byte of the range of all that is not among them. `None` where that is
/// no good: the source is short, or the range has many such bytes, each of which would take a place.
fn sampled_counts(source: &[u8]) -> Option<[u32; 256]> {
    if source.len() < SAMPLED_MIN {
        return None;
    }
    let least = source.iter().fold(u8::MAX, |least, byte| least.min(*byte));
    let largest = source.iter().fold(0, |largest, byte| largest.max(*byte));
    // One run of four, and each of the four in turn: rows of a matrix often have a power of two of elements.
    let is_taken = |place: &usize| place % 4 == (place / 4) % 4;
    let runs = source.chunks(SAMPLE_RUN).enumerate();
    let taken = runs.filter(|(place, _)| is_taken(place));
    let mut counts = *Histogram::of_all(taken.map(|(_, run)| run)).counts();
    let mut unseen = 0;
    for count in counts.get_mut(usize::from(least)..=usize::from(largest))? {
        unseen += u32::from(*count == 0);
        *count = (*count).max(1);
    }
    (unseen <= UNSEEN_MAX).then_some(counts)
}

/// Adds to the most frequent, or takes from them, what is missing from [`SCALE`] or beyond it: it
/// matters least there.
fn completed(mut frequencies: [u16; 256]) -> [u16; 256] {
    let mut total: usize = frequencies.iter().copied().map(usize::from).sum();
    while total != SCALE {
        let Some(most) = frequencies.iter_mut().max() else {
            break;
        };
        match total < SCALE {
            true => (*most, total) = (*most + 1, total + 1),
            false => (*most, total) = (*most - 1, total - 1),
        }
    }
    frequencies
}

fn incomplete() -> DecodeError {
    DecodeError::damaged("its frequencies do not add up to 4096")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(frequencies: &Frequencies) -> Vec<u8> {
        let mut room = [0; 1024];
        let mut sink = Sink::new(&mut room);
        frequencies.put(&mut sink).unwrap();
        let len = sink.len();
        room[..len].to_vec()
    }

    fn counts(of: &[(u8, u32)]) -> [u32; 256] {
        let mut counts = [0; 256];
        for (byte, count) in of {
            counts[usize::from(*byte)] = *count;
        }
        counts
    }

    #[test]
    fn all_that_occurs_has_a_place_and_all_places_are_taken() {
        let doubling: [u32; 256] = std::array::from_fn(|i| 1 << (i % 20));
        let many_rare: [u32; 256] = std::array::from_fn(|i| if i == 9 { 1 << 20 } else { 1 });
        for counts in [
            doubling,
            many_rare,
            [1; 256],
            [7; 256],
            counts(&[(0, 1), (255, 1)]),
            counts(&[(0, 1 << 20), (255, 1)]),
            counts(&[(3, 1), (4, 1 << 30), (200, 5)]),
            counts(&[(10, 1000), (11, 1000), (12, 1000)]),
        ] {
            let frequencies = Frequencies::of_counts(&counts).unwrap();
            let total: usize = frequencies.0.iter().copied().map(usize::from).sum();
            assert_eq!(total, SCALE);
            for (frequency, count) in frequencies.0.iter().zip(counts) {
                assert_eq!(*frequency > 0, count > 0);
            }
            let bytes = written(&frequencies);
            let mut reader = Reader::new(&bytes);
            assert_eq!(Frequencies::read(&mut reader).unwrap(), frequencies);
            assert!(reader.end().is_ok());
        }
        assert_eq!(Frequencies::of_counts(&counts(&[(7, 100)])), None);
        assert_eq!(Frequencies::of(&[]), None);
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let frequencies = Frequencies::of_counts(&counts(&[(3, 3968), (4, 27), (8, 101)])).unwrap();
        assert_eq!(written(&frequencies), [3, 8, 0x80, 31, 27, 0, 2, 101]);
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let refused = [
            // One byte has it all, twice.
            &[3_u8, 3, 0x80, 32][..],
            &[3, 4, 0x80, 32, 0, 0],
            // The largest before the least.
            &[8, 3, 0x80, 31, 27, 0, 2, 101],
            // Zeros at an end, in two parts, or beyond the end.
            &[2, 8, 0, 0, 0x80, 31, 27, 0, 2, 101],
            &[3, 9, 0x80, 31, 27, 0, 2, 101, 0, 0],
            &[3, 8, 0x80, 31, 27, 0, 0, 0, 1, 101],
            &[3, 8, 0x80, 31, 27, 0, 3, 101],
            &[3, 8, 0x80, 31, 27, 0, 255, 101],
            // A small one in two bytes, too much, too little, cut off.
            &[3, 8, 0x80, 31, 0x9B, 0, 0, 2, 101],
            &[3, 8, 0x80, 31, 27, 0, 2, 102],
            &[3, 8, 0x80, 31, 27, 0, 2, 100],
            &[3, 8, 0x80, 31, 27, 0, 2],
            &[],
        ];
        for bytes in refused {
            assert!(
                Frequencies::read(&mut Reader::new(bytes)).is_err(),
                "{bytes:?}"
            );
        }
    }
}
