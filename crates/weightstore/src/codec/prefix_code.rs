//! A prefix code over bytes (Huffman), written as four streams of bits that are read side by side.
//!
//! Codes have up to 13 bits, two more than those of zstd: pairs of symbols have many rare values, and
//! each takes a share of the code at least as large as its longest word.

use super::chunk::DecodeError;
use super::reader::Reader;
use super::sink::{Full, Sink};

/// The longest code word in bits. Four of them and the rest of a byte fit 64 bits.
const LEN_MAX: u32 = 13;
const TABLE_LEN: usize = 1 << LEN_MAX;
/// Streams of bits.
const LANES: usize = 4;
/// Code words that are read and written between two accesses to memory.
const GROUP: usize = 4;
/// Code lengths, two to a byte.
const LENGTHS_LEN: usize = 128;

/// Memory for a code and its table, used again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// What each value of the next bits means: the byte, and above it the length of its code word.
    table: Vec<u16>,
}

/// How many of each byte there are.
fn count(source: &[u8]) -> [u32; 256] {
    let mut counts = [[0_u32; 256]; 4];
    let [a, b, c, d] = &mut counts;
    let (groups, rest) = source.as_chunks::<4>();
    for [w, x, y, z] in groups {
        a[usize::from(*w)] += 1;
        b[usize::from(*x)] += 1;
        c[usize::from(*y)] += 1;
        d[usize::from(*z)] += 1;
    }
    for byte in rest {
        a[usize::from(*byte)] += 1;
    }
    std::array::from_fn(|byte| counts.iter().map(|part| part[byte]).sum())
}

/// Code lengths for those counts, of which two at least are not zero; at most [`LEN_MAX`], and the
/// code is complete.
fn lengths(counts: &[u32; 256]) -> [u8; 256] {
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

/// The code words of those lengths, in the order of lengths and then bytes, first bit lowest.
fn words(lengths: &[u8; 256]) -> [u16; 256] {
    let mut words = [0; 256];
    let mut next = 0_u32;
    for len in 1..=LEN_MAX {
        for (byte, _) in lengths
            .iter()
            .enumerate()
            .filter(|(_, l)| u32::from(**l) == len)
        {
            words[byte] = (next.reverse_bits() >> (32 - LEN_MAX)) as u16;
            next += 1 << (LEN_MAX - len);
        }
    }
    words
}

/// Writes the code and `source` in it; fails if that is longer than `source`.
pub(crate) fn encode(source: &[u8], sink: &mut Sink<'_>) -> Result<(), Full> {
    let counts = count(source);
    if counts.iter().filter(|count| **count > 0).count() < 2 {
        return Err(Full);
    }
    let lengths = lengths(&counts);
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

/// Reads as many bytes as `target` has, and all of `payload`.
pub(crate) fn decode(
    payload: &[u8],
    scratch: &mut Scratch,
    target: &mut [u8],
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(payload);
    let packed: [u8; LENGTHS_LEN] = reader.array()?;
    let lengths = std::array::from_fn(|byte| packed[byte / 2] >> (4 * (byte % 2)) & 0xF);
    let table = tabulate(&lengths, scratch)?;
    let mut sizes = [0; LANES];
    for size in &mut sizes {
        *size = reader.u32()?;
    }
    let mut lanes = [Lane::default(); LANES];
    for (lane, size) in lanes.iter_mut().zip(sizes) {
        lane.bytes = reader.take(size)?;
    }
    reader.end()?;
    let lane_len = target.len().div_ceil(LANES).max(1);
    let mut parts: [&mut [u8]; LANES] = Default::default();
    for (part, chunk) in parts.iter_mut().zip(target.chunks_mut(lane_len)) {
        *part = chunk;
    }
    let together = parts.iter().map(|part| part.len()).min().unwrap_or(0) / GROUP;
    {
        let [a, b, c, d] = parts.each_mut().map(|part| part.as_chunks_mut::<GROUP>().0);
        let [mut la, mut lb, mut lc, mut ld] = lanes;
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d).take(together) {
            la.read_group(table, a);
            lb.read_group(table, b);
            lc.read_group(table, c);
            ld.read_group(table, d);
        }
        lanes = [la, lb, lc, ld];
    }
    for (part, lane) in parts.iter_mut().zip(&mut lanes) {
        for byte in part.iter_mut().skip(together * GROUP) {
            let entry = table[(lane.window() & (TABLE_LEN as u64 - 1)) as usize];
            *byte = entry as u8;
            lane.bit += usize::from(entry >> 8);
        }
        if lane.bit.div_ceil(8) != lane.bytes.len() {
            return Err(DecodeError::damaged(format!(
                "a lane of {} bytes ends at bit {}",
                lane.bytes.len(),
                lane.bit
            )));
        }
    }
    Ok(())
}

/// A stream of bits being read.
#[derive(Debug, Clone, Copy, Default)]
struct Lane<'a> {
    bytes: &'a [u8],
    bit: usize,
}

impl Lane<'_> {
    /// The next bits, 57 at least; zeros beyond the end.
    #[inline(always)]
    fn window(self) -> u64 {
        let at = self.bit / 8;
        let word = match self.bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
            Some(word) => u64::from_le_bytes(*word),
            None => self.last_word(at),
        };
        word >> (self.bit % 8)
    }

    /// Reads a group of code words at the cost of one access to memory.
    #[inline(always)]
    fn read_group(&mut self, table: &[u16; TABLE_LEN], group: &mut [u8; GROUP]) {
        let mut window = self.window();
        for byte in group {
            let entry = table[(window & (TABLE_LEN as u64 - 1)) as usize];
            *byte = entry as u8;
            window >>= entry >> 8;
            self.bit += usize::from(entry >> 8);
        }
    }

    #[cold]
    fn last_word(self, at: usize) -> u64 {
        let mut word = [0; 8];
        for (byte, left) in word
            .iter_mut()
            .zip(self.bytes.get(at..).unwrap_or_default())
        {
            *byte = *left;
        }
        u64::from_le_bytes(word)
    }
}

/// The table of a code, which has to be complete.
fn tabulate<'s>(
    lengths: &[u8; 256],
    scratch: &'s mut Scratch,
) -> Result<&'s [u16; TABLE_LEN], DecodeError> {
    let incomplete = || DecodeError::damaged("its prefix code is not complete");
    let used: usize = lengths
        .iter()
        .filter(|len| **len > 0)
        .map(|len| TABLE_LEN.checked_shr(u32::from(*len)).unwrap_or(0))
        .sum();
    if used != TABLE_LEN || lengths.iter().any(|len| u32::from(*len) > LEN_MAX) {
        return Err(incomplete());
    }
    scratch.table.resize(TABLE_LEN, 0);
    for ((word, len), byte) in words(lengths).into_iter().zip(lengths).zip(0_u16..) {
        if *len == 0 {
            continue;
        }
        let places = scratch.table.get_mut(usize::from(word)..);
        for place in places.unwrap_or_default().iter_mut().step_by(1 << len) {
            *place = byte | u16::from(*len) << 8;
        }
    }
    scratch.table.first_chunk().ok_or_else(incomplete)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(source: &[u8]) -> usize {
        let mut room = vec![0; 2 * source.len() + 300];
        let mut sink = Sink::new(&mut room);
        encode(source, &mut sink).unwrap();
        let len = sink.len();
        let mut decoded = vec![0; source.len()];
        decode(&room[..len], &mut Scratch::default(), &mut decoded).unwrap();
        assert!(decoded == source);
        len
    }

    fn skewed(len: usize) -> Vec<u8> {
        (1..=len as u32)
            .map(|i| i.wrapping_mul(0x9E37_79B9).leading_zeros() as u8 * 8 + (i % 3) as u8)
            .collect()
    }

    #[test]
    fn bytes_come_back_at_nearly_their_entropy() {
        for len in [2, 3, 4, 5, 15, 16, 17, 63, 1000] {
            let mut source = skewed(len);
            source[0] = 255;
            round_trip(&source);
        }
        let source = skewed(1 << 16);
        // Each step half as frequent, and three in each: 2 + log2 3, of which a code loses 0.08.
        let bits = round_trip(&source) as f64 * 8.0 / source.len() as f64;
        assert!(bits < 2.0 + 3_f64.log2() + 0.11, "{bits}");
    }

    #[test]
    fn rare_bytes_don_t_break_the_limit() {
        // Counts that double: without a limit the longest word would have 25 bits.
        let mut counts = [0; 256];
        for (i, count) in counts.iter_mut().enumerate() {
            *count = if i < 25 { 1 << i } else { u32::from(i < 200) };
        }
        let lengths = lengths(&counts);
        let used: usize = (lengths.iter().filter(|len| **len > 0))
            .map(|len| TABLE_LEN >> len)
            .sum();
        assert_eq!(used, TABLE_LEN);
        assert!(lengths.iter().all(|len| u32::from(*len) <= LEN_MAX));
        assert_eq!(lengths[24], 1);
    }

    #[test]
    fn what_is_no_code_is_refused() {
        let source = skewed(5000);
        let mut room = vec![0; 10_000];
        let mut sink = Sink::new(&mut room);
        encode(&source, &mut sink).unwrap();
        let len = sink.len();
        let encoded = &room[..len];
        let mut scratch = Scratch::default();
        let mut target = vec![0; 5000];
        for cut in [0, 1, 127, 128, 143, 144, len - 1] {
            assert!(decode(&encoded[..cut], &mut scratch, &mut target).is_err());
        }
        for other in [4000, 4990, 6000] {
            assert!(decode(encoded, &mut scratch, &mut vec![0; other]).is_err());
        }
        let mut incomplete = encoded.to_vec();
        incomplete[0] ^= 1;
        assert!(decode(&incomplete, &mut scratch, &mut target).is_err());
        assert_eq!(encode(&[5; 100], &mut Sink::new(&mut [0; 1000])), Err(Full));
    }
}
