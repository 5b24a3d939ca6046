//! The conformance suite over the back-ends of this crate.
#![cfg(feature = "testing")]

use weightstore::{MemoryStore, testing};

#[test]
fn the_memory_store_conforms() -> Result<(), testing::Nonconformance> {
    testing::check_weight_store(&mut || Ok(Box::new(MemoryStore::new())))
}

#[cfg(feature = "native")]
mod native {
    use tier_nvme::StorageConfig;
    use tier_nvme::sim::SimVolume;
    use weightstore::{Codec, NativeConfig, NativeStore, WeightError, WeightStore, testing};

    fn on_simulation(codec: Codec) -> Result<Box<dyn WeightStore>, WeightError> {
        let storage = StorageConfig::default().with_segment_bytes(8 << 20);
        let config = NativeConfig::default()
            .with_storage(storage)
            .with_codec(codec);
        let store = NativeStore::on_volume(SimVolume::new(7).handle(), config)?;
        Ok(Box::new(store))
    }

    #[test]
    fn the_native_store_conforms_on_the_simulated_volume() -> Result<(), testing::Nonconformance> {
        testing::check_weight_store(&mut || on_simulation(Codec::None))
    }

    #[test]
    fn the_native_store_conforms_with_the_automatic_codec() -> Result<(), testing::Nonconformance> {
        testing::check_weight_store(&mut || on_simulation(Codec::Auto))
    }

    #[cfg(feature = "lz4")]
    #[test]
    fn the_native_store_conforms_with_lz4() -> Result<(), testing::Nonconformance> {
        testing::check_weight_store(&mut || on_simulation(Codec::Lz4))
    }

    #[cfg(feature = "gzip")]
    #[test]
    fn the_native_store_conforms_with_gzip() -> Result<(), testing::Nonconformance> {
        testing::check_weight_store(&mut || on_simulation(Codec::Gzip { level: 1 }))
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_native_store_conforms_on_a_directory() -> Result<(), Box<dyn std::error::Error>> {
        let parent = tempfile::tempdir()?;
        let mut number = 0;
        testing::check_weight_store(&mut || {
            number += 1;
            let path = parent.path().join(format!("store-{number}"));
            let storage = StorageConfig::default().with_segment_bytes(8 << 20);
            let config = NativeConfig::default().with_storage(storage);
            Ok(Box::new(NativeStore::open(path, config)?))
        })?;
        Ok(())
    }
}
