//! Files and stores for the tests.

use core_view::DType;
use core_view::safetensors::HeaderBuilder;
use tier_nvme::StorageConfig;
use tier_nvme::sim::SimVolume;
use weightstore::{
    ExportOptions, ImportOptions, ImportReport, NativeConfig, NativeStore, SourceFile, WeightError,
};

/// Bytes that differ by seed and do not compress.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Bytes that compress.
pub(crate) fn plain(seed: u64, len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i / 64) as u64 ^ seed) as u8).collect()
}

/// A tensor of a test file.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
}

/// A one-dimensional tensor of bytes.
pub(crate) fn bytes(name: &str, bytes: Vec<u8>) -> Tensor {
    Tensor {
        name: name.into(),
        dtype: DType::U8,
        shape: vec![bytes.len() as u64],
        bytes,
    }
}

/// A safetensors file with these tensors.
pub(crate) fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let builder = HeaderBuilder::new().metadata("format", "pt");
    let builder = tensors.iter().fold(builder, |builder, tensor| {
        builder.tensor(&tensor.name, tensor.dtype, &tensor.shape)
    });
    let mut file = builder.build().unwrap().raw().to_vec();
    for tensor in tensors {
        file.extend_from_slice(&tensor.bytes);
    }
    file
}

/// A file of every kind of tensor: each type, none, one and several chunks, scalars.
pub(crate) fn varied(seed: u64) -> Vec<u8> {
    let mut tensors = Vec::new();
    for (i, dtype) in DType::all().enumerate() {
        let shape = vec![3, 8];
        let len = dtype.len_bytes(24).unwrap();
        tensors.push(Tensor {
            name: format!("layer.{i}.weight"),
            dtype,
            shape,
            bytes: noise(seed * 1000 + i as u64, len),
        });
    }
    for (name, shape) in [
        ("scalar", vec![]),
        ("empty", vec![0, 7]),
        ("deep", vec![1; 12]),
    ] {
        let elements: u64 = shape.iter().product();
        tensors.push(Tensor {
            name: name.into(),
            dtype: DType::F32,
            shape,
            bytes: noise(seed + 77, 4 * elements as usize),
        });
    }
    tensors.push(bytes("chunk", noise(seed, 1 << 20)));
    tensors.push(bytes("more", plain(seed, (3 << 20) + 17)));
    tensors.push(bytes(
        "mixed",
        [noise(seed + 1, 1 << 20), plain(seed, 1 << 20)].concat(),
    ));
    safetensors(&tensors)
}

/// A configuration for the simulated volume, which keeps all its files in memory.
pub(crate) fn config() -> NativeConfig {
    let storage = StorageConfig::default().with_segment_bytes(16 << 20);
    NativeConfig::default()
        .with_storage(storage)
        .with_batch_bytes(8 << 20)
        .with_threads(2)
}

/// A store on a fresh simulated volume.
pub(crate) fn store() -> (SimVolume, NativeStore) {
    let volume = SimVolume::new(1);
    let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
    (volume, store)
}

pub(crate) fn add(
    store: &NativeStore,
    name: &str,
    file: &[u8],
) -> Result<ImportReport, WeightError> {
    add_with(store, name, file, &ImportOptions::default())
}

pub(crate) fn add_with(
    store: &NativeStore,
    name: &str,
    file: &[u8],
    options: &ImportOptions<'_>,
) -> Result<ImportReport, WeightError> {
    let file = SourceFile {
        name: "model.safetensors",
        source: &file,
    };
    store.add_model(name, file, options)
}

pub(crate) fn get(store: &NativeStore, name: &str) -> Result<Vec<u8>, WeightError> {
    let mut restored = Vec::new();
    store.export_model(name, &mut restored, &ExportOptions::default())?;
    Ok(restored)
}

/// Numbers as trained weights have them: small, of either sign, more of them near zero.
pub(crate) fn weights(seed: u64, count: usize) -> Vec<f32> {
    let sums = noise(seed, 8 * count);
    let sums = sums.as_chunks::<2>().0.chunks(4);
    let number = |bytes: &[u8; 2]| f32::from(i16::from_le_bytes(*bytes)) / 32768.0;
    sums.map(|four| four.iter().map(number).sum::<f32>() * 0.02)
        .collect()
}

/// All numbers changed a little, as by further training.
pub(crate) fn tuned(weights: &[f32], relative: f32, seed: u64) -> Vec<f32> {
    let changes = self::weights(seed ^ 0xf1e7, weights.len());
    let pairs = weights.iter().zip(changes);
    pairs
        .map(|(weight, change)| weight + relative * change)
        .collect()
}

/// A tensor of half-precision brain floats.
pub(crate) fn bf16(name: &str, columns: u64, weights: &[f32]) -> Tensor {
    let rounded = |weight: &f32| ((weight.to_bits() + 0x8000) >> 16) as u16;
    Tensor {
        name: name.into(),
        dtype: DType::BF16,
        shape: vec![weights.len() as u64 / columns, columns],
        bytes: weights
            .iter()
            .flat_map(|weight| rounded(weight).to_le_bytes())
            .collect(),
    }
}
