//! Models and weights that the seed chooses: members of a few families, and strangers.

use core_view::DType;
use core_view::safetensors::HeaderBuilder;
use tier_nvme::sim::Random;
use weightstore::WeightTensor;

/// Elements of a row.
const COLUMNS: u64 = 128;
/// Elements of a matrix of a family: the least that is sketched.
const MATRIX_LEN: usize = 16 << 10;

#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    dtype: DType,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

impl Tensor {
    /// A tensor of any kind: most are of a family, some are small, few are long.
    pub(crate) fn any(random: &mut Random) -> Self {
        match random.below(16) {
            0 => Self::of_bytes(random.next_u64(), 0),
            1..=3 => Self::of_bytes(random.below(6), 100 + random.below(4000) as usize),
            4 | 5 => Self::of_bytes(random.below(6), (1 << 20) + 5),
            _ => Self::of_family(random),
        }
    }

    /// A member of one of three families, with some rows more in places.
    pub(crate) fn of_family(random: &mut Random) -> Self {
        let family = random.below(3);
        let version = random.below(6);
        let rows_more = [0, 0, 0, 5][random.below(4) as usize];
        let count = MATRIX_LEN + rows_more * COLUMNS as usize;
        let mut base = Random::new(family + 1);
        let mut change = Random::new(1000 * family + version);
        let bytes = (0..count).flat_map(|_| {
            let weight = small(&mut base) + 0.002 * small(&mut change) * version.min(1) as f32;
            ((weight.to_bits() >> 16) as u16).to_le_bytes()
        });
        Self {
            dtype: DType::BF16,
            shape: vec![count as u64 / COLUMNS, COLUMNS],
            bytes: bytes.collect(),
        }
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

/// The safetensors file of a model with some tensors.
pub(crate) fn model(random: &mut Random) -> Vec<u8> {
    let count = 1 + random.below(3);
    let tensors: Vec<Tensor> = (0..count).map(|_| Tensor::any(random)).collect();
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
