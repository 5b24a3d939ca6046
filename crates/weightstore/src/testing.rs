//! The conformance suite of weight stores.
//!
//! Every back-end runs it, ours and yours:
//!
//! ```
//! use weightstore::{MemoryStore, testing};
//!
//! testing::check_weight_store(&mut || Ok(Box::new(MemoryStore::new())))?;
//! # Ok::<(), testing::Nonconformance>(())
//! ```

use std::fmt::Debug;

use crate::{WeightError, WeightStore};

mod deltas;
#[cfg(feature = "native")]
mod encoded;
mod lifecycle;
mod weights;

#[cfg(feature = "native")]
pub use encoded::{EncodedStore, MakeEncodedStore, check_encoded_store};

/// A rule of [`WeightStore`] that an implementation breaks.
#[derive(Debug, thiserror::Error)]
#[error("the store fails the check {check:?}: {reason}")]
pub struct Nonconformance {
    /// The check that failed.
    pub check: &'static str,
    /// What was seen instead of what the contract demands.
    pub reason: String,
}

/// Makes a fresh, empty store for a check.
pub type MakeStore<'a> = dyn FnMut() -> Result<Box<dyn WeightStore>, WeightError> + 'a;

type Check = fn(&dyn WeightStore) -> Result<(), String>;

const CHECKS: [(&str, Check); 17] = [
    (
        "content of every type comes back",
        weights::every_type_comes_back,
    ),
    (
        "shapes without elements and without dimensions",
        weights::edge_shapes_come_back,
    ),
    (
        "tensors of several chunks come back",
        weights::large_tensors_come_back,
    ),
    ("absent weights are no error", weights::absent_is_no_error),
    (
        "a supplied hash is checked",
        weights::supplied_hashes_are_checked,
    ),
    ("aliases find weights", weights::aliases_find_weights),
    (
        "content is stored once and keeps its uses",
        weights::content_is_stored_once,
    ),
    ("metadata is kept", weights::metadata_is_kept),
    ("lists are sorted and complete", weights::lists_are_sorted),
    (
        "deleted weights are gone",
        weights::deleted_weights_are_gone,
    ),
    ("batches store and load", weights::batches_store_and_load),
    ("storage info adds up", weights::storage_info_adds_up),
    ("deltas come back", deltas::deltas_come_back),
    (
        "a supplied delta hash is checked",
        deltas::supplied_hashes_are_checked,
    ),
    ("the reference of a delta stays", deltas::references_stay),
    ("closing ends the use", lifecycle::closing_ends_the_use),
    ("threads share a store", lifecycle::threads_share_a_store),
];

/// Runs every check, each on a fresh store that `make` makes.
///
/// # Errors
/// The first rule that is broken.
pub fn check_weight_store(make: &mut MakeStore<'_>) -> Result<(), Nonconformance> {
    for (check, run) in CHECKS {
        let store = make().map_err(|error| Nonconformance {
            check,
            reason: format!("making the store failed: {error}"),
        })?;
        run(&*store).map_err(|reason| Nonconformance { check, reason })?;
        store.close().map_err(|error| Nonconformance {
            check,
            reason: format!("closing the store failed: {error}"),
        })?;
    }
    Ok(())
}

/// The names of the checks.
pub fn checks() -> impl ExactSizeIterator<Item = &'static str> {
    CHECKS.iter().map(|check| check.0)
}

/// The value of a call that must not fail.
fn works<T>(call: &str, outcome: Result<T, WeightError>) -> Result<T, String> {
    outcome.map_err(|error| format!("{call} failed: {error:?}"))
}

fn same<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected {
        Ok(())
    } else {
        Err(format!("{what} is {found:?}, expected {expected:?}"))
    }
}

fn holds(what: &str, condition: bool) -> Result<(), String> {
    condition
        .then_some(())
        .ok_or_else(|| format!("it does not hold that {what}"))
}
