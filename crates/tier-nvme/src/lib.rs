//! Direct I/O, I/O engines and a crash-safe checksummed blob store.

mod error;
#[expect(dead_code, reason = "w")]
mod format;
#[cfg(feature = "sim")]
pub mod sim;
mod volume;

pub use error::NvmeError;
pub use volume::{Alignment, FileMode, FileName, Volume, VolumeFile, VolumeLock, VolumeReport};
