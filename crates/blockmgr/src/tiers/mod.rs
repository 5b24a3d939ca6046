//! Tiers of blocks, made from a configuration.
//!
//! A [`KvBlockManager`] has a tier for device memory, one for host memory and one for disk, each where it is
//! configured: a [`BlockPool`](crate::BlockPool), a [`Layout`](crate::layout::Layout) and the storage that an
//! allocator gave for it, or memory and a store that come in behind their contracts; this crate names none but those of
//! `core-alloc`. A [`TieredCache`](crate::TieredCache) moves blocks between them, whatever their layouts.

mod block_manager;
mod block_tier;
mod config;
mod layout_config;
mod layout_memory;
mod model_config;
mod regions;

pub use block_manager::KvBlockManager;
pub use block_tier::BlockTier;
pub use config::{KvBlockManagerConfig, KvBlockManagerConfigBuilder, KvManagerRuntimeConfig};
pub use layout_config::{KvManagerLayoutConfig, KvManagerLayoutConfigBuilder};
pub use model_config::{KvManagerModelConfig, KvManagerModelConfigBuilder};
