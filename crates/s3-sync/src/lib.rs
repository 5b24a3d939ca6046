//! Model weights and cold KV blocks on any S3-compatible service.
//!
//! This crate will hold an S3 back-end of the weight store, push and pull that resume where they
//! stopped, and the remote tier of the block manager. It has no code yet.
