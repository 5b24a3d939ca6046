//! Files in Coral's HDF5 layout.
//!
//! A file has three groups: `weights` with a dataset for each tensor, named by Coral's hash of it,
//! `deltas` with one for each delta, and `metadata`, which is empty. What is known of a tensor stands in
//! its dataset's attributes. The format document lists them all.
//!
//! [`CoralFile`] reads such a file from anywhere, [`CoralFileWriter`] writes a new one, and
//! [`Hdf5Store`] is a [`WeightStore`](crate::WeightStore) over one. [`CoralModel`] shows one as the safetensors file that
//! a store imports.

mod attributes;
mod config;
mod element;
mod file;
mod library;
mod model;
mod publication;
mod staging;
mod storage;
mod store;
mod volume_source;
mod writer;

pub use config::{Hdf5Compression, Hdf5Config, Hdf5Mode};
pub use file::{CoralFile, CoralWeight};
pub use model::{CoralModel, CoralSkipped, CoralTensor};
pub use store::Hdf5Store;
pub use writer::CoralFileWriter;
