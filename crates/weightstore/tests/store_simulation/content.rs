//! Models, weights and deltas that the seed chooses: members of a few families, and strangers.

use std::cell::RefCell;
use std::collections::BTreeMap;

use core_view::DType;
use core_view::safetensors::HeaderBuilder;
use tier_nvme::sim::Random;
use weightstore::{Delta, DeltaKind, WeightTensor};

/// Elements of a row.
const COLUMNS: u64 = 128;
/// Bytes of a tensor of two chunks.
pub(crate) const LONG_LEN: usize = (1 << 20) + 5;
/// Elements of a matrix of the first families: the least that is sketched.
const MATRIX_LEN: u64 = 16 << 10;
/// Elements of those of the others, whose bases have to be named.
const SHORT_LEN: u64 = 2 << 10;
/// Families of each kind.
const FAMILIES: u64 = 3;

thread_local! {
    /// The members that were made: they are the same in every seed.
    static MEMBERS: RefCell<BTreeMap<Member, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Which member of which family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Member {
    family: u64,
    version: u64,
    rows_more: u64,
}

impl Member {
    fn count(self) -> u64 {
        let len = match self.family < FAMILIES {
            true => MATRIX_LEN,
            false => SHORT_LEN,
        };
        len + self.rows_more * COLUMNS
    }

    fn bytes(self) -> Vec<u8> {
        let mut base = Random::new(self.family + 1);
        let mut change = Random::new(1000 * self.family + self.version);
        let changed = self.version.min(1) as f32;
        let bytes = (0..self.count()).flat_map(|_| {
            let weight = small(&mut base) + 0.002 * small(&mut change) * changed;
            ((weight.to_bits() >> 16) as u16).to_le_bytes()
        });
        bytes.collect()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    dtype: DType,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

impl Tensor {
    /// A tensor of any kind: most are of a family, some are small, some fill a batch. Few are of more than one chunk:
    /// they cost more than all others.
    pub(crate) fn any(random: &mut Random) -> Self {
        match random.below(256) {
            0 => Self::mostly_zero(random.below(6), LONG_LEN),
            1..=15 => Self::of_bytes(random.next_u64(), 0),
            16..=70 => Self::of_bytes(random.below(6), 100 + random.below(4000) as usize),
            71..=90 => Self::of_bytes(random.below(6), 30_000 + random.below(60_000) as usize),
            91..=150 => Self::of_family(random),
            _ => Self::member(FAMILIES + random.below(FAMILIES), random),
        }
    }

    /// A member of a family whose members find each other, with some rows more in places.
    pub(crate) fn of_family(random: &mut Random) -> Self {
        Self::member(random.below(FAMILIES), random)
    }

    fn member(family: u64, random: &mut Random) -> Self {
        let member = Member {
            family,
            version: random.below(6),
            rows_more: [0, 0, 0, 5][random.below(4) as usize],
        };
        let bytes = MEMBERS.with_borrow_mut(|made| {
            let made = made.entry(member).or_insert_with(|| member.bytes());
            made.clone()
        });
        Self {
            dtype: DType::BF16,
            shape: vec![member.count() / COLUMNS, COLUMNS],
            bytes,
        }
    }

    /// Long, and little once it is encoded.
    fn mostly_zero(seed: u64, len: usize) -> Self {
        let mut tensor = Self::of_bytes(seed, len / 512);
        let noise = std::mem::replace(&mut tensor.bytes, vec![0; len]);
        let places = tensor.bytes.iter_mut().step_by(509);
        places.zip(noise).for_each(|(place, byte)| *place = byte);
        tensor.shape = vec![len as u64];
        tensor
    }

    fn of_bytes(seed: u64, len: usize) -> Self {
        let mut random = Random::new(seed ^ 0xb17e5);
        let mut bytes = vec![0; len];
        for word in bytes.chunks_mut(8) {
            let number = random.next_u64().to_le_bytes();
            word.copy_from_slice(&number[..word.len()]);
        }
        Self {
            dtype: DType::U8,
            shape: vec![len as u64],
            bytes,
        }
    }

    pub(crate) fn weight(&self) -> WeightTensor {
        WeightTensor::new("lone", self.dtype, &self.shape, self.bytes.clone()).unwrap()
    }
}

/// About normal, and small.
fn small(random: &mut Random) -> f32 {
    let bits = random.next_u64();
    let sum: u64 = (0..4).map(|i| bits >> (16 * i) & 0xffff).sum();
    (sum as f32 / 65536.0 - 2.0) * 0.03
}

/// A delta whose reference is a member of a family, there or not.
pub(crate) fn delta(random: &mut Random) -> Delta {
    let reference = Tensor::of_family(random).weight().compute_hash();
    let payload = Tensor::of_bytes(random.below(6), 20 + random.below(6000) as usize).bytes;
    let shape = [payload.len() as u64];
    Delta::new(DeltaKind::Sparse, DType::U8, &shape, reference, payload)
}

/// The safetensors file of a model with some tensors.
pub(crate) fn model(random: &mut Random) -> Vec<u8> {
    // Some take several batches; of those that nobody has had before, all that is in them.
    let (count, is_new) = match random.below(16) {
        0..=1 => (5 + random.below(4), false),
        2 => (4 + random.below(6), true),
        _ => (1 + random.below(3), false),
    };
    let new = |random: &mut Random| {
        let len = 40_000 + random.below(50_000) as usize;
        Tensor::of_bytes(random.next_u64(), len)
    };
    let tensors: Vec<Tensor> = (0..count)
        .map(|_| {
            if is_new {
                new(random)
            } else {
                Tensor::any(random)
            }
        })
        .collect();
    let named = tensors.iter().enumerate();
    let header = named.fold(HeaderBuilder::new(), |header, (index, tensor)| {
        header.tensor(format!("t{index}"), tensor.dtype, &tensor.shape)
    });
    let mut file = header.build().unwrap().raw().to_vec();
    for tensor in &tensors {
        file.extend_from_slice(&tensor.bytes);
    }
    file
}
