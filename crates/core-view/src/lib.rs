//! Zero-copy buffers, tensor views and the contracts that storage tiers share.

pub mod contract;
#[cfg(feature = "safetensors")]
pub mod safetensors;

mod buffer;
mod device;
mod dtype;
mod element;
mod error;
mod float8;
mod owner;
mod storage;
mod tensor;

pub use buffer::BufferMut;
pub use device::Device;
pub use dtype::DType;
pub use element::Element;
pub use error::ViewError;
pub use float8::{F8E4M3, F8E5M2};
pub use owner::{Access, BufferOwner};
pub use storage::TensorStorage;
pub use tensor::{DataPtr, RANK_MAX, Tensor};
