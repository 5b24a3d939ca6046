//! GPU memory as a tier of Stepwell.
//!
//! This crate will hold device and page-locked memory behind the storage traits of `core-alloc`,
//! stream-ordered copies behind the transfer contract of `core-view`, a copy planner and a GPU
//! cache whose leases can't outlive an eviction. It has no code yet.
