//! Writes what earlier versions wrote.

use super::{GROUP, LANES, LEN_MAX, LENGTHS_LEN, TABLE_LEN, words};
use crate::codec::sink::{Full, Sink};
use crate::codec::statistics::Histogram;

/// Code lengths for those counts, of which two at least are not zero; at most [`LEN_MAX`], and the
/// code is complete.
pub(super) fn lengths(counts: &[u32; 256]) -> [u8; 256] {
    // Leaves in rising order of their counts, then the inner nodes, which arise in that order too.
    let mut leaves: Vec<u64> = (counts.iter().zip(0_u64..))
        .filter(|(count, _)| **count > 0)
        .map(|(count, byte)| u64::from(*count) << 8 | byte)
        .collect();
    leaves.sort_unstable();
    let leaf_count = leaves.len();
    let mut weights: Vec<u64> = leaves.iter().map(|leaf| leaf >> 8).collect();
    let mut parents = vec![0_usize; 2 * leaf_count];
    let (mut leaf, mut inner) = (0, leaf_count);
    while weights.len() < 2 * leaf_count - 1 {
        let mut take = || {
            let use_leaf =
                leaf < leaf_count && (inner >= weights.len() || weights[leaf] <= weights[inner]);
            let next = if use_leaf { &mut leaf } else { &mut inner };
            *next += 1;
            *next - 1
        };
        let (first, second) = (take(), take());
        parents[first] = weights.len();
        parents[second] = weights.len();
        weights.push(weights[first] + weights[second]);
    }
    let mut depths = vec![0_u32; weights.len()];
    for node in (0..weights.len().saturating_sub(1)).rev() {
        depths[node] = depths[parents[node]] + 1;
    }
    limit(&mut depths[..leaf_count]);
    let mut lengths = [0; 256];
    for (leaf, depth) in leaves.iter().zip(depths) {
        lengths[(leaf & 0xFF) as usize] = depth as u8;
    }
    lengths
}

/// Limits depths, which fall as counts rise, to [`LEN_MAX`], and makes them a complete code again.
fn limit(depths: &mut [u32]) {
    let share = |depth: u32| 1_usize << (LEN_MAX - depth);
    for depth in depths.iter_mut() {
        *depth = (*depth).clamp(1, LEN_MAX);
    }
    let mut used: usize = depths.iter().map(|depth| share(*depth)).sum();
    // Too much: the rarest of the shorter words get longer.
    while used > TABLE_LEN {
        let Some(depth) = depths.iter_mut().find(|depth| **depth < LEN_MAX) else {
            return;
        };
        used -= share(*depth + 1);
        *depth += 1;
    }
    // Too little: the most frequent words that can get shorter do.
    while used < TABLE_LEN {
        let room = TABLE_LEN - used;
        let fitting = |depth: &&mut u32| **depth > 1 && share(**depth) <= room;
        let Some(depth) = depths.iter_mut().rev().find(fitting) else {
            return;
        };
        used += share(*depth);
        *depth -= 1;
    }
}

/// Writes the code and `source` in it; fails if that is longer than `source`.
pub(crate) fn encode(source: &[u8], sink: &mut Sink<'_>) -> Result<(), Full> {
    let histogram = Histogram::of(source);
    let counts = histogram.counts();
    if counts.iter().filter(|count| **count > 0).count() < 2 {
        return Err(Full);
    }
    let lengths = lengths(counts);
    let bits: u64 = (counts.iter().zip(&lengths))
        .map(|(count, len)| u64::from(*count) * u64::from(*len))
        .sum();
    if bits / 8 > source.len() as u64 {
        return Err(Full);
    }
    let words = words(&lengths);
    let codes: [u32; 256] =
        std::array::from_fn(|byte| u32::from(words[byte]) << 8 | u32::from(lengths[byte]));
    let (pairs, _) = lengths.as_chunks::<2>();
    let packed: [u8; LENGTHS_LEN] = std::array::from_fn(|i| pairs[i][0] | pairs[i][1] << 4);
    sink.put(&packed)?;
    let sizes_at = sink.len();
    for _ in 0..LANES {
        sink.put_u32(0)?;
    }
    let lane_len = source.len().div_ceil(LANES);
    let mut lanes = source.chunks(lane_len.max(1));
    for lane in 0..LANES {
        let len = write_lane(lanes.next().unwrap_or_default(), &codes, sink.rest())?;
        sink.advance(len);
        sink.patch_u32(sizes_at + 4 * lane, len)?;
    }
    Ok(())
}

/// Writes code words one after the other and returns the bytes that they take.
fn write_lane(source: &[u8], codes: &[u32; 256], target: &mut [u8]) -> Result<usize, Full> {
    let (mut pending, mut pending_bits, mut at) = (0_u64, 0_u32, 0);
    let (groups, rest) = source.as_chunks::<GROUP>();
    for group in groups {
        for byte in group {
            let code = codes[usize::from(*byte)];
            pending |= u64::from(code >> 8) << pending_bits;
            pending_bits += code & 0xFF;
        }
        let room = target.get_mut(at..at + 8).ok_or(Full)?;
        room.copy_from_slice(&pending.to_le_bytes());
        let whole = pending_bits & !7;
        at += (whole / 8) as usize;
        // At most 59 bits are pending, so a shift by all of them is one by less than 64.
        pending >>= whole;
        pending_bits &= 7;
    }
    for byte in rest {
        let code = codes[usize::from(*byte)];
        pending |= u64::from(code >> 8) << pending_bits;
        pending_bits += code & 0xFF;
    }
    let len = pending_bits.div_ceil(8) as usize;
    let last = pending.to_le_bytes();
    let room = target.get_mut(at..at + len).ok_or(Full)?;
    room.copy_from_slice(last.get(..len).ok_or(Full)?);
    Ok(at + len)
}
