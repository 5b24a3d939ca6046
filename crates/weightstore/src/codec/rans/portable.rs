//! The steps of all lanes, on any processor.

use super::{
    DecodeTable, EncodeTable, Group, LANES, SCALE, SCALE_BITS, STATE_MIN, States, WORD_BITS, Word,
};

/// Decodes groups while there are as many words as one may need. Returns how many groups it were, and how
/// many words they took.
pub(super) fn decode(
    table: &DecodeTable,
    states: &mut States,
    words: &[Word],
    groups: &mut [Group],
) -> (usize, usize) {
    let (mut done, mut used) = (0, 0);
    for group in groups {
        let Some(window) = words.get(used..).and_then(<[Word]>::first_chunk) else {
            break;
        };
        used += decode_step(table, states, window, group);
        done += 1;
    }
    (done, used)
}

/// Decodes what is left after the groups, for which there are words enough. Returns how many it took.
pub(super) fn decode_rest(
    table: &DecodeTable,
    states: &mut States,
    words: &[Word],
    rest: &mut [u8],
) -> usize {
    let lanes = states.get_mut(..rest.len()).unwrap_or_default();
    match words.first_chunk() {
        Some(window) => decode_step(table, lanes, window, rest),
        None => 0,
    }
}

/// A byte from each state, and for each state that got too small a word. Returns how many words it took.
#[inline(always)]
fn decode_step(
    table: &DecodeTable,
    states: &mut [u32],
    window: &[Word; LANES],
    bytes: &mut [u8],
) -> usize {
    for (state, byte) in states.iter_mut().zip(bytes) {
        let entry = table[*state as usize % SCALE];
        *byte = entry as u8;
        *state = (entry >> 20) * (*state >> SCALE_BITS) + (entry >> 8 & 0xFFF);
    }
    let mut used = 0;
    for state in states {
        let word = u32::from(u16::from_le_bytes(window[used % LANES]));
        // Arithmetic, not a branch: no processor could guess it.
        let is_low = u32::from(*state < STATE_MIN);
        *state = *state << (WORD_BITS * is_low) | (word & is_low.wrapping_neg());
        used += is_low as usize;
    }
    used
}

/// Encodes whole groups, the last one first; the words end at `end`. Returns where they start.
pub(super) fn encode(
    table: &EncodeTable,
    states: &mut States,
    groups: &[Group],
    words: &mut [Word],
    end: usize,
) -> usize {
    let reciprocals = reciprocals(table);
    let mut start = end;
    for group in groups.iter().rev() {
        let before = words.get_mut(..start).unwrap_or_default();
        let Some(window) = before.last_chunk_mut() else {
            break;
        };
        start -= encode_step(table, &reciprocals, states, group, window);
    }
    start
}

/// Encodes what follows the groups; the words end with `words`. Returns where they start.
pub(super) fn encode_rest(
    table: &EncodeTable,
    states: &mut States,
    rest: &[u8],
    words: &mut [Word],
) -> usize {
    let lanes = states.get_mut(..rest.len()).unwrap_or_default();
    let end = words.len();
    match words.last_chunk_mut() {
        Some(window) if !rest.is_empty() => {
            end - encode_step(table, &reciprocals(table), lanes, rest, window)
        }
        _ => end,
    }
}

/// 2^32 divided by each frequency, rounded down.
fn reciprocals(table: &EncodeTable) -> [u32; 256] {
    table.map(|entry| match entry & 0xFFFF {
        0 | 1 => u32::MAX,
        frequency => ((1_u64 << 32) / u64::from(frequency)) as u32,
    })
}

/// Puts a byte into each state, after a word was taken from each that would get too large. The words end
/// with the window; returns how many there are.
#[inline(always)]
fn encode_step(
    table: &EncodeTable,
    reciprocals: &[u32; 256],
    states: &mut [u32],
    bytes: &[u8],
    window: &mut [Word; LANES],
) -> usize {
    let mut free = LANES;
    for (state, byte) in states.iter_mut().zip(bytes).rev() {
        let frequency = table[usize::from(*byte)] & 0xFFFF;
        let is_high = u32::from(*state >= frequency << (31 - SCALE_BITS));
        // Written in any case, and overwritten if it was not wanted.
        window[free.wrapping_sub(1) % LANES] = (*state as u16).to_le_bytes();
        *state >>= WORD_BITS * is_high;
        free -= is_high as usize;
    }
    for (state, byte) in states.iter_mut().zip(bytes) {
        let entry = table[usize::from(*byte)];
        let (frequency, start) = (entry & 0xFFFF, entry >> 16);
        // The quotient or one less.
        let reciprocal = u64::from(reciprocals[usize::from(*byte)]);
        let quotient = ((u64::from(*state) * reciprocal) >> 32) as u32;
        let remainder = *state - quotient * frequency;
        let is_less = u32::from(remainder >= frequency);
        let missing = (SCALE as u32 - frequency) * is_less;
        *state = (quotient << SCALE_BITS) + start + remainder + missing;
    }
    LANES - free
}
