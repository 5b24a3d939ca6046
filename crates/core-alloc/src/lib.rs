//! Storage kinds, allocators and composable adaptors.

mod allocator;
mod error;
mod storage;
mod uninit;

pub use allocator::StorageAllocator;
pub use error::StorageError;
pub use storage::{AddressableStorage, HostStorage, Storage, StorageMemset, StorageType};
pub use uninit::Uninit;
