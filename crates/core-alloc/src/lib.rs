//! Storage kinds, allocators and composable adaptors.
//!
//! [`Storage`] is memory, a region of a device or of a disk, or nothing; what can be done with it is
//! in its type: [`AddressableStorage`] has an address, [`HostStorage`] a pointer that the host may
//! follow, [`StorageMemset`] can be set to a value. [`StorageAllocator`] hands storage out, zeroed or
//! as [`Uninit`], which is a type of its own. Dropping storage gives it back.
//!
//! Allocators: [`SystemAllocator`](struct@SystemAllocator), [`MmapAllocator`],
//! [`HugePageAllocator`]; device, pinned and disk memory have theirs in other crates. Adaptors wrap an
//! allocator of any kind and are allocators again: [`Pool`], [`FixedPool`], [`Limit`], [`Stats`],
//! [`Trace`], [`Fault`], [`Fallback`], [`OnOom`]. [`DynAllocator`] is any of them with its type erased.
//!
//! ```
//! use core_alloc::{HostStorage, Limit, Pool, Stats, StorageAllocator, SystemAllocator};
//!
//! let stats = Stats::new(SystemAllocator);
//! let pool = Pool::new(Limit::new(&stats, 64 << 20))?;
//! let mut block = pool.allocate(1 << 20)?;
//! block.as_mut_slice()[0] = 7;
//! drop(block);
//! assert_eq!(stats.all().current_bytes, 1 << 20);
//! pool.trim(0);
//! assert_eq!(stats.all().current_bytes, 0);
//! # Ok::<(), core_alloc::StorageError>(())
//! ```

mod alignment;
mod allocator;
mod erased;
mod error;
mod fallback;
mod fault;
mod fixed_pool;
mod guarded;
#[cfg(target_os = "linux")]
mod huge;
mod limit;
#[cfg(target_os = "linux")]
mod mapped;
#[cfg(feature = "testing")]
mod null;
mod on_oom;
mod pool;
mod registration;
mod request;
mod slab;
mod slots;
mod stats;
mod storage;
mod system;
mod trace;
mod uninit;
mod validate;

#[cfg(feature = "testing")]
pub mod conformance;

pub use alignment::Alignment;
pub use allocator::StorageAllocator;
pub use erased::{DynAllocator, DynStorage, Erased};
pub use error::StorageError;
pub use fallback::{Either, Fallback};
pub use fault::Fault;
pub use fixed_pool::{FixedBlock, FixedPool, FixedReturn};
pub use guarded::{Guard, Guarded};
#[cfg(target_os = "linux")]
pub use huge::{HugePageAllocator, HugePageReport};
pub use limit::{Limit, Limited, Share};
#[cfg(target_os = "linux")]
pub use mapped::{MappedStorage, MmapAllocator, Pages};
#[cfg(feature = "testing")]
pub use null::{NullDeviceAllocator, NullDeviceStorage};
pub use on_oom::{OnOom, OutOfMemory, Verdict};
pub use pool::{Pool, PoolConfig, PoolUsage, Pooled, Return};
pub use registration::{
    RegisterableStorage, Registered, RegistrationHandle, Registrations, leaked_storages,
};
pub use request::Request;
pub use slab::{SlabPart, split_slab};
pub use stats::{Counted, Entry, Stats, Usage};
pub use storage::{AddressableStorage, HostStorage, Storage, StorageMemset, StorageType};
pub use system::{SystemAllocator, SystemStorage};
pub use trace::{Mark, Trace, TraceAction, TraceEvent, Traced};
pub use uninit::Uninit;
pub use validate::{validate_alignment, validate_storage};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
