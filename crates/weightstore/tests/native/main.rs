//! The native store: models, damage, crashes, bad input, threads.
#![cfg(feature = "native")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod fixture;
mod models;
