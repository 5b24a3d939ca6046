//! What every volume, its files and its engine must do, as checks to run over any of them.
//!
//! ```
//! use std::sync::Arc;
//! use tier_nvme::{RealVolume, VolumeOptions, conformance};
//!
//! let root = tempfile::tempdir()?;
//! let next = std::sync::atomic::AtomicU32::new(0);
//! let factory = || {
//!     let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
//!     let path = root.path().join(number.to_string());
//!     let volume = RealVolume::create(path, VolumeOptions::default());
//!     volume.map(|volume| Arc::new(volume) as _)
//! };
//! conformance::check_names(&factory)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod counted;
mod lifetimes;
mod names;
mod pattern;
mod queues;
mod refusals;
mod transfers;

use std::error::Error;
use std::sync::Arc;

use crate::{NvmeError, Volume};

pub use lifetimes::check_lifetimes;
pub use names::check_names;
pub use queues::check_queues;
pub use refusals::check_refusals;
pub use transfers::check_transfers;

/// Makes an empty writable volume at each call, with nothing of the one before.
pub type Factory<'a> = &'a dyn Fn() -> Result<Arc<dyn Volume>, NvmeError>;

/// The first thing that is not as it must be, in words.
pub type Checked = Result<(), Box<dyn Error>>;

/// Runs every check.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn check_all(factory: Factory<'_>) -> Checked {
    check_names(factory)?;
    check_transfers(factory)?;
    check_queues(factory)?;
    check_refusals(factory)?;
    check_lifetimes(factory)
}

/// Fails with `what` unless `holds`.
fn ensure(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(what().into()) }
}
