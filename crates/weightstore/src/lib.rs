//! Content-addressed, deduplicated, compressed model weights.
//!
//! A tensor is stored once, under the root of a SHA-256 tree over its bytes, whatever names it goes by
//! ([`WeightStore`]). A model is a manifest over tensors: it is exported byte for byte as it was
//! imported.
//!
//! ```
//! use core_view::DType;
//! use weightstore::{HashKey, MemoryStore, WeightStore, WeightTensor};
//!
//! let store = MemoryStore::new();
//! let weight = WeightTensor::new("fc.bias", DType::F32, &[2], vec![0.5_f32, -0.5])?;
//! let hash = store.store(&weight, None)?;
//!
//! // The same content under another name is a use of the same tensor.
//! let twin = WeightTensor::new("fc2.bias", DType::F32, &[2], vec![0.5_f32, -0.5])?;
//! assert_eq!(store.store(&twin, None)?, hash);
//! assert_eq!(store.uses(&hash.into())?.len(), 2);
//!
//! // Coral's hash leads to it too.
//! let alias = HashKey::from(weight.compute_alias());
//! assert!(store.exists(&alias)?);
//! # Ok::<(), weightstore::WeightError>(())
//! ```
#![deny(unsafe_code)]

mod alias;
mod codec;
#[cfg(feature = "hdf5")]
mod coral;
mod delta;
mod difference;
#[cfg(feature = "native")]
mod encoded;
mod error;
#[cfg(feature = "foreign")]
mod foreign;
mod hash;
#[cfg(feature = "hdf5")]
mod hdf5;
mod identity;
mod memory;
mod metadata;
#[cfg(feature = "native")]
mod native;
mod parallel;
#[cfg(feature = "native")]
mod record;
mod sketch;
mod source;
mod store;
mod tensor;
#[cfg(feature = "testing")]
pub mod testing;
mod threads;

pub use alias::AliasHasher;
pub use codec::Codec;
pub use codec::chunk::ChunkEncoding;
#[cfg(feature = "hdf5")]
pub use coral::{CoralFidelity, DecodedDelta, decode_coral_delta};
pub use delta::{Delta, DeltaKind};
pub use difference::{Difference, decode_delta, encode_delta};
#[cfg(feature = "native")]
pub use encoded::{
    EncodedModel, EncodedObject, EncodedSink, EncodedSource, TRANSFER_STATE_LEN_MAX,
    TransferJournal,
};
pub use error::WeightError;
#[cfg(feature = "foreign")]
pub use foreign::{ForeignFile, ModelFormat};
pub use hash::{CoralAlias, HashKey, WeightHash};
#[cfg(feature = "hdf5")]
pub use hdf5::{
    CoralFile, CoralFileWriter, CoralModel, CoralSkipped, CoralTensor, CoralWeight,
    Hdf5Compression, Hdf5Config, Hdf5Mode, Hdf5Store,
};
pub use identity::{CHUNK_LEN_BYTES, Leaf, chunk_count, leaf_digest, leaf_digests, tensor_root};
pub use memory::MemoryStore;
pub use metadata::{DeltaStorageInfo, StorageInfo, WeightMetadata};
#[cfg(feature = "native")]
pub use native::{
    Damage, DamageKind, ElementChange, EncodingStats, ExportOptions, ExportReport, Gc, GcOptions,
    GcReport, ImportOptions, ImportReport, LayerComparison, ModelComparison, ModelFile, ModelInfo,
    ModelTensor, NativeConfig, NativeStore, OnProgress, Progress, RemovalReport, Saved, SlotTarget,
    SourceFile, StoreStats, TensorChange, TensorComparison, VerifyOptions, VerifyReport,
};
#[cfg(feature = "native")]
pub(crate) use sketch::SketchPlace;
pub use sketch::{Likeness, Sketch, SketchIndex};
pub use source::ByteSource;
pub use store::WeightStore;
pub use tensor::WeightTensor;

#[cfg(all(doctest, feature = "native"))]
#[doc = include_str!("../README.md")]
struct Readme;
