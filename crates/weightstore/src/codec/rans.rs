//! Bytes in a code that comes within a few hundredths of a bit of their entropy: the range variant of
//! asymmetric numeral systems (Duda, arXiv:1311.2540), in 32 lanes.
//!
//! A lane is an integer, its state. A byte of frequency f out of 4096 multiplies it by 4096 / f, and when
//! it grows too large, its low 16 bits are written. Encoding runs from the last byte to the first,
//! decoding the other way. Lanes take turns, so that each step of one is a step of all, which is
//! vector code: `avx2` where the processor has that, else `portable`, with the same bytes from both.

#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "vector registers are reached through the processor's own interface"
)]
mod avx2;
mod frequencies;
mod portable;
#[cfg(test)]
mod tests;

use frequencies::Frequencies;

use super::chunk::DecodeError;
use super::reader::Reader;
use super::sink::{Full, Sink};

/// States that take turns.
const LANES: usize = 32;
/// Frequencies add up to two to that power.
const SCALE_BITS: u32 = 12;
const SCALE: usize = 1 << SCALE_BITS;
/// The least state, from which encoding starts and at which decoding ends. States are below 2^16 times
/// this, so that they are positive as signed integers.
const STATE_MIN: u32 = 1 << 15;
const WORD_BITS: u32 = 16;

type States = [u32; LANES];
/// 16 bits, little-endian, as a state gave them up.
type Word = [u8; 2];
/// One byte for each lane.
type Group = [u8; LANES];
/// By the low bits of a state: the byte, the distance from the start of its range (at bit 8), and its
/// frequency (at bit 20).
type DecodeTable = [u32; SCALE];
/// By the byte: its frequency, and at bit 16 the start of its range.
type EncodeTable = [u32; 256];

/// Words that the vector code may overwrite below those that it writes.
const SLACK: usize = 8;

/// Memory for tables and words, used again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    table: Vec<u32>,
    words: Vec<Word>,
}

/// Writes the payload of a stream of kind rANS; fails for bytes that are all the same.
pub(crate) fn encode(
    source: &[u8],
    scratch: &mut Scratch,
    sink: &mut Sink<'_>,
) -> Result<(), Full> {
    let frequencies = Frequencies::of(source).ok_or(Full)?;
    let table = frequencies.encode_table();
    // No byte gives up more than one word.
    let room = source.len().next_multiple_of(LANES) + SLACK;
    if scratch.words.len() < room {
        scratch.words.resize(room, [0; 2]);
    }
    let words = scratch.words.get_mut(..room).ok_or(Full)?;
    let mut states = [STATE_MIN; LANES];
    let (groups, rest) = source.as_chunks::<LANES>();
    let end = portable::encode_rest(&table, &mut states, rest, words);
    let start = encode_groups(&table, &mut states, groups, words, end);
    frequencies.put(sink)?;
    for state in states {
        sink.put(&state.to_le_bytes())?;
    }
    sink.put(words.get(start..).unwrap_or_default().as_flattened())
}

/// Encodes whole groups, the last one first; the words end at `end`. Returns where they start.
fn encode_groups(
    table: &EncodeTable,
    states: &mut States,
    groups: &[Group],
    words: &mut [Word],
    end: usize,
) -> usize {
    #[cfg(target_arch = "x86_64")]
    if let Some(start) = avx2::encode(table, states, groups, words, end) {
        return start;
    }
    portable::encode(table, states, groups, words, end)
}

/// Reads as many bytes as `target` has, and all of `payload`.
pub(crate) fn decode(
    payload: &[u8],
    scratch: &mut Scratch,
    target: &mut [u8],
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(payload);
    let frequencies = Frequencies::read(&mut reader)?;
    let table = frequencies.decode_table(&mut scratch.table)?;
    let mut states = [0; LANES];
    for state in &mut states {
        *state = u32::from_le_bytes(reader.array()?);
        if !(STATE_MIN..STATE_MIN << WORD_BITS).contains(state) {
            return Err(DecodeError::damaged(format!("a lane starts at {state}")));
        }
    }
    let (words, odd) = reader.take(reader.len())?.as_chunks::<2>();
    let (groups, rest) = target.as_chunks_mut::<LANES>();
    let (done, used) = decode_groups(table, &mut states, words, groups);
    // Fewer words are left than a group may need: the rest is read from a copy with zeros behind.
    let left = words.get(used..).unwrap_or_default();
    let mut padded = [[0; 2]; 2 * LANES];
    for (padded, word) in padded.iter_mut().zip(left) {
        *padded = *word;
    }
    let groups = groups.get_mut(done..).unwrap_or_default();
    let count = groups.len();
    let (done, mut last) = decode_groups(table, &mut states, &padded, groups);
    if done == count {
        last += portable::decode_rest(
            table,
            &mut states,
            padded.get(last..).unwrap_or_default(),
            rest,
        );
    }
    let ended = done == count && last == left.len() && odd.is_empty();
    match ended && states == [STATE_MIN; LANES] {
        true => Ok(()),
        false => Err(DecodeError::damaged(
            "its lanes do not end where its words do",
        )),
    }
}

/// Decodes groups while there are as many words as one may need. Returns how many groups it were, and how
/// many words they took.
fn decode_groups(
    table: &DecodeTable,
    states: &mut States,
    words: &[Word],
    groups: &mut [Group],
) -> (usize, usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(done) = avx2::decode(table, states, words, groups) {
        return done;
    }
    portable::decode(table, states, words, groups)
}
