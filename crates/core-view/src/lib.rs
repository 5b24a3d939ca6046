//! Zero-copy buffers, tensor views and the contracts that storage tiers share.
//!
//! Memory has an owner ([`BufferOwner`]), and what is held beside it says who may do what. [`BufferMut`] is
//! unique: engines take it by value and give it back. [`TensorStorage`] is shared: cloning it and taking
//! views is O(1), and only a holder that is alone may write. The one turns into the other without a copy.
//! [`Tensor`] adds a type ([`DType`]), a shape and strides, and every view of a tensor is O(1) and allocates
//! nothing.
//!
//! Owners are vectors, storages of `core-alloc`, and, with the features of their names, `bytes::Bytes`,
//! memory-mapped files, `ndarray` arrays and tensors of other libraries through DLPack. The `safetensors`
//! module reads and writes that format, `npy` reads numpy's. The [`contract`] module holds what all tiers have in common.
//!
//! ```
//! use core_view::{BufferMut, DType, Tensor, TensorStorage};
//!
//! let mut buffer = BufferMut::zeroed(24, 4096)?;
//! buffer[4..8].copy_from_slice(&1.5_f32.to_le_bytes());
//! let tensor = Tensor::from_storage(TensorStorage::from(buffer), DType::F32, &[2, 3])?;
//!
//! let column = tensor.narrow(1, 1, 1)?;
//! assert_eq!(column.to_vec::<f32>()?, [1.5, 0.0]);
//! assert_eq!(tensor.transpose(0, 1)?.get::<f32>(&[1, 0])?, 1.5);
//!
//! drop(column);
//! let buffer = tensor.into_storage().try_into_unique().map_err(|_| "still shared")?;
//! assert!(buffer.is_aligned_to(4096));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod contract;
#[cfg(feature = "dlpack")]
pub mod dlpack;
#[cfg(feature = "npy")]
pub mod npy;
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

/// The README's example, compiled and run with the documentation.
#[cfg(all(doctest, feature = "bytes", feature = "mmap", feature = "safetensors"))]
#[doc = include_str!("../README.md")]
struct Readme;
