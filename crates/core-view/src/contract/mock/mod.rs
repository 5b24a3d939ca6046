//! Tiers for tests: they complete at once, late, out of order or not at all, by a seed.
//!
//! A [`Schedule`] says when operations are carried out and what goes wrong. The same schedule drives a
//! [`MockTier`] over any memory tier, a [`MockBlockStore`] on a [`MockMedia`], and [`MockOperations`] that
//! do nothing but take time. [`MockDevice`] puts a memory tier out of the host's reach. All of them pass the
//! suites of `contract::conformance`.
//!
//! ```
//! use std::time::Duration;
//! use core_alloc::{StorageAllocator, SystemAllocator};
//! use core_view::BufferMut;
//! use core_view::contract::mock::{Faults, MockTier, Schedule};
//! use core_view::contract::{ErrorKind, HostTier, MemoryTier, SlotId, SlotRead};
//!
//! let host = HostTier::new(SystemAllocator::default().allocate(64 * 1024)?, 4096)?;
//! let faults = Faults { refused: 0.5, ..Faults::NONE };
//! let tier = MockTier::new(host, Schedule::delayed(Duration::from_millis(1)).with_faults(7, faults));
//! let mut refused = 0;
//! for _ in 0..20 {
//!     let target = BufferMut::zeroed(4096, 128)?;
//!     let read = SlotRead { slot: SlotId(0), offset_bytes: 0, target };
//!     if let Err(failure) = tier.read(vec![read]).wait() {
//!         assert_eq!(failure.kind(), ErrorKind::Io);
//!         assert_eq!(failure.into_parts().1.len(), 1);
//!         refused += 1;
//!     }
//! }
//! assert!((1..20).contains(&refused));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod block_store;
mod device;
mod dice;
mod executor;
mod media;
mod memory_tier;
mod operations;
mod schedule;

pub use block_store::MockBlockStore;
pub use device::MockDevice;
pub use dice::Dice;
pub use media::MockMedia;
pub use memory_tier::MockTier;
pub use operations::{HeldOperation, MockOperations};
pub use schedule::{FaultCounts, Faults, Schedule};
