//! A store of two models, one of which is stored as the difference from the other.

use core_view::DType;
use core_view::safetensors::HeaderBuilder;
use tier_nvme::StorageConfig;
use tier_nvme::sim::SimVolume;
use weightstore::{Codec, ImportOptions, NativeConfig, NativeStore, SourceFile};

/// Calls of a target after which it takes a new store: a simulated volume is memory.
pub const CALLS_MAX: u32 = 300;

pub fn store(seed: u64) -> NativeStore {
    let storage = StorageConfig::default().with_segment_bytes(16 << 20);
    let config = NativeConfig::default()
        .with_storage(storage)
        .with_codec(Codec::Auto)
        .with_threads(1);
    NativeStore::on_volume(SimVolume::new(seed).handle(), config).unwrap()
}

/// With the models `base` and `tune`: a small tensor, and one of two chunks.
pub fn family() -> NativeStore {
    let store = store(1);
    let numbers = (0..600_000_u32).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 8) as f32);
    let base: Vec<f32> = numbers.map(|x| (x * 1e-7).sin() * 0.02).collect();
    let tune: Vec<f32> = base.iter().map(|x| x * 1.0001).collect();
    for (name, weights) in [("base", &base), ("tune", &tune)] {
        let header = HeaderBuilder::new()
            .tensor("layer", DType::BF16, &[600, 1000])
            .tensor("scale", DType::F32, &[9])
            .build()
            .unwrap();
        let mut file = header.raw().to_vec();
        file.extend(
            weights
                .iter()
                .flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes()),
        );
        file.extend(weights.iter().take(9).flat_map(|x| x.to_le_bytes()));
        let source = SourceFile {
            name: "model.safetensors",
            source: &&file[..],
        };
        store
            .add_model(name, source, &ImportOptions::default())
            .unwrap();
    }
    store
}

/// The bytes with some of them changed, and cut off at a length.
pub fn changed(bytes: &[u8], changes: &[(u32, u8)], len: u32) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, value) in changes {
        if let Some(last) = bytes.len().checked_sub(1) {
            bytes[*at as usize % (last + 1)] = *value;
        }
    }
    bytes.truncate(len as usize);
    bytes
}
