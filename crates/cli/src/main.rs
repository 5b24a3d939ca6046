//! Tiered storage for tensors: the command-line program.
#![forbid(unsafe_code)]

mod arguments;
mod bench;
mod direct_writer;
mod doctor;
mod error;
mod file_source;
mod interruption;
mod kv;
mod page;
mod progress;
mod quantity;
mod report;
mod store;
mod table;
mod target;
mod tour;
mod weights;

use std::process::ExitCode;

fn main() -> ExitCode {
    interruption::outlive_file_limits();
    arguments::run()
}
