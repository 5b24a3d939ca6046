//! The native store: models, damage, crashes, bad input, threads.
#![cfg(feature = "native")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod bad_input;
mod bodies;
mod damage;
mod encoded;
mod failed_import;
mod family;
mod fixture;
mod full_disk;
mod gc;
mod look_ups;
mod models;
mod orders;
mod placement;
mod properties;
mod tampering;
mod threads;
