#![no_main]

#[macro_use]
mod target;

target!("batch_header");
