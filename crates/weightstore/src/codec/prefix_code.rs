//! A prefix code over bytes (Huffman), written as four streams of bits that are read side by side.
//!
//! It is read only: chunks of revision 0 have it. The encoder is there for the tests.

#[cfg(test)]
mod encoder;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use encoder::encode;

use super::chunk::DecodeError;
use super::reader::Reader;

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
