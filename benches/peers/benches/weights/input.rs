//! What is measured: normal numbers, a real model, and what further training makes of both.

use core_view::DType;
use core_view::safetensors::Header;
use half::{bf16, f16};

/// Bytes of one input: enough to be out of the first cache, few enough for many rounds.
const LEN_BYTES: usize = 4 << 20;
const DEVIATIONS: [f64; 3] = [0.01, 0.02, 0.035];

/// Bytes of one type.
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) bytes: Vec<u8>,
}

/// A tensor before and after further training.
pub(crate) struct Pair {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) base: Vec<u8>,
    pub(crate) tuned: Vec<u8>,
}

/// A generator of normal numbers that is the same everywhere.
struct Normal(u64);

impl Normal {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (((mixed ^ (mixed >> 31)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// By the method of Box and Muller.
    fn next(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

fn normal(count: usize, seed: u64) -> Vec<f64> {
    let mut normal = Normal(seed);
    (0..count).map(|_| normal.next()).collect()
}

/// The numbers as elements of a type.
fn cast(dtype: DType, numbers: &[f64]) -> Vec<u8> {
    let numbers = numbers.iter();
    match dtype {
        DType::BF16 => numbers
            .flat_map(|x| bf16::from_f64(*x).to_le_bytes())
            .collect(),
        DType::F16 => numbers
            .flat_map(|x| f16::from_f64(*x).to_le_bytes())
            .collect(),
        _ => numbers.flat_map(|x| (*x as f32).to_le_bytes()).collect(),
    }
}

const TYPES: [DType; 3] = [DType::BF16, DType::F16, DType::F32];

pub(crate) fn synthetic() -> Vec<Input> {
    let numbers = normal(LEN_BYTES / 2, 1);
    let input = |dtype: DType, deviation: f64| {
        let scaled: Vec<f64> = numbers.iter().map(|x| x * deviation).collect();
        let mut bytes = cast(dtype, &scaled);
        bytes.truncate(LEN_BYTES);
        Input {
            name: format!("{dtype}, normal, deviation {deviation}"),
            dtype,
            bytes,
        }
    };
    let of = |dtype| DEVIATIONS.map(|deviation| input(dtype, deviation));
    TYPES.into_iter().flat_map(of).collect()
}

/// The float32 tensors of a model, and their casts.
pub(crate) fn real(path: &str) -> Vec<Input> {
    let file = std::fs::read(path).unwrap();
    let header = Header::read(&mut &file[..], file.len() as u64).unwrap();
    let data = &file[header.data_start() as usize..];
    let floats = header
        .tensors()
        .iter()
        .filter(|tensor| tensor.dtype == DType::F32);
    let numbers: Vec<f64> = floats
        .flat_map(|tensor| {
            data[tensor.start as usize..tensor.end as usize]
                .as_chunks::<4>()
                .0
        })
        .map(|bytes| f64::from(f32::from_le_bytes(*bytes)))
        .collect();
    // From the middle: layers of all kinds, and no embeddings alone.
    let start = numbers.len() / 2;
    let numbers = &numbers[start..numbers.len().min(start + LEN_BYTES)];
    let input = |dtype| Input {
        name: format!("{dtype}, real"),
        dtype,
        bytes: cast(dtype, numbers),
    };
    TYPES.into_iter().map(input).collect()
}

fn numbers_of(input: &Input) -> Vec<f64> {
    match input.dtype {
        DType::BF16 => (input.bytes.as_chunks::<2>().0.iter())
            .map(|x| bf16::from_le_bytes(*x).to_f64())
            .collect(),
        DType::F16 => (input.bytes.as_chunks::<2>().0.iter())
            .map(|x| f16::from_le_bytes(*x).to_f64())
            .collect(),
        _ => (input.bytes.as_chunks::<4>().0.iter())
            .map(|x| f64::from(f32::from_le_bytes(*x)))
            .collect(),
    }
}

pub(crate) fn synthetic_fine_tunes() -> Vec<Pair> {
    let inputs = synthetic();
    let middle = inputs.iter().filter(|input| input.name.ends_with("0.02"));
    middle.flat_map(fine_tunes).collect()
}

pub(crate) fn real_fine_tunes(model: &[Input]) -> Vec<Pair> {
    model.iter().flat_map(fine_tunes).collect()
}

/// What training makes of numbers: little changed everywhere, a product of thin matrices added, a few layers
/// trained on, rows added.
fn fine_tunes(input: &Input) -> Vec<Pair> {
    const COLUMNS: usize = 512;
    const RANK: usize = 8;
    let base = numbers_of(input);
    let squares: f64 = base.iter().map(|x| x * x).sum();
    let size = (squares / base.len() as f64).sqrt();
    let pair = |what: &str, tuned: &[f64]| Pair {
        name: format!("{}, {what}", input.name),
        dtype: input.dtype,
        base: input.bytes.clone(),
        tuned: cast(input.dtype, tuned),
    };
    let noise = normal(base.len(), 2);
    let changed = |x: &f64, noise: &f64, share: f64| x + noise * size * share;
    let dense: Vec<f64> = base
        .iter()
        .zip(&noise)
        .map(|(x, n)| changed(x, n, 1e-3))
        .collect();
    let rows = base.len() / COLUMNS;
    let (left, right) = (normal(rows * RANK, 3), normal(COLUMNS * RANK, 4));
    let merged: Vec<f64> = (base.iter().enumerate())
        .map(|(i, x)| {
            let (row, column) = (i / COLUMNS, i % COLUMNS);
            let product: f64 = (0..RANK)
                .map(|k| left.get(row * RANK + k).unwrap_or(&0.0) * right[column * RANK + k])
                .sum();
            x + product * size * 1e-2 / (RANK as f64).sqrt()
        })
        .collect();
    let some: Vec<f64> = (base.iter().zip(&noise).enumerate())
        .map(|(i, (x, n))| match i / (base.len() / 8) {
            2 | 5 => changed(x, n, 1e-2),
            _ => *x,
        })
        .collect();
    let mut grown = base.clone();
    grown.extend(normal(base.len() / 50, 5).iter().map(|x| x * size));
    vec![
        pair("0.1 % changed", &dense),
        pair("a merge of rank 8", &merged),
        pair("two layers of eight changed by 1 %", &some),
        pair("a fiftieth of rows added", &grown),
    ]
}
