//! The slab under the suite of block stores, on a real directory and on a simulated volume, whole and failing.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use core_view::contract::BlockStore;
use core_view::contract::conformance::{self, BlockStoreSource};
use tier_nvme::sim::{FaultRates, SimVolume};
use tier_nvme::{BlockSlab, SlabConfig};

fn config() -> SlabConfig {
    SlabConfig::default()
        .with_block_bytes(64 << 10)
        .with_capacity_bytes(6 << 20)
        .with_segment_bytes(2 << 20)
}

/// Slabs on simulated volumes; each is opened again on its own.
struct Simulated {
    config: SlabConfig,
    faults: FaultRates,
    seed: AtomicU64,
    volume: std::sync::Mutex<Option<SimVolume>>,
}

impl Simulated {
    fn new(config: SlabConfig, faults: FaultRates) -> Self {
        Self {
            config,
            faults,
            seed: AtomicU64::new(1),
            volume: std::sync::Mutex::default(),
        }
    }

    fn open(&self, volume: &SimVolume) -> Arc<dyn BlockStore> {
        volume.set_faults(FaultRates::default());
        let slab = BlockSlab::on_volume(volume.handle(), self.config.clone()).unwrap();
        volume.set_faults(self.faults);
        Arc::new(slab)
    }
}

impl BlockStoreSource for Simulated {
    fn make(&self) -> Arc<dyn BlockStore> {
        let volume = SimVolume::new(self.seed.fetch_add(1, Ordering::Relaxed));
        let store = self.open(&volume);
        *self.volume.lock().unwrap() = Some(volume);
        store
    }

    fn reopen(&self, store: Arc<dyn BlockStore>) -> Option<Arc<dyn BlockStore>> {
        let volume = self.volume.lock().unwrap().clone()?;
        volume.set_faults(FaultRates::default());
        drop(store);
        Some(self.open(&volume))
    }
}

#[test]
fn on_a_simulated_volume() {
    for own_thread in [true, false] {
        let config = config().with_own_thread(own_thread);
        conformance::block_store(&Simulated::new(config, FaultRates::default()));
    }
}

#[test]
fn on_a_simulated_volume_that_fails() {
    let faults = FaultRates {
        read_errors: 20,
        write_errors: 4,
        ..FaultRates::default()
    };
    conformance::block_store(&Simulated::new(config(), faults));
}

#[test]
fn without_a_sync_for_each_change() {
    let config = config().with_durable(false);
    conformance::block_store(&Simulated::new(config, FaultRates::default()));
}

#[cfg(target_os = "linux")]
mod real {
    use super::*;
    use tier_nvme::{RealVolume, VolumeOptions};

    struct Real {
        root: tempfile::TempDir,
        next: AtomicU64,
        options: VolumeOptions,
    }

    impl Real {
        fn open(&self, number: u64) -> Arc<dyn BlockStore> {
            let path = self.root.path().join(format!("slab-{number}"));
            let volume = RealVolume::create(path, self.options.clone()).unwrap();
            Arc::new(BlockSlab::on_volume(Arc::new(volume), config()).unwrap())
        }
    }

    impl BlockStoreSource for Real {
        fn make(&self) -> Arc<dyn BlockStore> {
            self.open(self.next.fetch_add(1, Ordering::Relaxed))
        }

        fn reopen(&self, store: Arc<dyn BlockStore>) -> Option<Arc<dyn BlockStore>> {
            drop(store);
            Some(self.open(self.next.load(Ordering::Relaxed) - 1))
        }
    }

    #[test]
    fn in_a_directory() {
        for direct in [true, false] {
            conformance::block_store(&Real {
                root: tempfile::tempdir().unwrap(),
                next: AtomicU64::new(0),
                options: VolumeOptions::from_test_environment()
                    .unwrap()
                    .with_direct_io(direct),
            });
        }
    }
}
