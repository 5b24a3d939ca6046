//! Durable knowledge graphs in compressed sparse row form.
//!
//! This crate will hold a property graph whose writes go through a write-ahead log on `tier-nvme`
//! and whose reads run over immutable, checksummed CSR segments. It has no code yet.
