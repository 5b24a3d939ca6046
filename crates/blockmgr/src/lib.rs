//! The KV-cache block manager of Stepwell.
//!
//! [`policy`] decides which block leaves a full pool. The typed life of a block, pools and movement between
//! tiers are being added.
//!
//! ```
//! use blockmgr::policy::{Access, EvictionPolicy, PolicyKind, Request, Slot};
//!
//! let mut policy = PolicyKind::Lru.build(2);
//! for (index, sequence_hash) in [0xfeed, 0xbeef].into_iter().enumerate() {
//!     let request = Request { tick: index as u64, ..Request::default() };
//!     let slot = Slot::new(index as u32);
//!     policy.insert(slot, &Access { sequence_hash, position: 0, request });
//!     policy.release(slot);
//! }
//! assert_eq!(policy.evict(), Some(Slot::new(0)));
//! ```

#![forbid(unsafe_code)]

pub mod policy;
#[cfg(feature = "trace")]
pub mod simulate;
#[cfg(feature = "trace")]
pub mod trace;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
