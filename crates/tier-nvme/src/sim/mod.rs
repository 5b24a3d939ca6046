//! A volume in memory that behaves as badly as a disk may, by a seed.
//!
//! What was not synced when the power fails is kept or lost sector by sector, in any combination and
//! order; creations, renames and removals likewise until the directory is synced. Space runs out; reads,
//! writes and syncs fail, end early or are put off. With a [`Latency`], operations take time on a clock
//! of the volume's own, complete out of order, and are cut off in flight. And the disk can lie: it flips
//! bits, and reads and writes elsewhere than it was told ([`FaultRates`]).
//!
//! The same seed and the same operations on one thread give the same outcome. [`Seeds`] runs a test over
//! many, and says how to replay the one that failed; [`fail_power_everywhere`] leaves no operation of a
//! [`Workload`] out.
//!
//! ```
//! use tier_nvme::sim::{FaultRates, Latency, Seeds, SimVolume};
//! use tier_nvme::{NvmeStore, StorageConfig};
//!
//! Seeds::from_environment(20).each("cargo test -p my-crate", |seed| {
//!     let volume = SimVolume::new(seed);
//!     volume.set_latency(Some(Latency::of_flash()));
//!     volume.set_faults(FaultRates { interruptions: 50, short_transfers: 200, ..FaultRates::default() });
//!     let config = StorageConfig::default().with_segment_bytes(1 << 20);
//!     let store = NvmeStore::on_volume(volume.handle(), config.clone())?;
//!     store.write_aligned("key", b"value")?;
//!     volume.crash();
//!     drop(store);
//!     let store = NvmeStore::on_volume(volume.handle(), config)?;
//!     assert_eq!(store.read_direct("key")?.as_deref(), Some(&b"value"[..]));
//!     Ok::<(), tier_nvme::NvmeError>(())
//! })?;
//! # Ok::<(), tier_nvme::NvmeError>(())
//! ```

mod clock;
mod disk;
mod faults;
mod file;
mod flight;
mod inode;
mod power;
mod random;
mod seeds;
mod volume;

pub use clock::{Latency, SimClock};
pub use faults::{FaultCounts, FaultRates, Survival};
pub use power::{PowerFailures, SURVIVALS, Workload, fail_power_everywhere};
pub use random::Random;
pub use seeds::Seeds;
pub use volume::SimVolume;

use crate::Alignment;

/// Sectors tear at multiples of this many bytes.
pub const SECTOR_BYTES: usize = 512;

const ALIGNMENT: Alignment = Alignment {
    memory_bytes: SECTOR_BYTES,
    offset_bytes: 4096,
};
