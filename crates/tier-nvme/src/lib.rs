//! Direct I/O, I/O engines and a crash-safe checksummed blob store.

mod error;
mod format;
#[cfg(feature = "sim")]
pub mod sim;
mod store;
mod volume;

pub use error::NvmeError;
pub use store::{
    CommitStage, Damage, NvmeStore, RecoveryReport, StorageConfig, StorageConfigBuilder,
    StoreStats, VerifyReport, WriteBatch,
};
pub use volume::{Alignment, FileMode, FileName, Volume, VolumeFile, VolumeLock, VolumeReport};
