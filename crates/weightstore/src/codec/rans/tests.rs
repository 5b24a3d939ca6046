//! Bytes come back at nearly their entropy, by both kinds of steps, and what no encoder wrote is refused.

use super::*;

/// Numbers that are the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// Bytes whose likelihood falls with their value, the faster the larger `steepness`.
fn falling(len: usize, steepness: u32, seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    let byte = |bits: u64| match steepness {
        0 => bits as u8,
        _ => (bits.leading_zeros() * 8 / steepness + (bits as u32 & 1)) as u8,
    };
    (0..len).map(|_| byte(numbers.next())).collect()
}

/// All bytes but a few are the same.
fn nearly_constant(len: usize, gap: u64, seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    let byte = |number: u64| match number % gap {
        0 => (number >> 32) as u8,
        _ => 7,
    };
    (0..len).map(|_| byte(numbers.next())).collect()
}

fn sources() -> Vec<Vec<u8>> {
    let mut sources = Vec::new();
    for len in [2, 3, 8, 31, 32, 33, 63, 64, 65, 100, 1000, 4096, 70_001] {
        for steepness in [0, 1, 4, 20] {
            sources.push(falling(len, steepness, len as u64));
        }
        for gap in [2, 50, 3000] {
            sources.push(nearly_constant(len, gap, len as u64));
        }
    }
    for source in &mut sources {
        source[0] = 255;
        source[1] = 0;
    }
    sources
}

fn encoded(source: &[u8]) -> Vec<u8> {
    let mut room = vec![0; 2 * source.len() + 1000];
    let mut sink = Sink::new(&mut room);
    encode(source, &mut Scratch::default(), &mut sink).unwrap();
    let len = sink.len();
    room.truncate(len);
    room
}

#[test]
fn bytes_come_back() {
    let mut scratch = Scratch::default();
    for source in sources() {
        let payload = encoded(&source);
        let mut target = vec![0xEE; source.len()];
        decode(&payload, &mut scratch, &mut target).unwrap();
        assert!(target == source);
    }
}

#[test]
fn they_take_little_more_than_their_entropy() {
    for (source, most) in [
        (falling(1 << 17, 4, 1), 0.015),
        (falling(1 << 17, 1, 1), 0.02),
        (nearly_constant(1 << 17, 50, 1), 0.06),
        (nearly_constant(1 << 17, 3000, 1), 0.03),
    ] {
        let mut counts = [0_u32; 256];
        for byte in &source {
            counts[usize::from(*byte)] += 1;
        }
        let len = source.len() as f64;
        let entropy: f64 = (counts.iter().filter(|count| **count > 0))
            .map(|count| f64::from(*count) / len * (len / f64::from(*count)).log2())
            .sum();
        let bits = 8.0 * encoded(&source).len() as f64 / len;
        assert!(bits < entropy + most, "{bits} for {entropy}");
    }
}

/// Decodes groups, and says how many and by how many words.
type Step<'a> = &'a dyn Fn(&mut States, &mut [Group]) -> (usize, usize);

/// States and words after encoding whole groups.
type Written = (States, Vec<Word>);

fn groups_encoded(
    source: &[u8],
    table: &EncodeTable,
    encode: impl Fn(&EncodeTable, &mut States, &[Group], &mut [Word], usize) -> Option<usize>,
) -> Option<Written> {
    let mut states = [STATE_MIN; LANES];
    let mut words = vec![[0; 2]; source.len() + SLACK];
    let end = words.len();
    let start = encode(table, &mut states, source.as_chunks().0, &mut words, end)?;
    Some((states, words.split_off(start)))
}

#[cfg(target_arch = "x86_64")]
#[test]
fn vector_code_does_what_the_portable_code_does() {
    for source in sources() {
        let frequencies = Frequencies::of(&source).unwrap();
        let table = frequencies.encode_table();
        let portable = groups_encoded(&source, &table, |table, states, groups, words, end| {
            Some(portable::encode(table, states, groups, words, end))
        });
        let vector = groups_encoded(&source, &table, avx2::encode);
        let (Some((states, words)), Some(vector)) = (portable, vector) else {
            return;
        };
        assert!((states, &words) == (vector.0, &vector.1));

        let mut memory = Vec::new();
        let table = frequencies.decode_table(&mut memory).unwrap();
        let decoded = |decode: Step<'_>| {
            let mut states = states;
            let mut groups = vec![[0; LANES]; source.len() / LANES];
            let progress = decode(&mut states, &mut groups);
            (progress, states, groups)
        };
        let portable = decoded(&|states, groups| portable::decode(table, states, &words, groups));
        let vector =
            decoded(&|states, groups| avx2::decode(table, states, &words, groups).unwrap());
        assert!(portable == vector);
    }
}

/// Whatever the states and the words are.
#[cfg(target_arch = "x86_64")]
#[test]
fn vector_code_reads_hostile_words_as_the_portable_code_does() {
    let mut numbers = Numbers(3);
    for steepness in [0, 1, 4, 20] {
        let mut source = falling(5000, steepness, 1);
        source[0] = 255;
        source[1] = 0;
        let mut memory = Vec::new();
        let frequencies = Frequencies::of(&source).unwrap();
        let table = frequencies.decode_table(&mut memory).unwrap();
        for len in [0, 31, 32, 1000] {
            let mut states = [0; LANES];
            for state in &mut states {
                *state = (numbers.next() as u32 >> 1).max(STATE_MIN);
            }
            let words: Vec<Word> = (0..len)
                .map(|_| (numbers.next() as u16).to_le_bytes())
                .collect();
            let (mut others, mut groups) = (states, vec![[0; LANES]; 200]);
            let mut other_groups = groups.clone();
            let done = portable::decode(table, &mut states, &words, &mut groups);
            let Some(other) = avx2::decode(table, &mut others, &words, &mut other_groups) else {
                return;
            };
            assert!(done == other && states == others && groups == other_groups);
            let valid = STATE_MIN..STATE_MIN << WORD_BITS;
            assert!(states.iter().all(|state| valid.contains(state)));
        }
    }
}

#[test]
fn what_no_encoder_wrote_is_refused() {
    let source = falling(5000, 4, 1);
    let payload = encoded(&source);
    let mut scratch = Scratch::default();
    let mut target = vec![0; source.len()];
    for cut in (0..payload.len()).rev().step_by(7) {
        assert!(
            decode(&payload[..cut], &mut scratch, &mut target).is_err(),
            "{cut}"
        );
    }
    for len in [0, 1, 32, 4990, 4999, 5001, 6000] {
        assert!(
            decode(&payload, &mut scratch, &mut vec![0; len]).is_err(),
            "{len}"
        );
    }
    let mut longer = payload.clone();
    longer.push(0);
    assert!(decode(&longer, &mut scratch, &mut target).is_err());
    longer.push(0);
    assert!(decode(&longer, &mut scratch, &mut target).is_err());
    // A lane that starts below or beyond the range of states.
    let states_at = payload.len() - 4 * LANES - words_len(&payload);
    for state in [0, STATE_MIN - 1, STATE_MIN << WORD_BITS, u32::MAX] {
        let mut hostile = payload.clone();
        hostile[states_at..states_at + 4].copy_from_slice(&state.to_le_bytes());
        assert!(decode(&hostile, &mut scratch, &mut target).is_err());
    }
    // Nearly any change of a word or a state leads elsewhere than to the first state.
    for at in states_at..payload.len() {
        let mut hostile = payload.clone();
        hostile[at] ^= 0x10;
        assert!(decode(&hostile, &mut scratch, &mut target).is_err() || target != source);
    }
    assert_eq!(
        encode(&[5; 100], &mut scratch, &mut Sink::new(&mut [0; 1000])),
        Err(Full)
    );
    assert_eq!(
        encode(&source, &mut scratch, &mut Sink::new(&mut [0; 1000])),
        Err(Full)
    );
}

fn words_len(payload: &[u8]) -> usize {
    let mut reader = Reader::new(payload);
    Frequencies::read(&mut reader).unwrap();
    reader.len() - 4 * LANES
}

/// Counts of a sample must not leave out what the sample did not meet.
#[test]
fn bytes_that_are_nowhere_else_come_back() {
    let mut source = falling(1 << 17, 4, 1);
    for (at, byte) in [(5000, 200), (100_000, 90), (131_071, 91), (70_000, 255)] {
        source[at] = byte;
        let payload = encoded(&source);
        let mut target = vec![0; source.len()];
        decode(&payload, &mut Scratch::default(), &mut target).unwrap();
        assert!(target == source, "{byte} at {at}");
    }
}
