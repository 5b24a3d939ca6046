//! Blocks in which one element is frequent: where the others are, and what they are.

use super::chunk::DecodeError;

/// The element as an integer.
fn value(element: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    for (byte, source) in bytes.iter_mut().zip(element) {
        *byte = *source;
    }
    u64::from_le_bytes(bytes)
}

/// An element that has, as far as a sample can tell, the largest share, and that share.
///
/// One that well more than half are is found, of the others only zero.
pub(crate) fn most_frequent(width: usize, sample: &[u8]) -> (u64, f32) {
    match width {
        1 => most_frequent_by::<1>(sample),
        2 => most_frequent_by::<2>(sample),
        4 => most_frequent_by::<4>(sample),
        _ => most_frequent_by::<8>(sample),
    }
}

fn most_frequent_by<const W: usize>(sample: &[u8]) -> (u64, f32) {
    /// Elements that vote on the candidate.
    const VOTERS: usize = 1024;
    let (elements, _) = sample.as_chunks::<W>();
    let (mut candidate, mut lead) = ([0; W], 0_usize);
    for element in elements
        .iter()
        .step_by(elements.len().div_ceil(VOTERS).max(1))
    {
        match *element == candidate {
            true => lead += 1,
            false if lead == 0 => (candidate, lead) = (*element, 1),
            false => lead -= 1,
        }
    }
    let count = |wanted: [u8; W]| {
        elements
            .iter()
            .filter(|element| **element == wanted)
            .count()
    };
    let (zeros, candidates) = (count([0; W]), count(candidate));
    let total = elements.len().max(1) as f32;
    match zeros >= candidates {
        true => (0, zeros as f32 / total),
        false => (value(&candidate), candidates as f32 / total),
    }
}

/// Leaves in the sample what is not the fill.
pub(crate) fn keep_others(width: usize, fill: u64, sample: &mut Vec<u8>) {
    let kept = match width {
        1 => keep_others_by::<1>(fill, sample),
        2 => keep_others_by::<2>(fill, sample),
        4 => keep_others_by::<4>(fill, sample),
        _ => keep_others_by::<8>(fill, sample),
    };
    sample.truncate(kept * width);
}

/// Moves what is not the fill to the front and returns how many elements that are.
fn keep_others_by<const W: usize>(fill: u64, sample: &mut [u8]) -> usize {
    let (elements, _) = sample.as_chunks_mut::<W>();
    let fill = *fill.to_le_bytes().first_chunk::<W>().unwrap_or(&[0; W]);
    let mut kept = 0;
    for at in 0..elements.len() {
        let element = elements[at];
        elements[kept] = element;
        kept += usize::from(element != fill);
    }
    kept
}

/// Sets a bit in `bitmap` for each element that is not the fill, writes the planes of those, one after the
/// other, and returns how many there are.
pub(crate) fn split(
    width: usize,
    values: &[u8],
    fill: u64,
    bitmap: &mut [u8],
    planes: &mut Vec<u8>,
) -> usize {
    match width {
        1 => split_by::<1>(values, fill, bitmap, planes),
        2 => split_by::<2>(values, fill, bitmap, planes),
        4 => split_by::<4>(values, fill, bitmap, planes),
        _ => split_by::<8>(values, fill, bitmap, planes),
    }
}

fn split_by<const W: usize>(
    values: &[u8],
    fill: u64,
    bitmap: &mut [u8],
    planes: &mut Vec<u8>,
) -> usize {
    let (elements, _) = values.as_chunks::<W>();
    let fill = *fill.to_le_bytes().first_chunk::<W>().unwrap_or(&[0; W]);
    for (bits, group) in bitmap.iter_mut().zip(elements.chunks(8)) {
        *bits = (group.iter().zip(0..)).fold(0, |bits, (element, at)| {
            bits | u8::from(*element != fill) << at
        });
    }
    let others: usize = bitmap.iter().map(|bits| bits.count_ones() as usize).sum();
    planes.clear();
    planes.resize(others * W, 0);
    for (index, plane) in planes.chunks_exact_mut(others.max(1)).enumerate() {
        // Each byte is written, and the next one over it if it was the fill's: no branch to guess.
        let mut at = 0;
        for element in elements {
            if let Some(byte) = plane.get_mut(at) {
                *byte = element[index];
            }
            at += usize::from(*element != fill);
        }
    }
    others
}

/// Checks that the bitmap of `count` elements has as many bits as there are others, and none beyond.
pub(crate) fn check(bitmap: &[u8], count: usize, others: usize) -> Result<(), DecodeError> {
    let bits: usize = bitmap.iter().map(|bits| bits.count_ones() as usize).sum();
    let beyond = match (count % 8, bitmap.last()) {
        (0, _) | (_, None) => 0,
        (used, Some(last)) => last >> used,
    };
    match bits == others && beyond == 0 {
        true => Ok(()),
        false => Err(DecodeError::damaged(format!(
            "the bitmap of {count} elements has {bits} bits set instead of {others}, or some beyond its end"
        ))),
    }
}

/// Puts elements together from the fill and, where a bit is set, the next of `others`.
pub(crate) fn join(width: usize, fill: &[u8], bitmap: &[u8], others: &[u8], elements: &mut [u8]) {
    match width {
        1 => join_by::<1>(fill, bitmap, others, elements),
        2 => join_by::<2>(fill, bitmap, others, elements),
        4 => join_by::<4>(fill, bitmap, others, elements),
        _ => join_by::<8>(fill, bitmap, others, elements),
    }
}

fn join_by<const W: usize>(fill: &[u8], bitmap: &[u8], others: &[u8], elements: &mut [u8]) {
    let (elements, _) = elements.as_chunks_mut::<W>();
    let (others, _) = others.as_chunks::<W>();
    let fill: [u8; W] = fill.try_into().unwrap_or([0; W]);
    let mut at = 0;
    for (group, bits) in elements.chunks_mut(8).zip(bitmap) {
        if *bits == 0 {
            group.fill(fill);
            continue;
        }
        for (element, place) in group.iter_mut().zip(0..) {
            let bit = bits >> place & 1;
            let other = others.get(at).copied().unwrap_or(fill);
            *element = if bit == 1 { other } else { fill };
            at += usize::from(bit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_others_come_back_to_their_places() {
        for width in [1, 2, 4, 8] {
            for count in [1, 7, 8, 9, 100] {
                let mut values = vec![0xA5; width * count];
                for at in (0..count).step_by(3) {
                    values[at * width] = at as u8;
                }
                let fill = value(&vec![0xA5; width]);
                let mut bitmap = vec![0; count.div_ceil(8)];
                let mut planes = Vec::new();
                let others = split(width, &values, fill, &mut bitmap, &mut planes);
                assert_eq!(others, count.div_ceil(3));
                assert!(check(&bitmap, count, others).is_ok());
                assert!(check(&bitmap, count, others + 1).is_err());
                let mut elements = vec![0; others * width];
                let parts: Vec<&[u8]> = planes.chunks(others).collect();
                crate::codec::planes::join(&parts, &mut elements);
                let mut joined = vec![0; values.len()];
                join(
                    width,
                    &fill.to_le_bytes()[..width],
                    &bitmap,
                    &elements,
                    &mut joined,
                );
                assert_eq!(joined, values, "{width} {count}");
            }
        }
    }

    #[test]
    fn the_majority_is_found_and_else_zero() {
        assert_eq!(most_frequent(1, &[7, 7, 1, 7]), (7, 0.75));
        assert_eq!(most_frequent(2, &[0, 0, 1, 1, 0, 0, 2, 1]), (0, 0.5));
        assert_eq!(most_frequent(1, &[1, 2, 3, 4]).1, 0.25);
        let mut sample = vec![7, 7, 1, 7];
        keep_others(1, 7, &mut sample);
        assert_eq!(sample, [1]);
    }
}
