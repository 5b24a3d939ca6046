//! Tiered storage for tensors: the command-line program.
fn main() {}
