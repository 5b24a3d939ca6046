//! Direct I/O, I/O engines and a crash-safe checksummed blob store.
