//! A suite per contract, for every implementation and every wrapper to run.
//!
//! Each suite takes a way to make what it judges, and panics with what was broken. They are fair to what
//! may fail: whenever an operation succeeds its bytes are exact; whenever it fails, its buffers come back
//! and the error's kind is one that the contract names. Valid operations are tried again a number of
//! times, so that an implementation that always fails does not pass.
//!
//! ```
//! use std::sync::Arc;
//! use core_alloc::{StorageAllocator, SystemAllocator};
//! use core_view::contract::conformance;
//! use core_view::contract::{HostTier, MemoryTier};
//!
//! conformance::memory_tier(&|| {
//!     let storage = SystemAllocator::default().allocate(8 * 4096).expect("32 KiB are free");
//!     Arc::new(HostTier::new(storage, 4096).expect("8 slots fit")) as Arc<dyn MemoryTier>
//! });
//! ```

mod block_listing;
mod block_store;
mod block_traffic;
mod block_trial;
mod buffer;
mod future;
mod history;
mod memory_tier;
mod pattern;
mod quarantine;
mod slot_leases;
mod slot_traffic;
mod transfer;
mod verdict;

pub use block_store::{BlockStoreSource, block_store};
pub use buffer::buffer;
pub use future::block_on;
pub use history::{History, Write};
pub use memory_tier::memory_tier;
pub use quarantine::Quarantine;
pub use transfer::{TransferSource, transfer};
