//! An interleaving benchmark harness shared by the benchmarks in this folder.
