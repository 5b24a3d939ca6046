//! The KV-cache block manager of Stepwell.
//!
//! A [`BlockPool`] has the blocks of one tier; the life of a block is in the types of [`block`]:
//! [`MutableBlock`] → [`CompleteBlock`] → [`ImmutableBlock`] ⇄ [`WeakBlock`]. [`identity`] tells which block is
//! which, [`layout`] where its parts lie in memory, and [`policy`] decides which block leaves a full pool.
//! [`KvBlockManager`] makes the tiers of a process, pools with their storage, from one configuration.
//! which, and [`policy`] decides which block leaves a full pool. [`movement`] composes tiers.
//!
//! An engine matches the leading blocks of a prompt, allocates the rest, fills and registers them:
//!
//! ```
//! use blockmgr::{BlockPool, Salt, TokenSequence};
//!
//! let pool = BlockPool::builder().capacity_blocks(1000).block_tokens(4).build()?;
//! let mut prompt = TokenSequence::new(Salt::new("llama-3-8b").with_tenant("acme"), 4)?;
//! prompt.extend(&[7, 7, 7, 7, 1, 2, 3, 4, 5])?;
//! let hashes = prompt.sequence_hashes();
//!
//! let mut blocks = pool.match_sequence_hashes(hashes);
//! let fresh = pool.allocate_blocks(hashes.len() - blocks.len())?;
//! // … fill the memory of `fresh.slots()` …
//! let complete = fresh.complete(&hashes[blocks.len()..])?;
//! let registered = pool.register_blocks(complete)?;
//! blocks.append(registered).map_err(|_| "one pool")?;
//! assert_eq!(blocks.len(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub mod block;
mod error;
pub mod identity;
pub mod layout;
pub mod movement;
pub mod policy;
pub mod pool;
#[cfg(feature = "trace")]
pub mod replay;
#[cfg(feature = "trace")]
pub mod simulate;
mod sync;
pub mod tiers;
#[cfg(feature = "trace")]
pub mod trace;

pub use block::{
    CompleteBlock, CompleteBlocks, ImmutableBlock, ImmutableBlocks, MutableBlock, MutableBlocks,
    WeakBlock,
};
pub use error::{Error, Refused};
pub use identity::{BlockHash, Salt, SequenceHash, TokenBlock, TokenSequence};
pub use layout::{LayoutType, calculate_storage_requirements};
pub use movement::{TieredCache, TieredCacheBuilder};
pub use pool::{
    BlockEvent, BlockPool, BlockPoolBuilder, Duplicates, EventSink, EvictedBlock, EvictionHook,
    LeaseId, PoolStatus, RequestOptions,
};
pub use tiers::{
    KvBlockManager, KvBlockManagerConfig, KvManagerLayoutConfig, KvManagerModelConfig,
    KvManagerRuntimeConfig,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/kv-cache.md")]
struct Guide;
