//! Zero-copy buffers, tensor views and the contracts that storage tiers share.

pub mod contract;

mod buffer;
mod owner;

pub use buffer::BufferMut;
pub use owner::{Access, BufferOwner};
