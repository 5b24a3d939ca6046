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

    #[test]
    fn the_native_store_moves_tensors_as_they_are_stored() -> Result<(), testing::Nonconformance> {
        for codec in [Codec::None, Codec::Auto] {
            testing::check_encoded_store(&mut || {
                let storage = StorageConfig::default().with_segment_bytes(8 << 20);
                let config = NativeConfig::default()
                    .with_storage(storage)
                    .with_codec(codec);
                let volume = SimVolume::new(7).handle();
                Ok(Box::new(NativeStore::on_volume(volume, config)?))
            })?;
        }
        Ok(())
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

#[cfg(feature = "hdf5")]
mod hdf5 {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tier_nvme::FileName;
    use tier_nvme::sim::SimVolume;
    use weightstore::{Hdf5Compression, Hdf5Config, Hdf5Store, WeightError, WeightStore, testing};

    fn conforms(compression: Hdf5Compression) -> Result<(), Box<dyn std::error::Error>> {
        let name = FileName::new("weights.h5")?;
        testing::check_weight_store(&mut || {
            let config = Hdf5Config::default().with_compression(compression);
            let volume = SimVolume::new(7).handle();
            let store = Hdf5Store::on_volume(volume, name.clone(), config)?;
            Ok(Box::new(store))
        })?;
        Ok(())
    }

    #[test]
    fn the_hdf5_store_conforms_on_the_simulated_volume() -> Result<(), Box<dyn std::error::Error>> {
        conforms(Hdf5Compression::Gzip { level: 1 })
    }

    #[test]
    fn the_hdf5_store_conforms_with_lzf() -> Result<(), Box<dyn std::error::Error>> {
        conforms(Hdf5Compression::Lzf)
    }

    #[test]
    fn the_hdf5_store_conforms_uncompressed() -> Result<(), Box<dyn std::error::Error>> {
        conforms(Hdf5Compression::None)
    }

    /// The same, but every few calls the file is written and read again.
    #[derive(Debug)]
    struct Committing(Hdf5Store, AtomicU32);

    macro_rules! then_commit {
        ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
            $(fn $name(&self, $($argument: $type),*) -> Result<$answer, WeightError> {
                let answer = self.0.$name($($argument),*)?;
                if self.1.fetch_add(1, Ordering::Relaxed).is_multiple_of(11) {
                    self.0.commit()?;
                }
                Ok(answer)
            })*
        };
    }

    impl WeightStore for Committing {
        then_commit! {
            store(weight: &weightstore::WeightTensor, key: Option<&weightstore::HashKey>) -> weightstore::WeightHash;
            load(key: &weightstore::HashKey) -> Option<weightstore::WeightTensor>;
            exists(key: &weightstore::HashKey) -> bool;
            delete(key: &weightstore::HashKey) -> bool;
            list_weights() -> Vec<weightstore::WeightHash>;
            get_metadata(key: &weightstore::HashKey) -> Option<weightstore::WeightMetadata>;
            get_storage_info() -> weightstore::StorageInfo;
            store_delta(delta: &weightstore::Delta, hash: Option<&weightstore::WeightHash>) -> weightstore::WeightHash;
            load_delta(hash: &weightstore::WeightHash) -> Option<weightstore::Delta>;
            delta_exists(hash: &weightstore::WeightHash) -> bool;
            delete_delta(hash: &weightstore::WeightHash) -> bool;
            list_deltas() -> Vec<weightstore::WeightHash>;
            get_delta_storage_info() -> weightstore::DeltaStorageInfo;
        }

        fn close(&self) -> Result<(), WeightError> {
            self.0.close()
        }
    }

    #[test]
    fn the_hdf5_store_conforms_from_its_file() -> Result<(), Box<dyn std::error::Error>> {
        let name = FileName::new("weights.h5")?;
        testing::check_weight_store(&mut || {
            let config = Hdf5Config::default().with_compression(Hdf5Compression::Gzip { level: 1 });
            let volume = SimVolume::new(7).handle();
            let store = Hdf5Store::on_volume(volume, name.clone(), config)?;
            Ok(Box::new(Committing(store, AtomicU32::new(0))))
        })?;
        Ok(())
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_hdf5_store_conforms_on_a_directory() -> Result<(), Box<dyn std::error::Error>> {
        let parent = tempfile::tempdir()?;
        let mut number = 0;
        testing::check_weight_store(&mut || {
            number += 1;
            let path = parent.path().join(format!("weights-{number}.h5"));
            Ok(Box::new(Hdf5Store::open(path, Hdf5Config::default())?))
        })?;
        Ok(())
    }
}
