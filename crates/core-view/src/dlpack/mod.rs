//! Exchange of tensors with other libraries through DLPack 1 (<https://dmlc.github.io/dlpack>).
//!
//! ```
//! use core_view::Tensor;
//!
//! let tensor = Tensor::from_vec(vec![1.0_f32, 2.0, 3.0], &[3])?;
//! let exported = tensor.into_dlpack()?.into_raw();
//! // SAFETY: the pointer was just exported, and nobody else uses it.
//! let imported = unsafe { Tensor::from_dlpack(exported) }?;
//! assert_eq!(imported.to_vec::<f32>()?, [1.0, 2.0, 3.0]);
//! # Ok::<(), core_view::ViewError>(())
//! ```

mod abi;
mod export;
mod import;
#[cfg(test)]
mod tests;

pub use abi::{
    DlDataType, DlDevice, DlManagedTensorVersioned, DlTensor, DlVersion, FLAG_IS_COPIED,
    FLAG_READ_ONLY, FLAG_SUBBYTE_PADDED, VERSION_MAJOR, VERSION_MINOR,
};
pub use export::DlpackTensor;
