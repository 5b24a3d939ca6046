//! The safetensors format: header parser, header writer, views of files, index of sharded models.
//!
//! A file is a length of 8 bytes (little-endian), a JSON header of that length and a data section that
//! the tensors tile without hole or overlap. The source is the format section of
//! <https://github.com/huggingface/safetensors>.
//!
//! ```
//! use core_view::DType;
//! use core_view::safetensors::{Header, HeaderBuilder};
//!
//! let written = HeaderBuilder::new()
//!     .metadata("format", "pt")
//!     .tensor("weight", DType::BF16, &[2, 3])
//!     .tensor("bias", DType::BF16, &[3])
//!     .build()?;
//! let file_len = written.raw().len() as u64 + written.data_len();
//! let read = Header::read(&mut &written.raw()[..], file_len)?;
//! assert_eq!(read.get("bias").map(|info| (info.start, info.end)), Some((12, 18)));
//! # Ok::<(), core_view::safetensors::SafetensorsError>(())
//! ```

#![deny(clippy::indexing_slicing)]

mod builder;
mod error;
mod file;
mod header;
mod index;
mod json;
#[cfg(test)]
mod tests;

pub use builder::HeaderBuilder;
pub use error::SafetensorsError;
pub use file::SafetensorsFile;
pub use header::{HEADER_LEN_MAX, Header, TensorInfo};
pub use index::ShardIndex;
