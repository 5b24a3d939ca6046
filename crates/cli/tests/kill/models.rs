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

/// The safetensors file of a model. Most models share a tensor with their neighbours; some are large.
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
        .tensor("shared", DType::U8, &[5000]);
    for (index, &len) in lengths.iter().enumerate() {
        header = header.tensor(format!("own.{index}"), DType::U8, &[len]);
    }
    let header = header.build().unwrap();
    let mut bytes = header.raw().to_vec();
    append(&mut bytes, number / 6, 5000);
    for (index, &len) in (1_u64..).zip(&lengths) {
        append(&mut bytes, (number << 8) + index, len);
    }
    bytes
}

fn append(bytes: &mut Vec<u8>, seed: u64, len: u64) {
    let mut random = Random::new(seed);
    bytes.extend((0..len).map(|_| (random.next() >> 32) as u8));
}
