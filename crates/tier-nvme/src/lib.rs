//! Direct input and output, and a crash-safe, checksummed store of values under keys.
//!
//! [`NvmeStore`] is the store, [`BlockSlab`] the one for blocks of one size; everything that they keep goes
//! through a [`Volume`]: a directory of a file system (`RealVolume`), or a simulated one that fails by a seed
//! (`sim::SimVolume`).
//!
//! ```
//! use tier_nvme::{NvmeStore, StorageConfig, WriteBatch};
//!
//! let directory = tempfile::tempdir()?;
//! let store = NvmeStore::new(directory.path(), StorageConfig::default())?;
//! store.write_batch(WriteBatch::new().put("a", vec![1, 2, 3]).put("b", vec![4]))?;
//! assert_eq!(store.read_direct("a")?.as_deref(), Some(&[1, 2, 3][..]));
//! println!("{:?}", store.stats().volume);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(all(feature = "bench", target_os = "linux"))]
pub mod bench;
#[cfg(feature = "testing")]
pub mod conformance;
mod disk;
#[cfg(target_os = "linux")]
mod engine;
mod error;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod outcome_thread;
#[cfg(any(target_os = "linux", feature = "sim"))]
mod progress;
mod read_queue;
#[cfg(target_os = "linux")]
mod real;
#[cfg(feature = "sim")]
pub mod sim;
mod slab;
mod store;
mod threads;
mod volume;
mod wal;

pub use disk::{DiskAllocator, DiskStorage};
#[cfg(target_os = "linux")]
pub use engine::EngineStatistics;
pub use error::NvmeError;
pub use read_queue::ReadQueue;
#[cfg(target_os = "linux")]
pub use real::{EngineChoice, RealVolume, VolumeOptions};
pub use slab::{BlockSlab, SlabConfig, SlabConfigBuilder, SlabRecovery, SlabStats};
pub use store::{
    BackgroundStep, CacheStats, CheckedValue, CommitStage, CompactionReport, CompressionType,
    Damage, MapOrigin, MappedValue, MemoryKind, MemoryStats, NvmeStore, PrefetchStats,
    RecoveryReport, StorageConfig, StorageConfigBuilder, StoreStats, VerifyOptions, VerifyPosition,
    VerifyReport, WriteBatch,
};
pub use volume::{Alignment, FileMode, FileName, Volume, VolumeFile, VolumeLock, VolumeReport};
pub use wal::{Lsn, Overload, Wal, WalConfig, WalRecord, WalRecovery, WalReplay, WalStats};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
