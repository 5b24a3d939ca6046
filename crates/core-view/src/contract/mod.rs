//! The contracts that all tiers share: what a tier must do, and what may be relied on.
//!
//! A bulk operation takes its buffers by value and gives them back through a [`Transfer`]; whoever
//! does the work holds the [`Completer`]. [`MemoryTier`] is memory in slots, [`BlockStore`] is durable
//! blocks below it. Errors of every tier convert into one [`ContractError`], whose [`ErrorKind`] says
//! what to do next.
//!
//! With the feature `testing`, `conformance` has a suite per contract for implementations and wrappers to
//! run, and `mock` has implementations that delay, reorder and fail by a seed.

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "testing")]
pub mod mock;

mod block_store;
mod deadline;
mod error;
mod failure;
mod host_tier;
mod memory_tier;
mod slot_table;
mod tier_choice;
mod transfer;

pub use block_store::{
    BLOCK_META_BYTES_MAX, Block, BlockCapabilities, BlockEntry, BlockGet, BlockKey, BlockMeta,
    BlockPut, BlockStore, BlockUsage,
};
pub use error::{ContractError, ErrorKind};
pub use failure::{Failure, Unverified};
pub use host_tier::HostTier;
pub use memory_tier::{MemoryTier, SlotCopy, SlotId, SlotRead, SlotWrite};
pub use slot_table::{SlotClaims, SlotTable};
pub use tier_choice::TierChoice;
pub use transfer::{Completer, Drive, Transfer};
