//! Bytes come back, and what is no code is refused.

use super::encoder::{encode, lengths};
use super::{LEN_MAX, Scratch, TABLE_LEN, decode};
use crate::codec::sink::{Full, Sink};

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
