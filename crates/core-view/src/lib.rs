//! Zero-copy buffers, tensor views and the contracts that storage tiers share.

pub mod contract;
#[cfg(feature = "dlpack")]
pub mod dlpack;
#[cfg(feature = "safetensors")]
pub mod safetensors;

#[cfg(feature = "bincode")]
mod binary;
mod buffer;
mod create;
mod device;
mod dtype;
mod element;
mod error;
mod float8;
#[cfg(feature = "bytes")]
mod foreign_bytes;
#[cfg(feature = "ndarray")]
mod foreign_ndarray;
#[cfg(feature = "mmap")]
mod map;
mod owner;
#[cfg(feature = "serde")]
mod serialize;
mod storage;
mod tensor;

pub use buffer::BufferMut;
pub use create::create_storage;
pub use device::Device;
pub use dtype::DType;
pub use element::Element;
pub use error::ViewError;
pub use float8::{F8E4M3, F8E5M2};
pub use owner::{Access, BufferOwner};
pub use storage::TensorStorage;
pub use tensor::{DataPtr, RANK_MAX, Tensor};
