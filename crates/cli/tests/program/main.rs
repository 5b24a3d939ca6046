//! The built program, as a user runs it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bad_input;
mod cache_input;
mod coral;
mod difference;
mod formats;
mod interruption;
mod machine;
mod measurement;
mod model;
mod mount;
mod process;
mod replay;
mod store_states;
mod traces;
mod value_states;
mod values;
mod whole_path;
