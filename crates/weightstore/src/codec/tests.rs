//! Any bytes of any type come back; hostile encodings are errors.

use core_view::DType;
use proptest::prelude::*;

use super::sink::Sink;
use super::{Codec, form, planes, stream};
use crate::{ChunkEncoding, Difference, WeightError, decode_delta, encode_delta};

/// A generator of numbers that is the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// About normal: the sum of some uniform numbers.
    fn normal(&mut self) -> f32 {
        let sum: u64 = (0..12).map(|_| self.next() >> 40).sum();
        (sum as f32 / (1 << 24) as f32 - 6.0) * 0.02
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Random,
    Constant,
    Normal,
    NormalAsF32,
    Sparse,
    Extremes,
    Counting,
    Runs,
    Text,
}

const KINDS: [Kind; 9] = [
    Kind::Random,
    Kind::Constant,
    Kind::Normal,
    Kind::NormalAsF32,
    Kind::Sparse,
    Kind::Extremes,
    Kind::Counting,
    Kind::Runs,
    Kind::Text,
];

/// Zeros, subnormals, the largest numbers, infinities and NaNs with payloads, of 16 bits.
const EXTREMES: [u16; 12] = [
    0, 0x8000, 1, 0x8001, 0x03FF, 0x7BFF, 0x7C00, 0xFC00, 0x7E01, 0xFFFF, 0x7F80, 0x7FC1,
];

fn bytes(kind: Kind, len: usize, seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        match kind {
            Kind::Random => bytes.extend(numbers.next().to_le_bytes()),
            Kind::Constant => bytes.extend([seed as u8; 8]),
            Kind::Normal => {
                let bits = numbers.normal().to_bits();
                bytes.extend(((bits >> 16) as u16).to_le_bytes());
            }
            Kind::NormalAsF32 => bytes.extend(numbers.normal().to_le_bytes()),
            Kind::Sparse => match numbers.next() % 20 {
                0 => bytes.extend(numbers.normal().to_le_bytes()),
                _ => bytes.extend([0; 4]),
            },
            Kind::Extremes => {
                let bits = EXTREMES[(numbers.next() % 12) as usize];
                bytes.extend(bits.to_le_bytes());
            }
            Kind::Counting => bytes.extend((bytes.len() as u64 / 8).to_le_bytes()),
            Kind::Runs => {
                let (byte, len) = (numbers.next() as u8, numbers.next() % 700);
                bytes.extend((0..len).map(|_| byte));
            }
            Kind::Text => bytes.extend(b"the planes of a tensor, "),
        }
    }
    bytes.truncate(len);
    bytes
}

const CODECS: [Codec; 4] = [
    Codec::Gzip { level: 1 },
    Codec::Gzip { level: 9 },
    Codec::Lz4,
    Codec::Auto,
];

fn assert_round_trip(codec: Codec, dtype: DType, chunk: &[u8]) {
    let Some((encoding, encoded)) = ChunkEncoding::encode(codec, dtype, chunk) else {
        return;
    };
    assert!(encoded.len() + chunk.len().div_ceil(16) <= chunk.len());
    let mut decoded = vec![0xEE; chunk.len()];
    encoding.decode(&encoded, &mut decoded).unwrap();
    assert!(decoded == chunk, "{codec} of {dtype}");
    let (from, to) = (chunk.len() / 3, chunk.len() - chunk.len() / 5);
    let mut part = vec![0xEE; to - from];
    encoding
        .decode_range(&encoded, chunk.len(), from, &mut part)
        .unwrap();
    assert!(part == chunk[from..to], "a range by {codec} of {dtype}");
}

#[test]
fn every_type_of_every_kind_of_content_comes_back() {
    for kind in KINDS {
        for len in [1, 2, 3, 7, 8, 9, 63, 1000, 4097, 70_001, 300_003] {
            let chunk = bytes(kind, len, len as u64);
            if len > 5000 {
                for dtype in [DType::F32, DType::F16, DType::F64, DType::I8, DType::F8E4M3] {
                    assert_round_trip(Codec::Auto, dtype, &chunk);
                }
                continue;
            }
            for codec in CODECS {
                for dtype in DType::all() {
                    assert_round_trip(codec, dtype, &chunk);
                }
            }
        }
    }
}

#[test]
fn a_whole_chunk_comes_back_and_so_does_each_part() {
    let chunk = bytes(Kind::Normal, 1 << 20, 5);
    let encoded = ChunkEncoding::encode(Codec::Auto, DType::BF16, &chunk);
    let (encoding, encoded) = encoded.unwrap();
    let share = encoded.len() as f64 / chunk.len() as f64;
    assert!(share < 0.665, "{share}");
    let mut numbers = Numbers(3);
    for _ in 0..100 {
        let from = numbers.next() as usize % chunk.len();
        let len = numbers.next() as usize % (chunk.len() - from).min(5000);
        let mut part = vec![0; len];
        encoding
            .decode_range(&encoded, chunk.len(), from, &mut part)
            .unwrap();
        assert!(part == chunk[from..from + len]);
    }
    let beyond = encoding.decode_range(&encoded, chunk.len(), 1 << 20, &mut [0]);
    assert!(matches!(beyond, Err(WeightError::OutOfRange { .. })));
}

#[test]
fn each_kind_takes_its_share() {
    /// 1 MiB of content, its type, and the share that it takes at most.
    fn share(kind: Kind, dtype: DType) -> f64 {
        let chunk = bytes(kind, 1 << 20, 9);
        ChunkEncoding::encode(Codec::Auto, dtype, &chunk).map_or(1.0, |(_, encoded)| {
            encoded.len() as f64 / chunk.len() as f64
        })
    }
    assert!(share(Kind::Constant, DType::F32) < 0.0002);
    assert!(share(Kind::Sparse, DType::F32) < 0.085);
    assert!(share(Kind::NormalAsF32, DType::F32) < 0.835);
    if cfg!(feature = "zstd") {
        assert!(share(Kind::Counting, DType::I64) < 0.02);
        assert!(share(Kind::Text, DType::U8) < 0.02);
    }
    // Single precision that came from bfloat16: two planes carry a sign and nothing else.
    let wide: Vec<u8> = bytes(Kind::Normal, 1 << 19, 9)
        .chunks(2)
        .flat_map(|half| [0, 0, half[0], half[1]])
        .collect();
    let (_, encoded) = ChunkEncoding::encode(Codec::Auto, DType::F32, &wide).unwrap();
    assert!(encoded.len() * 3 <= wide.len() + 8192, "{}", encoded.len());
}

fn assert_delta(base: &[u8], target: &[u8], dtype: DType) -> usize {
    let delta = encode_delta(base, target, dtype).unwrap();
    assert!(delta.len() <= target.len() + target.len() / 1000 + 64);
    let mut decoded = vec![0xEE; target.len()];
    decode_delta(base, &delta, &mut decoded).unwrap();
    assert!(decoded == target, "{dtype}");
    let difference = Difference::parse(&delta).unwrap();
    let (from, to) = (target.len() / 3, target.len() - target.len() / 5);
    let mut part = vec![0xEE; to - from];
    difference
        .decode_range(base, from as u64, &mut part)
        .unwrap();
    assert!(part == target[from..to], "a range of {dtype}");
    delta.len()
}

#[test]
fn differences_of_any_content_come_back() {
    for (place, kind) in KINDS.into_iter().enumerate() {
        for other in [kind, KINDS[(place + 3) % 9]] {
            for (len, base_len) in [(0, 0), (1, 1), (9, 4), (5000, 5001)] {
                let target = bytes(kind, len, 1);
                let base = bytes(other, base_len, 2);
                for dtype in DType::all() {
                    assert_delta(&base, &target, dtype);
                }
            }
            let (target, base) = (bytes(kind, 300_001, 1), bytes(other, 290_000, 2));
            for dtype in [DType::F32, DType::BF16] {
                assert_delta(&base, &target, dtype);
            }
        }
    }
    let long = bytes(Kind::Normal, 2_500_001, 1);
    for base in [&long[..], &long[..1_200_000], &[]] {
        assert_delta(base, &long, DType::BF16);
    }
}

#[test]
fn a_fine_tune_takes_a_share_of_its_base() {
    let mut numbers = Numbers(7);
    let weights: Vec<f32> = (0..1 << 19).map(|_| numbers.normal()).collect();
    let tuned = |weight: &f32, change: f32| weight + change * 1e-3;
    let pairs: Vec<(f32, f32)> = weights
        .iter()
        .map(|weight| (*weight, tuned(weight, numbers.normal())))
        .collect();
    // Rounded to nearest: what is cut off would look like a change.
    let half = |x: f32| ((x.to_bits() + 0x7FFF + (x.to_bits() >> 16 & 1)) >> 16) as u16;
    let base: Vec<u8> = pairs
        .iter()
        .flat_map(|pair| half(pair.0).to_le_bytes())
        .collect();
    let target: Vec<u8> = pairs
        .iter()
        .flat_map(|pair| half(pair.1).to_le_bytes())
        .collect();
    let share = assert_delta(&base, &target, DType::BF16) as f64 / target.len() as f64;
    assert!(share <= 0.12, "{share}");
    assert!(
        assert_delta(&target, &target, DType::BF16) < 300,
        "no change"
    );
}

#[test]
fn a_difference_knows_its_base_and_its_claims_are_checked() {
    let base = bytes(Kind::Normal, 5000, 1);
    let delta = encode_delta(&base, &base, DType::BF16).unwrap();
    let mut target = vec![0; 5000];
    let mut other = base.clone();
    other[4000] ^= 1;
    assert!(decode_delta(&other, &delta, &mut target).is_err());
    assert!(decode_delta(&base[1..], &delta, &mut target).is_err());
    assert!(decode_delta(&base, &delta, &mut target[1..]).is_err());
    // A terabyte is refused before there is memory for its chunks.
    let mut claims = delta.clone();
    claims[16..24].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    assert!(Difference::parse(&claims).is_err());
    claims[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(Difference::parse(&claims).is_err());
    let mut newer = delta;
    newer[4] = 2;
    assert!(matches!(
        Difference::parse(&newer),
        Err(WeightError::Newer { .. })
    ));
}

#[test]
fn lengths_that_claim_much_are_refused() {
    let chunk = bytes(Kind::Sparse, 40_000, 1);
    let (encoding, encoded) = ChunkEncoding::encode(Codec::Auto, DType::F32, &chunk).unwrap();
    let mut target = vec![0; chunk.len()];
    // Every aligned and unaligned length in the headers of chunk, block and first streams.
    for at in 0..200 {
        for claim in [u32::MAX, 1 << 31, 1 << 20, 0] {
            let mut hostile = encoded.clone();
            hostile[at..at + 4].copy_from_slice(&claim.to_le_bytes());
            let _ = encoding.decode(&hostile, &mut target);
        }
    }
    let mut long_blocks = encoded.clone();
    long_blocks[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(encoding.decode(&long_blocks, &mut target).is_err());
    let mut newer = encoded;
    newer[2] += 1;
    let outcome = encoding.decode(&newer, &mut target);
    assert!(matches!(outcome, Err(WeightError::Newer { .. })));
}

/// A chunk of planes as the version before streams of kind rANS wrote it.
fn earlier(width: usize, form: form::Form, chunk: &[u8]) -> Vec<u8> {
    let mut room = vec![0; 2 * chunk.len() + 4096];
    let mut sink = Sink::new(&mut room);
    sink.put(&[width as u8, form.id(), 0, 0]).unwrap();
    sink.put_u32(1 << 18).unwrap();
    let starts: Vec<usize> = (0..chunk.len()).step_by(1 << 18).collect();
    for _ in &starts {
        sink.put_u32(0).unwrap();
    }
    for (index, block) in chunk.chunks(1 << 18).enumerate() {
        let start = sink.len();
        let (elements, tail) = block.split_at(block.len() / width * width);
        let mut values = vec![0; elements.len()];
        form::apply(form, width, elements, &[], &mut values);
        let mut split = vec![0; values.len()];
        planes::split(width, &values, &mut split);
        sink.put(&[2, 0, 0, 0]).unwrap();
        for (place, plane) in split.chunks((elements.len() / width).max(1)).enumerate() {
            match place + 1 == width {
                true => stream::earlier::encode_pairs(plane, 122, place as u32 % 5, &mut sink),
                false => stream::earlier::encode_codes(plane, &mut sink),
            }
            .unwrap();
        }
        sink.put(tail).unwrap();
        let len = sink.len() - start;
        sink.patch_u32(8 + 4 * index, len).unwrap();
    }
    let len = sink.len();
    room.truncate(len);
    room
}

#[test]
fn what_earlier_versions_wrote_comes_back() {
    for kind in KINDS {
        for (width, form) in [
            (1, form::Form::AsIs),
            (2, form::Form::Rotated),
            (4, form::Form::Rotated),
            (8, form::Form::ZigZag),
        ] {
            for len in [width, 1000, 300_003] {
                let chunk = bytes(kind, len, 3);
                let encoded = earlier(width, form, &chunk);
                let mut decoded = vec![0; len];
                let outcome = ChunkEncoding::Planes.decode(&encoded, &mut decoded);
                assert!(outcome.is_ok(), "{kind:?} {width} {len}: {outcome:?}");
                assert!(decoded == chunk);
                for at in (0..encoded.len()).step_by(encoded.len().div_ceil(200)) {
                    let mut hostile = encoded.clone();
                    hostile[at] ^= 0x55;
                    let _ = ChunkEncoding::Planes.decode(&hostile, &mut decoded);
                }
            }
        }
    }
}

#[test]
fn cut_and_changed_encodings_are_errors_or_other_bytes() {
    for kind in KINDS {
        let chunk = bytes(kind, 3001, 4);
        for dtype in [DType::F32, DType::BF16, DType::F8E4M3, DType::I64] {
            let Some((encoding, encoded)) = ChunkEncoding::encode(Codec::Auto, dtype, &chunk)
            else {
                continue;
            };
            let mut target = vec![0; chunk.len()];
            for len in (0..encoded.len()).step_by(encoded.len().div_ceil(300)) {
                assert!(encoding.decode(&encoded[..len], &mut target).is_err());
            }
            for bit in (0..8 * encoded.len()).step_by(encoded.len().div_ceil(100)) {
                let mut hostile = encoded.clone();
                hostile[bit / 8] ^= 1 << (bit % 8);
                let _ = encoding.decode(&hostile, &mut target);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn patterns_come_back(
        pattern in proptest::collection::vec(any::<u8>(), 1..64),
        len in 1_usize..20_000,
        dtype in 0_usize..22,
    ) {
        let chunk: Vec<u8> = pattern.iter().copied().cycle().take(len).collect();
        let dtype = DType::all().nth(dtype).unwrap();
        for codec in CODECS {
            assert_round_trip(codec, dtype, &chunk);
        }
        let base: Vec<u8> = chunk.iter().map(|byte| byte.rotate_left(3)).collect();
        assert_delta(&base, &chunk, dtype);
    }

    #[test]
    fn hostile_bytes_are_an_error_at_most(
        encoded in proptest::collection::vec(any::<u8>(), 0..300),
        len in 0_usize..2000,
    ) {
        for id in 0..4 {
            let encoding = ChunkEncoding::from_id(id).unwrap();
            let _ = encoding.decode(&encoded, &mut vec![0; len]);
        }
        let _ = decode_delta(&[], &encoded, &mut vec![0; len]);
    }

    /// Bytes that look like an encoding go deeper than random ones.
    #[test]
    fn plausible_bytes_are_an_error_at_most(
        width in 0_u32..4,
        form in 0_u8..6,
        kind in 0_u8..5,
        streams in proptest::collection::vec((0_u8..7, proptest::collection::vec(any::<u8>(), 0..200)), 0..9),
        len in 1_usize..2000,
    ) {
        let mut block = vec![kind, 0, 0, 0];
        for (kind, payload) in streams {
            block.extend([kind, 0, 0, 0]);
            block.extend((payload.len() as u32).to_le_bytes());
            block.extend(payload);
        }
        let mut encoded = vec![1 << width, form, 0, 0];
        encoded.extend((1_u32 << 18).to_le_bytes());
        encoded.extend((block.len() as u32).to_le_bytes());
        encoded.extend(block);
        let _ = ChunkEncoding::Planes.decode(&encoded, &mut vec![0; len]);
    }
}
