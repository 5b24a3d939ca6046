//! The NPY format: header parser, and views of files.
//!
//! A file is a magic, a version, the length of a header, the header (a Python dictionary of three
//! entries, as text) and the elements. The source is the specification in numpy's `numpy.lib.format`.
//! Nothing is evaluated: what is not one of those three entries in its plain form is refused.
//!
//! ```
//! use core_view::TensorStorage;
//! use core_view::npy::NpyFile;
//!
//! let dictionary = "{'descr': '<u2', 'fortran_order': False, 'shape': (2,), }\n";
//! let mut file = b"\x93NUMPY\x01\x00".to_vec();
//! file.extend_from_slice(&(dictionary.len() as u16).to_le_bytes());
//! file.extend_from_slice(dictionary.as_bytes());
//! file.extend_from_slice(&[1, 0, 2, 0]);
//! let file = NpyFile::from_storage(TensorStorage::from_slice(&file)?)?;
//! assert_eq!(file.tensor()?.to_vec::<u16>()?, [1, 2]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(clippy::indexing_slicing)]

mod dictionary;
mod error;
mod file;
mod header;
#[cfg(test)]
mod tests;

pub use error::NpyError;
pub use file::NpyFile;
pub use header::{HEADER_LEN_MAX, MAGIC, NpyHeader};
