//! Values that are stored compressed.

use tier_nvme::sim::SimVolume;
use tier_nvme::{CompressionType, NvmeError, NvmeStore, StorageConfig, WriteBatch};

fn types() -> Vec<CompressionType> {
    vec![
        CompressionType::LZ4,
        #[cfg(feature = "zstd")]
        CompressionType::Zstd,
    ]
}

fn config(compression: CompressionType) -> StorageConfig {
    super::config().with_compression(compression)
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| b"stepwell "[i / 3 % 9]).collect()
}

#[test]
fn compressed_values_come_back_from_disk_and_take_less() {
    for compression in types() {
        let volume = SimVolume::new(1);
        let store = NvmeStore::on_volume(volume.handle(), config(compression)).unwrap();
        let sizes = [0, 100, 300, 4096, 5000, 200_000];
        for len in sizes {
            store.write_aligned(format!("{len}"), &text(len)).unwrap();
        }
        // More than a segment has, and yet it fits.
        store.write_aligned("large", &text(600_000)).unwrap();
        let check = |store: &NvmeStore| {
            for len in sizes {
                let value = store.read_direct(format!("{len}")).unwrap();
                assert_eq!(value.as_deref(), Some(&text(len)[..]), "{compression:?}");
                assert_eq!(store.len_of(format!("{len}")), Some(len as u64));
            }
            assert_eq!(store.read_direct("large").unwrap().unwrap().len(), 600_000);
            let stats = store.stats();
            assert_eq!(stats.live_raw_bytes, 809_496);
            assert!(stats.live_bytes < 100_000, "{stats:?}");
            assert!(store.verify().unwrap().is_whole());
        };
        check(&store);
        volume.kill();
        drop(store);
        // From the log, then from a checkpoint; the setting is for what is written.
        let store = NvmeStore::on_volume(volume.handle(), super::config()).unwrap();
        assert!(store.recovery_report().batches_replayed > 0);
        check(&store);
        store.close().unwrap();
        let store = NvmeStore::on_volume(volume.handle(), super::config()).unwrap();
        assert!(store.recovery_report().clean);
        check(&store);
        store.write_aligned("4096", &text(4096)).unwrap();
        assert!(store.stats().live_bytes > 4096);
    }
}

#[test]
fn a_flipped_bit_in_a_compressed_value_is_found() {
    for compression in types() {
        let volume = SimVolume::new(1);
        let store = NvmeStore::on_volume(volume.handle(), config(compression)).unwrap();
        store
            .write_batch(WriteBatch::new().put("key", text(100_000)))
            .unwrap();
        let stored_bytes = store.stats().live_bytes;
        for bit in (0..stored_bytes * 8).step_by(61) {
            // The header takes the page behind the segment's own.
            let bit = 8 * 8192 + bit;
            assert!(volume.flip_bit("SEGMENT-0000000000000001", bit));
            let error = store.read_direct("key").unwrap_err();
            assert!(matches!(error, NvmeError::Corrupt { .. }), "{error:?}");
            assert!(volume.flip_bit("SEGMENT-0000000000000001", bit));
        }
        assert_eq!(
            store.read_direct("key").unwrap().as_deref(),
            Some(&text(100_000)[..])
        );
    }
}
