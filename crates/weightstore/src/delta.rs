//! Differences between tensors, as opaque typed records.

use core_view::{DType, TensorStorage};

use crate::identity::{delta_root, leaf_digests};
use crate::{HashKey, WeightError, WeightHash};

/// How a delta's payload is made.
///
/// The names are Coral's, but for the last. Payloads are kept as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DeltaKind {
    /// The difference in single precision.
    Float32Raw,
    /// The difference in single precision, compressed by zlib.
    Compressed,
    /// Exclusive or of the single-precision bits.
    XorFloat32,
    /// Exclusive or of the bfloat16 bits.
    XorBfloat16,
    /// Exponents and mantissas apart.
    ExponentMantissa,
    /// The difference quantised to 8 bits.
    Int8Quantized,
    /// The difference quantised to 16 bits.
    Int16Quantized,
    /// The elements that differ.
    Sparse,
    /// A scale per axis.
    PerAxisScaled,
    /// The exact difference that [`encode_delta`](crate::encode_delta) makes; not known to Coral.
    OrderedDifference,
}

const NAMES: [(DeltaKind, &str); 10] = [
    (DeltaKind::Float32Raw, "float32_raw"),
    (DeltaKind::Compressed, "compressed"),
    (DeltaKind::XorFloat32, "xor_float32"),
    (DeltaKind::XorBfloat16, "xor_bfloat16"),
    (DeltaKind::ExponentMantissa, "exponent_mantissa"),
    (DeltaKind::Int8Quantized, "int8_quantized"),
    (DeltaKind::Int16Quantized, "int16_quantized"),
    (DeltaKind::Sparse, "sparse"),
    (DeltaKind::PerAxisScaled, "per_axis_scaled"),
    (DeltaKind::OrderedDifference, "ordered_difference"),
];

impl DeltaKind {
    /// Every kind, in a fixed order.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        NAMES.iter().map(|row| row.0)
    }

    /// Coral's name of the kind.
    pub fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|row| row.0 == self)
            .map_or("unknown", |row| row.1)
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|row| row.1 == name).map(|row| row.0)
    }
}

/// A tensor's difference from another one, the reference.
///
/// The payload is opaque here: it is stored, verified and given back as it is.
///
/// ```
/// use core_view::DType;
/// use weightstore::{Delta, DeltaKind, WeightHash};
///
/// let reference = WeightHash::from_bytes([7; 32]);
/// let delta = Delta::new(DeltaKind::Sparse, DType::F32, &[2, 2], reference, vec![1_u8, 2, 3])
///     .with_metadata(r#"{"threshold":0.0}"#);
/// assert_eq!(delta.payload(), [1, 2, 3]);
/// assert_ne!(delta.compute_hash(), reference);
/// ```
#[derive(Debug, Clone)]
pub struct Delta {
    kind: DeltaKind,
    original_dtype: DType,
    original_shape: Vec<u64>,
    reference_hash: HashKey,
    compression_ratio: f64,
    metadata: String,
    payload: TensorStorage,
}

impl Delta {
    /// A delta of `kind` that makes a tensor of that type and shape from the reference.
    pub fn new(
        kind: DeltaKind,
        original_dtype: DType,
        original_shape: &[u64],
        reference_hash: impl Into<HashKey>,
        payload: impl Into<TensorStorage>,
    ) -> Self {
        Self {
            kind,
            original_dtype,
            original_shape: original_shape.to_vec(),
            reference_hash: reference_hash.into(),
            compression_ratio: 1.0,
            metadata: String::new(),
            payload: payload.into(),
        }
    }

    /// The delta with the ratio of its size to the tensor's.
    #[must_use]
    pub fn with_compression_ratio(mut self, ratio: f64) -> Self {
        self.compression_ratio = ratio;
        self
    }

    /// The delta with what its kind needs to know, as JSON.
    #[must_use]
    pub fn with_metadata(mut self, json: impl Into<String>) -> Self {
        self.metadata = json.into();
        self
    }

    /// How the payload is made.
    pub fn kind(&self) -> DeltaKind {
        self.kind
    }

    /// The type of the tensor that it makes.
    pub fn original_dtype(&self) -> DType {
        self.original_dtype
    }

    /// The shape of the tensor that it makes.
    pub fn original_shape(&self) -> &[u64] {
        &self.original_shape
    }

    /// The tensor that it is a difference from.
    pub fn reference_hash(&self) -> HashKey {
        self.reference_hash
    }

    /// The ratio of its size to the tensor's, as its maker states it.
    pub fn compression_ratio(&self) -> f64 {
        self.compression_ratio
    }

    /// What its kind needs to know, as JSON; empty for nothing.
    pub fn metadata(&self) -> &str {
        &self.metadata
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        self.payload.as_slice()
    }

    /// The hash of all of it.
    pub fn compute_hash(&self) -> WeightHash {
        let leaves = leaf_digests(self.payload());
        delta_root(&self.encode_fields(), self.payload.len() as u64, &leaves)
    }

    /// The same delta with another payload.
    #[cfg(feature = "native")]
    pub(crate) fn with_payload(mut self, payload: TensorStorage) -> Self {
        self.payload = payload;
        self
    }

    /// Checks a hash that was supplied for the delta and returns its own.
    pub(crate) fn checked_hash(
        &self,
        supplied: Option<&WeightHash>,
    ) -> Result<WeightHash, WeightError> {
        let computed = self.compute_hash();
        match supplied {
            Some(supplied) if *supplied != computed => Err(WeightError::HashMismatch {
                name: format!("{} delta", self.kind.name()),
                expected: supplied.into(),
                computed,
            }),
            _ => Ok(computed),
        }
    }

    /// The fields as they stand in the delta's record and are hashed; the format document lists them.
    pub(crate) fn encode_fields(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(128 + self.metadata.len());
        for text in [self.kind.name(), self.original_dtype.safetensors_name()] {
            fields.push(text.len() as u8);
            fields.extend_from_slice(text.as_bytes());
        }
        fields.extend_from_slice(&(self.original_shape.len() as u32).to_le_bytes());
        for dimension in &self.original_shape {
            fields.extend_from_slice(&dimension.to_le_bytes());
        }
        match self.reference_hash {
            HashKey::Sha256(hash) => {
                fields.push(1);
                fields.extend_from_slice(hash.as_bytes());
            }
            HashKey::Coral(alias) => {
                fields.push(2);
                fields.extend_from_slice(&alias.as_u64().to_le_bytes());
            }
        }
        fields.extend_from_slice(&self.compression_ratio.to_le_bytes());
        fields.extend_from_slice(&(self.metadata.len() as u32).to_le_bytes());
        fields.extend_from_slice(self.metadata.as_bytes());
        fields
    }
}
