//! The KV-cache block manager of Stepwell.
//!
//! This crate will hold the typed life of a block (mutable, complete, registered), identity by
//! chained sequence hashes, per-tier pools, eviction policies and the movement of blocks between
//! tiers. It knows tiers only through the contracts of `core-view`. It has no code yet.
