//! The exchange of files with Coral.
//!
//! `tests/data` has files that Coral 1.0 wrote with h5py, and in `coral-expected.txt` what it reads from them; the
//! four kinds of deltas that later versions of Coral have were added through h5py. With
//! `STEPWELL_CORAL_PYTHON` naming a Python that has Coral, the exchange is done afresh, in both
//! directions.
#![cfg(feature = "hdf5")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod exchange;
mod fixtures;
mod hostile;
mod listing;
mod store;
