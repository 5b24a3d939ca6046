//! Models that both processes can make from a number.

use core_view::DType;
use core_view::safetensors::HeaderBuilder;

/// A small generator of random numbers: xorshift64*.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self((seed ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xD134_2543_DE82_EF95) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

pub(crate) fn name(number: u64) -> String {
    format!("model-{number}")
}

/// The number of a model of that name.
pub(crate) fn number(name: &str) -> u64 {
    name.strip_prefix("model-").unwrap().parse().unwrap()
}

/// Rows and columns of a tensor that is nearly the same in several models.
const ROWS: u64 = 128;

/// The safetensors file of a model. Most models share a tensor with their neighbours, and have one that is nearly
/// the same as theirs; some are large.
pub(crate) fn file(number: u64) -> Vec<u8> {
    let mut random = Random::new(number);
    let count = 1 + random.below(8);
    let longest = if random.below(8) == 0 {
        300_000
    } else {
        12_000
    };
    let lengths: Vec<u64> = (0..count).map(|_| random.below(longest)).collect();
    let mut header = HeaderBuilder::new()
        .metadata("number", number.to_string())
        .tensor("shared", DType::U8, &[5000])
        .tensor("family", DType::BF16, &[ROWS, ROWS]);
    for (index, &len) in lengths.iter().enumerate() {
        header = header.tensor(format!("own.{index}"), DType::U8, &[len]);
    }
    let header = header.build().unwrap();
    let mut bytes = header.raw().to_vec();
    append(&mut bytes, number / 6, 5000);
    append_weights(&mut bytes, number / 12, number);
    for (index, &len) in (1_u64..).zip(&lengths) {
        append(&mut bytes, (number << 8) + index, len);
    }
    bytes
}

fn append(bytes: &mut Vec<u8>, seed: u64, len: u64) {
    let mut random = Random::new(seed);
    bytes.extend((0..len).map(|_| (random.next() >> 32) as u8));
}

/// Weights of a family, changed a little for each member.
fn append_weights(bytes: &mut Vec<u8>, family: u64, member: u64) {
    let (mut base, mut change) = (Random::new(family), Random::new(!member));
    let small = |random: &mut Random| (random.below(1 << 16) as f32 / 32768.0 - 1.0) * 0.02;
    for _ in 0..ROWS * ROWS {
        let weight = small(&mut base) + 0.002 * small(&mut change);
        bytes.extend_from_slice(&((weight.to_bits() >> 16) as u16).to_le_bytes());
    }
}
