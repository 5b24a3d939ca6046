//! What is known of a tensor besides its bytes.

use core_view::DType;

use crate::{Codec, WeightHash};

/// A tensor's description, under one of the names that it was stored by.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WeightMetadata {
    /// The tensor's name.
    pub name: String,
    /// The lengths of its dimensions; none for a scalar.
    pub shape: Vec<u64>,
    /// The type of its elements.
    pub dtype: DType,
    /// The kind of layer that it belongs to, such as `Linear`.
    pub layer_type: Option<String>,
    /// The model that it belongs to.
    pub model_name: Option<String>,
    /// Free-form JSON about how it was compressed before it came here; empty for none.
    pub compression_info: String,
    /// The hash of its content.
    pub hash: WeightHash,
}

/// The names of a tensor's [`WeightMetadata`], without what follows from its content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Label {
    pub(crate) name: String,
    pub(crate) layer_type: Option<String>,
    pub(crate) model_name: Option<String>,
    pub(crate) compression_info: String,
}

impl Label {
    pub(crate) fn describe(
        self,
        dtype: DType,
        shape: Vec<u64>,
        hash: WeightHash,
    ) -> WeightMetadata {
        WeightMetadata {
            name: self.name,
            shape,
            dtype,
            layer_type: self.layer_type,
            model_name: self.model_name,
            compression_info: self.compression_info,
            hash,
        }
    }
}

/// How much a store holds.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StorageInfo {
    /// Number of distinct tensors.
    pub total_weights: u64,
    /// Bytes of these tensors before encoding.
    pub logical_bytes: u64,
    /// Bytes that they take in the store, their headers included.
    pub stored_bytes: u64,
    /// `stored_bytes / logical_bytes`; 1 for a store without content.
    pub compression_ratio: f64,
    /// The codec that new content is stored with.
    pub codec: Codec,
}

impl StorageInfo {
    /// The totals with their ratio.
    pub fn new(total_weights: u64, logical_bytes: u64, stored_bytes: u64, codec: Codec) -> Self {
        Self {
            total_weights,
            logical_bytes,
            stored_bytes,
            compression_ratio: ratio(stored_bytes, logical_bytes),
            codec,
        }
    }
}

/// How much the deltas of a store take.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DeltaStorageInfo {
    /// Number of deltas.
    pub total_deltas: u64,
    /// Bytes of their payloads before encoding.
    pub logical_bytes: u64,
    /// Bytes that they take in the store, their headers included.
    pub stored_bytes: u64,
    /// `stored_bytes / logical_bytes`; 1 for a store without deltas.
    pub compression_ratio: f64,
}

impl DeltaStorageInfo {
    /// The totals with their ratio.
    pub fn new(total_deltas: u64, logical_bytes: u64, stored_bytes: u64) -> Self {
        Self {
            total_deltas,
            logical_bytes,
            stored_bytes,
            compression_ratio: ratio(stored_bytes, logical_bytes),
        }
    }
}

/// Stored by logical bytes, 1 where there is nothing.
pub(crate) fn ratio(stored_bytes: u64, logical_bytes: u64) -> f64 {
    if logical_bytes == 0 {
        1.0
    } else {
        stored_bytes as f64 / logical_bytes as f64
    }
}
