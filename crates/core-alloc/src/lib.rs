//! Storage kinds, allocators and composable adaptors.

mod allocator;
mod error;
mod storage;
mod system;
mod uninit;

pub use allocator::StorageAllocator;
pub use error::StorageError;
pub use storage::{AddressableStorage, HostStorage, Storage, StorageMemset, StorageType};
pub use system::{SystemAllocator, SystemStorage};
pub use uninit::Uninit;
