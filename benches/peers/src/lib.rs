//! Other stores at the same work as ours, through the public interface that each has for it.
//!
//! A [`Peer`] puts batches and gets values; [`PeerContender`] lets it take turns with
//! [`tier_nvme::bench::RawLoop`] and ours.
#![forbid(unsafe_code)]

mod cold;
mod contender;
mod fjall_store;
mod foyer_cache;
mod redb_store;
#[cfg(feature = "rocksdb")]
mod rocksdb_store;

pub use contender::{Peer, PeerContender};
pub use fjall_store::FjallStore;
pub use foyer_cache::FoyerCache;
pub use redb_store::RedbStore;
#[cfg(feature = "rocksdb")]
pub use rocksdb_store::RocksdbStore;
