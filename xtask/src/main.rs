//! Checks, test matrices and benchmarks of the Stepwell workspace.
fn main() {}
