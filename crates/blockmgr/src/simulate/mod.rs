//! What a policy would have hit, over a trace and without data.
//!
//! The requests run one after the other. Each finds its longest leading run of cached blocks (the hits), holds them
//! while room is made for the others, and lets all go at its end, from the last block to the first. The
//! hit rate is hits by blocks, over all requests.
//!
//! ```
//! use blockmgr::policy::PolicyKind;
//! use blockmgr::simulate::{Workload, optimum, simulate};
//! use blockmgr::trace::TraceRequest;
//!
//! let ask = |hash_ids: &[u64]| TraceRequest { hash_ids: hash_ids.to_vec(), ..Default::default() };
//! let workload: Workload = [ask(&[1, 2]), ask(&[1, 3]), ask(&[1, 2])].into_iter().collect();
//! assert_eq!(simulate(&workload, PolicyKind::Lru, 2).hits, 2);
//! assert_eq!(optimum(&workload, 2).hits, 3);
//! ```

mod ceiling;
mod hit_count;
mod optimum;
mod prefix_cache;
mod workload;

pub use ceiling::hit_ceiling;
pub use hit_count::HitCount;
pub use optimum::optimum;
pub use prefix_cache::{PrefixCache, simulate};
pub use workload::{Workload, WorkloadRequest};
