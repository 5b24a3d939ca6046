//! Regions of a disk as storage: scratch space behind the same traits as memory.

mod allocator;
mod error;
mod memset;
mod storage;

pub use allocator::DiskAllocator;
pub use storage::DiskStorage;
