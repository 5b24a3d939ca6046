//! Direct I/O, I/O engines and a crash-safe checksummed blob store.

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(target_os = "linux")]
mod engine;
mod error;
mod format;
#[cfg(target_os = "linux")]
mod real;
#[cfg(feature = "sim")]
pub mod sim;
mod store;
mod volume;

#[cfg(target_os = "linux")]
pub use engine::EngineStatistics;
pub use error::NvmeError;
#[cfg(target_os = "linux")]
pub use real::{EngineChoice, RealVolume, VolumeOptions};
pub use store::{
    CommitStage, Damage, NvmeStore, RecoveryReport, StorageConfig, StorageConfigBuilder,
    StoreStats, VerifyReport, WriteBatch,
};
pub use volume::{Alignment, FileMode, FileName, Volume, VolumeFile, VolumeLock, VolumeReport};
