//! A tensor with its names.

use core_view::{DType, TensorStorage};

use crate::alias::AliasHasher;
use crate::identity::{leaf_digests, tensor_root};
use crate::metadata::Label;
use crate::{CoralAlias, WeightError, WeightHash, WeightMetadata};

/// A tensor's bytes in C order, with its type, shape and names.
///
/// Cloning is O(1): the bytes are shared.
///
/// ```
/// use core_view::DType;
/// use weightstore::WeightTensor;
///
/// let weight = WeightTensor::new("fc.weight", DType::F32, &[2, 2], vec![0.0_f32, 1.0, 2.0, 3.0])?
///     .with_layer_type("Linear")
///     .with_model_name("demo");
/// assert_eq!(weight.bytes().len(), 16);
/// assert_eq!(weight.metadata().hash, weight.compute_hash());
/// # Ok::<(), weightstore::WeightError>(())
/// ```
#[derive(Debug, Clone)]
pub struct WeightTensor {
    dtype: DType,
    shape: Vec<u64>,
    label: Label,
    data: TensorStorage,
}

impl WeightTensor {
    /// Takes bytes or elements as a tensor of that type and shape, without a copy.
    ///
    /// # Errors
    /// [`WeightError::ShapeMismatch`] if the length in bytes is not what type and shape need.
    pub fn new(
        name: impl Into<String>,
        dtype: DType,
        shape: &[u64],
        data: impl Into<TensorStorage>,
    ) -> Result<Self, WeightError> {
        let name = name.into();
        let data = data.into();
        let expected_bytes = len_bytes(dtype, shape);
        if expected_bytes != Some(data.len() as u64) {
            return Err(WeightError::ShapeMismatch {
                name,
                dtype,
                shape: shape.to_vec(),
                expected_bytes,
                found_bytes: data.len() as u64,
            });
        }
        let label = Label {
            name,
            ..Label::default()
        };
        Ok(Self {
            dtype,
            shape: shape.to_vec(),
            label,
            data,
        })
    }

    /// The tensor with the kind of its layer.
    #[must_use]
    pub fn with_layer_type(mut self, layer_type: impl Into<String>) -> Self {
        self.label.layer_type = Some(layer_type.into());
        self
    }

    /// The tensor with the name of its model.
    #[must_use]
    pub fn with_model_name(mut self, model_name: impl Into<String>) -> Self {
        self.label.model_name = Some(model_name.into());
        self
    }

    /// The tensor with free-form JSON about its compression.
    #[must_use]
    pub fn with_compression_info(mut self, json: impl Into<String>) -> Self {
        self.label.compression_info = json.into();
        self
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.label.name
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The lengths of the dimensions.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// The bytes in C order.
    pub fn bytes(&self) -> &[u8] {
        self.data.as_slice()
    }

    /// The bytes as shared memory, for typed views.
    pub fn data(&self) -> &TensorStorage {
        &self.data
    }

    /// The hash of the content: type, shape and bytes. Large tensors are hashed on several threads.
    pub fn compute_hash(&self) -> WeightHash {
        let leaves = leaf_digests(self.bytes());
        tensor_root(self.dtype, &self.shape, self.data.len() as u64, &leaves)
    }

    /// Coral's hash of the content.
    pub fn compute_alias(&self) -> CoralAlias {
        let mut hasher = AliasHasher::new(self.dtype, &self.shape);
        hasher.update(self.bytes());
        hasher.finish()
    }

    /// The description; it hashes the content.
    pub fn metadata(&self) -> WeightMetadata {
        let hash = self.compute_hash();
        self.label
            .clone()
            .describe(self.dtype, self.shape.clone(), hash)
    }

    pub(crate) fn label(&self) -> &Label {
        &self.label
    }

    /// The same content under other names.
    #[cfg(feature = "native")]
    pub(crate) fn labelled(mut self, label: Label) -> Self {
        self.label = label;
        self
    }
}

/// Bytes that a tensor of that type and shape has, if that is a whole number in range.
pub(crate) fn len_bytes(dtype: DType, shape: &[u64]) -> Option<u64> {
    let elements = shape
        .iter()
        .try_fold(1_u64, |product, &dimension| product.checked_mul(dimension))?;
    dtype
        .len_bytes(usize::try_from(elements).ok()?)
        .map(|len| len as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (7 * i + i / 251) as u8).collect()
    }

    /// Made with Python's hashlib and the xxhash package; they stand in the format document too.
    const VECTORS: [(DType, &[u64], usize, &str, &str); 8] = [
        (
            DType::F32,
            &[],
            4,
            "b71a38d639db7182a173d7c408f1a776760f1f25888a52764c93263660bc41d6",
            "f867e08af739dd41",
        ),
        (
            DType::F32,
            &[10, 5],
            200,
            "649f0b3b66f9463d52bd1e02ce06692f42d1f60f7940c4f9bf9757c91787646f",
            "fe6fa8938608fe89",
        ),
        (
            DType::BF16,
            &[5],
            10,
            "232df463f8eab52dc2ba50ff2ede3ac1670a74ca89a8bf4e072804d786b024a9",
            "8ab3b4df39f99147",
        ),
        (
            DType::U8,
            &[0, 3],
            0,
            "313df1def16bc49cfc028b85e50694cc50e01f3213df5cbdea4d33edc73f6605",
            "fc0288bbfe646ce8",
        ),
        (
            DType::U8,
            &[1 << 20],
            1 << 20,
            "37ae49db34da8ecc0212bb9fc311d3c3a27f0b542fe94f3f665a5a6b0edcc821",
            "7d61233dccf41708",
        ),
        (
            DType::U8,
            &[(1 << 20) + 1],
            (1 << 20) + 1,
            "c12f598b43d9a743ee9d274aa7bc06bdb8bbd853b658f093cc85fde944a179a9",
            "dc6fde96516ec9d7",
        ),
        (
            DType::F16,
            &[3, 1 << 19],
            3 << 20,
            "5cee9308592951d36c0b4ee5996f256ae65b3c3130ef974c9a2880dc9a2e8d62",
            "ae88ec677fce9710",
        ),
        (
            DType::F4,
            &[2, 7],
            7,
            "1bc35b1b693676d7597d9eabecaaf3df53b649bed8d20ceba5f1af922fec2137",
            "3cbeb80e3df23801",
        ),
    ];

    #[test]
    fn hashes_are_those_that_other_programs_compute() {
        for (dtype, shape, len, root, alias) in VECTORS {
            let weight = WeightTensor::new("w", dtype, shape, pattern(len)).unwrap();
            assert_eq!(weight.compute_hash().to_string(), root, "{dtype} {shape:?}");
            assert_eq!(
                weight.compute_alias().to_string(),
                alias,
                "{dtype} {shape:?}"
            );
        }
    }

    #[test]
    fn names_are_no_part_of_the_hash_but_type_and_shape_are() {
        let of = |name: &str, dtype, shape: &[u64]| {
            WeightTensor::new(name, dtype, shape, pattern(24)).unwrap()
        };
        let hash = of("a", DType::F32, &[6]).compute_hash();
        let other_name = of("b", DType::F32, &[6]).with_layer_type("Linear");
        assert_eq!(other_name.compute_hash(), hash);
        for other in [
            of("a", DType::I32, &[6]),
            of("a", DType::F32, &[2, 3]),
            of("a", DType::F32, &[6, 1]),
            of("a", DType::F16, &[12]),
        ] {
            assert_ne!(other.compute_hash(), hash);
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        for (dtype, shape) in [
            (DType::F32, &[5_u64][..]),
            (DType::F32, &[u64::MAX, 2]),
            (DType::F4, &[3]),
        ] {
            let refused = WeightTensor::new("w", dtype, shape, vec![0_u8; 24]);
            assert!(matches!(refused, Err(WeightError::ShapeMismatch { .. })));
        }
    }
}
