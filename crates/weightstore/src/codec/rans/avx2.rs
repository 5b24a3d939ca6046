//! The steps of all lanes in vector registers of eight.
//!
//! Slices, and helpers that are sound for any argument, leave three kinds of unsafe operations: a load, a
//! store, and a look-up in a table whose length the index can't reach beyond. `docs/UNSAFE.md` has the argument.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_cvtsi64_si128, _mm_loadu_si128, _mm_packus_epi32, _mm_storeu_si128,
    _mm256_add_epi32, _mm256_and_si256, _mm256_andnot_si256, _mm256_blendv_epi8,
    _mm256_castsi256_ps, _mm256_castsi256_si128, _mm256_cmpgt_epi32, _mm256_cvtepi32_ps,
    _mm256_cvtepu8_epi32, _mm256_cvtepu16_epi32, _mm256_cvttps_epi32, _mm256_div_ps,
    _mm256_extracti128_si256, _mm256_i32gather_epi32, _mm256_loadu_si256, _mm256_movemask_ps,
    _mm256_mul_ps, _mm256_mullo_epi32, _mm256_or_si256, _mm256_packus_epi16, _mm256_packus_epi32,
    _mm256_permutevar8x32_epi32, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32,
    _mm256_setzero_si256, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_srlv_epi32,
    _mm256_storeu_si256, _mm256_sub_epi32,
};

use super::{
    DecodeTable, EncodeTable, Group, LANES, SCALE, SCALE_BITS, STATE_MIN, States, WORD_BITS, Word,
};

/// Lanes of one register.
const WIDTH: usize = 8;
const REGISTERS: usize = LANES / WIDTH;

/// For each set of lanes that need a word: the word that each of them takes, in order.
static TAKEN: [[u8; WIDTH]; 256] = taken();
/// For each set of lanes that give a word: the lanes in order, at the end.
static GIVEN: [[u8; WIDTH]; 256] = given();

const fn taken() -> [[u8; WIDTH]; 256] {
    let mut orders = [[0; WIDTH]; 256];
    let mut set = 0;
    while set < 256 {
        let (mut lane, mut next) = (0, 0);
        while lane < WIDTH {
            orders[set][lane] = next;
            next += (set >> lane & 1) as u8;
            lane += 1;
        }
        set += 1;
    }
    orders
}

const fn given() -> [[u8; WIDTH]; 256] {
    let mut orders = [[0; WIDTH]; 256];
    let mut set = 0;
    while set < 256 {
        let (mut lane, mut place) = (WIDTH, WIDTH);
        while lane > 0 {
            lane -= 1;
            if set >> lane & 1 == 1 {
                place -= 1;
                orders[set][place] = lane as u8;
            }
        }
        set += 1;
    }
    orders
}

/// As [`portable::decode`](super::portable::decode); `None` where the processor can't.
pub(super) fn decode(
    table: &DecodeTable,
    states: &mut States,
    words: &[Word],
    groups: &mut [Group],
) -> Option<(usize, usize)> {
    if !is_available() {
        return None;
    }
    // SAFETY: the processor has what the function is compiled for.
    Some(unsafe { decode_groups(table, states, words, groups) })
}

/// As [`portable::encode`](super::portable::encode); `None` where the processor can't.
pub(super) fn encode(
    table: &EncodeTable,
    states: &mut States,
    groups: &[Group],
    words: &mut [Word],
    end: usize,
) -> Option<usize> {
    if !is_available() {
        return None;
    }
    // SAFETY: the processor has what the function is compiled for.
    Some(unsafe { encode_groups(table, states, groups, words, end) })
}

fn is_available() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("popcnt")
}

#[target_feature(enable = "avx2,popcnt")]
fn decode_groups(
    table: &DecodeTable,
    states: &mut States,
    words: &[Word],
    groups: &mut [Group],
) -> (usize, usize) {
    let mut lanes = load_states(states);
    let slot_mask = _mm256_set1_epi32(SCALE as i32 - 1);
    let distance_mask = _mm256_set1_epi32(0xFFF);
    let byte_mask = _mm256_set1_epi32(0xFF);
    let least = _mm256_set1_epi32(STATE_MIN as i32);
    let (mut done, mut used) = (0, 0);
    for group in groups {
        let window = words.get(used..).and_then(<[Word]>::first_chunk::<LANES>);
        let Some(window) = window else { break };
        let mut bytes = [_mm256_setzero_si256(); REGISTERS];
        let mut next = 0;
        for (x, bytes) in lanes.iter_mut().zip(&mut bytes) {
            let entries = look_up_slot(table, _mm256_and_si256(*x, slot_mask));
            *bytes = _mm256_and_si256(entries, byte_mask);
            let frequencies = _mm256_srli_epi32::<20>(entries);
            let distances = _mm256_and_si256(_mm256_srli_epi32::<8>(entries), distance_mask);
            let high = _mm256_srli_epi32::<{ SCALE_BITS as i32 }>(*x);
            let y = _mm256_add_epi32(_mm256_mullo_epi32(frequencies, high), distances);
            let low = _mm256_cmpgt_epi32(least, y);
            let set = _mm256_movemask_ps(_mm256_castsi256_ps(low)) as usize & 0xFF;
            let ahead = window.get(next..).and_then(<[Word]>::first_chunk::<WIDTH>);
            let ahead = _mm256_cvtepu16_epi32(load_words(ahead.unwrap_or(&[[0; 2]; WIDTH])));
            let taken = _mm256_permutevar8x32_epi32(ahead, order(&TAKEN[set]));
            let refilled = _mm256_or_si256(_mm256_slli_epi32::<{ WORD_BITS as i32 }>(y), taken);
            *x = _mm256_blendv_epi8(y, refilled, low);
            next += set.count_ones() as usize;
        }
        store_bytes(group, bytes);
        used += next;
        done += 1;
    }
    store_states(states, lanes);
    (done, used)
}

#[target_feature(enable = "avx2,popcnt")]
fn encode_groups(
    table: &EncodeTable,
    states: &mut States,
    groups: &[Group],
    words: &mut [Word],
    end: usize,
) -> usize {
    let mut lanes = load_states(states);
    let low_half = _mm256_set1_epi32(0xFFFF);
    let scale = _mm256_set1_epi32(SCALE as i32);
    let word_bits = _mm256_set1_epi32(WORD_BITS as i32);
    let below_one = _mm256_set1_ps(1.0 - 1.0 / (1 << 22) as f32);
    let mut start = end;
    for group in groups.iter().rev() {
        let (eights, _) = group.as_chunks::<WIDTH>();
        for (x, bytes) in lanes.iter_mut().zip(eights).rev() {
            let entries = look_up_byte(table, bytes);
            let frequencies = _mm256_and_si256(entries, low_half);
            let starts = _mm256_srli_epi32::<16>(entries);
            let reciprocals = _mm256_div_ps(below_one, _mm256_cvtepi32_ps(frequencies));
            let fits = _mm256_cmpgt_epi32(
                frequencies,
                _mm256_srli_epi32::<{ 31 - SCALE_BITS as i32 }>(*x),
            );
            let set = !_mm256_movemask_ps(_mm256_castsi256_ps(fits)) as usize & 0xFF;
            let given = _mm256_and_si256(*x, low_half);
            let given = _mm256_permutevar8x32_epi32(given, order(&GIVEN[set]));
            let before = words.get_mut(..start).unwrap_or_default();
            if let Some(room) = before.last_chunk_mut() {
                store_words(room, given);
            }
            start -= set.count_ones() as usize;
            let y = _mm256_srlv_epi32(*x, _mm256_andnot_si256(fits, word_bits));
            // The quotient has 19 bits, and this is it or one less.
            let ratio = _mm256_mul_ps(_mm256_cvtepi32_ps(y), reciprocals);
            let quotient = _mm256_cvttps_epi32(ratio);
            let remainder = _mm256_sub_epi32(y, _mm256_mullo_epi32(quotient, frequencies));
            let is_right = _mm256_cmpgt_epi32(frequencies, remainder);
            let missing = _mm256_andnot_si256(is_right, _mm256_sub_epi32(scale, frequencies));
            let scaled = _mm256_slli_epi32::<{ SCALE_BITS as i32 }>(quotient);
            let sum = _mm256_add_epi32(_mm256_add_epi32(remainder, starts), scaled);
            *x = _mm256_add_epi32(sum, missing);
        }
    }
    store_states(states, lanes);
    start
}

/// Eight small numbers, one for each lane.
#[target_feature(enable = "avx2")]
fn order(lanes: &[u8; WIDTH]) -> __m256i {
    _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(*lanes)))
}

/// The entries of slots; of an index only the bits that a slot has count.
#[target_feature(enable = "avx2")]
fn look_up_slot(table: &DecodeTable, slots: __m256i) -> __m256i {
    let slots = _mm256_and_si256(slots, _mm256_set1_epi32(SCALE as i32 - 1));
    // SAFETY: an index is below the length of the table, to which the reference is, and counts its elements.
    unsafe { _mm256_i32gather_epi32::<4>(table.as_ptr().cast(), slots) }
}

#[target_feature(enable = "avx2")]
fn look_up_byte(table: &EncodeTable, bytes: &[u8; WIDTH]) -> __m256i {
    let places = order(bytes);
    // SAFETY: an index is a byte, the table has 256 elements, and the index counts them.
    unsafe { _mm256_i32gather_epi32::<4>(table.as_ptr().cast(), places) }
}

#[target_feature(enable = "avx2")]
fn load_words(words: &[Word; WIDTH]) -> __m128i {
    // SAFETY: 16 bytes that may be read are behind the reference; the load needs no alignment.
    unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
}

/// Stores the low halves of eight lanes.
#[target_feature(enable = "avx2")]
fn store_words(room: &mut [Word; WIDTH], lanes: __m256i) {
    let (low, high) = (
        _mm256_castsi256_si128(lanes),
        _mm256_extracti128_si256::<1>(lanes),
    );
    let words = _mm_packus_epi32(low, high);
    // SAFETY: 16 bytes that may be written are behind the reference; the store needs no alignment.
    unsafe { _mm_storeu_si128(room.as_mut_ptr().cast(), words) }
}

#[target_feature(enable = "avx2")]
fn load_states(states: &States) -> [__m256i; REGISTERS] {
    let mut lanes = [_mm256_setzero_si256(); REGISTERS];
    for (lanes, states) in lanes.iter_mut().zip(states.as_chunks::<WIDTH>().0) {
        // SAFETY: 32 bytes that may be read are behind the reference; the load needs no alignment.
        *lanes = unsafe { _mm256_loadu_si256(states.as_ptr().cast()) };
    }
    lanes
}

#[target_feature(enable = "avx2")]
fn store_states(states: &mut States, lanes: [__m256i; REGISTERS]) {
    for (lanes, states) in lanes.iter().zip(states.as_chunks_mut::<WIDTH>().0) {
        // SAFETY: 32 bytes that may be written are behind the reference; the store needs no alignment.
        unsafe { _mm256_storeu_si256(states.as_mut_ptr().cast(), *lanes) };
    }
}

/// Stores a byte of each lane.
#[target_feature(enable = "avx2")]
fn store_bytes(group: &mut Group, lanes: [__m256i; REGISTERS]) {
    let [a, b, c, d] = lanes;
    // Packing works on halves of registers: fours of lanes come out as 0, 2, 4, 6, 1, 3, 5, 7.
    let packed = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
    let sorted = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    // SAFETY: 32 bytes that may be written are behind the reference; the store needs no alignment.
    unsafe { _mm256_storeu_si256(group.as_mut_ptr().cast(), sorted) };
}
